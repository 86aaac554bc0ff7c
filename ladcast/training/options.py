"""The settings of a training run: its length and batches, its optimizer, and what to do about an anomaly."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Interval

from ladcast.types import Count, Positive

TrackerName = Literal["tensorboard", "wandb", "mlflow"]


@dataclass(frozen=True)
class OptimizerOptions:
    """The settings of AdamW and of its schedule: linear warm-up, then a cosine to `final_fraction` of the peak rate."""

    learning_rate: Positive = 1e-4
    muon_learning_rate: Positive | None = None
    """Peak rate of Muon for the matrices within blocks, those of their modulation apart; AdamW keeps the rest. None:
    AdamW for all."""
    weight_decay: Annotated[float, Ge(0)] = 0.01
    warmup_steps: Annotated[int, Ge(0)] = 500
    final_fraction: Annotated[float, Interval(ge=0, le=1)] = 0.01
    max_gradient_norm: Positive = 1.0


@dataclass(frozen=True)
class AnomalyPolicy:
    """What counts as an anomaly of a training step, and what follows.

    A loss or gradient norm that is not finite always counts. "stop" ends the run, "skip" leaves the weights as they
    are for that step, "roll_back" returns to the last checkpoint and goes on with the batches after the bad one; before
    the first checkpoint it skips.
    """

    action: Literal["stop", "skip", "roll_back"] = "stop"
    spike: Annotated[float, Gt(1)] | None = None
    """A gradient norm of this many times its running mean counts too."""
    limit: Annotated[int, Ge(0)] = 20
    """The run stops after this many anomalies, whatever the action."""


@dataclass(frozen=True)
class TrainingOptions:
    """The length, batches, averaging and bookkeeping of a training run, and how ranks share the model."""

    steps: Count = 1000
    batch_size: Count = 4
    """Samples of a step on all ranks together."""
    micro_batch_size: Count | None = None
    """Samples that a rank holds at once; by default all of its samples of a step. Gradients are accumulated."""
    seed: Annotated[int, Interval(ge=0, lt=2**63)] = 0
    ema_decay: Annotated[float, Interval(ge=0, lt=1)] = 0.9999
    bf16: bool = True
    """Computes in bfloat16 on a GPU; weights, averages and the optimizer stay float32."""
    compile: bool = False
    recompute: bool = False
    """Computes activations of blocks again in the backward pass instead of keeping them."""
    sharding: Literal["ddp", "fsdp"] = "ddp"
    """"ddp": a copy of the model on each GPU. "fsdp": weights, gradients, averages and optimizer in shards (FSDP2)."""
    log_every: Count = 100
    checkpoint_every: Count = 1000
    checkpoint_in_background: bool = True
    """Goes on training while a checkpoint is written. A kill then costs one interval and the time of that writing, at
    most two intervals; without, at most one interval."""
    optimizer: OptimizerOptions = field(default_factory=OptimizerOptions)
    anomaly: AnomalyPolicy = field(default_factory=AnomalyPolicy)
    loader_threads: Count = 2
    """Threads that make batches; the batches do not depend on it."""

    def micro_batches(self, ranks: int) -> int:
        """Returns how many micro-batches each of `ranks` ranks computes in a step.

        Raises:
            ValueError: the batch does not divide among ranks and micro-batches.
        """
        share, rest = divmod(self.batch_size, ranks)
        micro = share if self.micro_batch_size is None else self.micro_batch_size
        if rest or micro < 1 or share % micro:
            raise ValueError(
                f"batch_size {self.batch_size} does not divide among {ranks} ranks in micro-batches of "
                f"{self.micro_batch_size or 'any size'}: choose a multiple of {ranks * (self.micro_batch_size or 1)}."
            )
        return share // micro
