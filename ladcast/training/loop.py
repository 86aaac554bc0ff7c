"""The training loop: the same one for both models, for any number of ranks, resumable at any step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ladcast.data.batches import BatchSource, SampleBatch, SampleOrder, load_batches
from ladcast.resumable import require_same
from ladcast.training.cost import Throughput
from ladcast.training.distributed import ALONE, Loss, Ranks, gradients_stay, parallelize, whole
from ladcast.training.logs import Validation
from ladcast.training.optimizer import (
    GradientWatch,
    WeightAverage,
    build_optimizers,
    learning_rate,
    optimizer_state,
    restore_optimizers,
)
from ladcast.training.options import TrainingOptions
from ladcast.training.snapshots import Snapshots

Log = Callable[..., None]
"""Takes the step, its numbers by name and, after a validation, its `Validation` with the maps."""


class TrainingInterruptedError(Exception):
    """The end of a run that was asked to stop; its state is saved."""

    def __init__(self, step: int) -> None:
        super().__init__(f"Interrupted after step {step}; the state is saved.")
        self.step = step


@dataclass(frozen=True)
class TrainingContext:
    """The folder for the snapshots of a run, its log, its ranks, and the functions that validate it and may stop it."""

    folder: Path
    log: Log
    ranks: Ranks = ALONE
    validate: Callable[[nn.Module], Validation | None] | None = None
    """Called on all ranks with the averaged weights, at every checkpoint."""
    interrupted: Callable[[], bool] = lambda: False
    """Asked in every step: whether to save after it and raise TrainingInterruptedError."""
    flops_per_sample: float = 0.0
    """Counted arithmetic of one sample, forward and backward, for the log."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Hashes, by name, of what the weights depend on beside the options: snapshots of another run are refused."""


def fit(
    model: nn.Module, loss: Loss, data: BatchSource, options: TrainingOptions, context: TrainingContext
) -> dict[str, Tensor]:
    """Trains `model` in place and returns its averaged weights, whole on every rank.

    `loss(model, batch, generator)` draws all randomness from `generator`, whose seed is a hash of (seed, batch,
    micro-batch): a run that was killed and resumed from its folder repeats the uninterrupted one. Ranks are
    micro-batches that are computed at once, so that with `micro_batch_size` set, any number of ranks takes the same
    steps up to rounding.

    Raises:
        FloatingPointError: the loss or its gradient is not finite and `options.anomaly` says to stop.
        TrainingInterruptedError: `context.interrupted` said so; the state is saved.
        ValueError: the data do not fill a batch, or the folder is of a run with other inputs or another seed.
    """
    ranks = context.ranks
    order = SampleOrder(len(data), options.batch_size, options.seed, ranks.rank, ranks.size)
    options.micro_batches(ranks.size)  # raises before work is done
    work = parallelize(model, loss, options, ranks)
    state = TrainingState(model, options, order, context.inputs)
    speed = Throughput(options.batch_size, context.flops_per_sample, ranks)
    with Snapshots(context.folder, ranks) as snapshots:
        state.restore(snapshots)
        if _due(state.step, options.checkpoint_every, options.steps) and state.step > snapshots.validated():
            validate(state, context, snapshots)  # a kill came between the snapshot and its validation
        speed.pause(state.step)
        endless = range(state.batch_number, state.batch_number + 2**40)
        threads = options.loader_threads
        with closing(load_batches(data, order, steps=endless, device=ranks.device, threads=threads)) as stream:
            while state.step < options.steps:
                stop = context.interrupted()
                value, norm, stop = compute_gradient(work, next(stream), state, ranks, stop=stop)
                problem = state.watch.find(value, norm)
                if problem is None:
                    for optimizer in state.optimizers:
                        optimizer.step()
                    state.average.update(model.state_dict())
                model.zero_grad(set_to_none=True)
                state.step += 1
                if problem is not None:
                    state.watch.count(problem, state.step)
                    context.log(state.step, {"anomalies": state.watch.anomalies})
                    if options.anomaly.action == "roll_back":
                        state.roll_back(snapshots)
                        continue
                if _due(state.step, options.log_every, options.steps):
                    context.log(state.step, {**state.numbers(value, norm), **speed.measure(state.step)})
                if stop or _due(state.step, options.checkpoint_every, options.steps):
                    snapshots.save(state.step, state.tensors(), state.document())
                    if stop or not options.checkpoint_in_background:
                        snapshots.wait()
                if stop and state.step < options.steps:
                    raise TrainingInterruptedError(state.step)
                if _due(state.step, options.checkpoint_every, options.steps):
                    validate(state, context, snapshots)
                    speed.pause(state.step)
    return {name: whole(tensor) for name, tensor in state.average.weights.items()}


class TrainingState:
    """The state of a training run: everything that its next step depends on."""

    def __init__(
        self, model: nn.Module, options: TrainingOptions, order: SampleOrder, inputs: Mapping[str, str] | None = None
    ) -> None:
        self.model = model
        self.options = options
        self.order = order
        self.inputs = dict(inputs or {})
        self.optimizers = build_optimizers(model, options.optimizer)
        self.peak_rates = [group["lr"] for group in self.groups]
        self.average = WeightAverage(model.state_dict(), options.ema_decay)
        self.watch = GradientWatch(options.anomaly)
        self.step = 0
        """Steps that are done; the schedule counts them."""
        self.passed_over = 0
        """Batches that a roll-back has left out; the order of samples counts them too."""

    @property
    def batch_number(self) -> int:
        """Returns the number of the next batch."""
        return self.step + self.passed_over

    @property
    def groups(self) -> list[dict[str, Any]]:
        """Returns the groups of parameters of all optimizers, with their settings."""
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def seed(self, micro_batch: int) -> int:
        """Returns the seed of one micro-batch of the next batch; its number counts those of all ranks."""
        # A hash, since generators on a CPU know no more of a seed than its lowest 32 bits.
        sequence = np.random.SeedSequence([self.options.seed, self.batch_number, micro_batch])
        return int(sequence.generate_state(1, np.uint64)[0])

    def numbers(self, loss: float, norm: float) -> dict[str, float]:
        """Returns the numbers of the last step for the log."""
        rate: float = self.groups[0]["lr"]
        return {"loss": loss, "gradient_norm": norm, "learning_rate": rate, "ema_decay": self.average.current_decay}

    def tensors(self) -> dict[str, Any]:
        """Returns the tensors of a snapshot: they are those of the state, not copies."""
        optimizer = optimizer_state(self.model, self.optimizers)
        return {"model": self.model.state_dict(), "ema": self.average.weights, "optimizer": optimizer}

    def document(self) -> dict[str, Any]:
        """Returns the rest of a snapshot."""
        return {
            "made_of": self.inputs,
            "position": self.order.state(self.batch_number),
            "samples_passed_over": self.passed_over * self.order.batch_size,
            "ema_updates": self.average.updates,
            "gradient": self.watch.state(),
        }

    def restore(self, snapshots: Snapshots) -> None:
        """Takes over the newest snapshot, if there is one."""
        tensors = self.tensors()
        document = snapshots.load_newest(tensors)
        if document is None:
            return
        remedy = "Choose another 'output', or delete that folder to start anew."
        require_same(document.get("made_of", {}), self.inputs, str(snapshots.folder), remedy=remedy)
        batch_number = self.order.resume(document["position"])
        self.passed_over = document["samples_passed_over"] // self.order.batch_size
        self.step = batch_number - self.passed_over
        restore_optimizers(self.model, self.optimizers, tensors["optimizer"])
        self.average.updates = document["ema_updates"]
        self.watch.restore(document["gradient"])

    def roll_back(self, snapshots: Snapshots) -> None:
        """Returns to the newest snapshot, but goes on with the next batch."""
        next_batch, anomalies = self.batch_number, self.watch.anomalies
        self.restore(snapshots)
        self.watch.anomalies = anomalies
        self.passed_over = next_batch - self.step


def compute_gradient(
    work: nn.Module, batch: SampleBatch, state: TrainingState, ranks: Ranks, *, stop: bool
) -> tuple[float, float, bool]:
    """Computes the gradient of a step, micro-batch by micro-batch, and clips it.

    Returns the mean loss, the norm of the whole gradient before clipping, and whether any rank was asked to stop: the
    same on all ranks, for one wait for the device and one message.
    """
    options, device = state.options, ranks.device
    for group, peak in zip(state.groups, state.peak_rates, strict=True):
        group["lr"] = learning_rate(peak, options.optimizer, state.step, options.steps)
    parts = options.micro_batches(ranks.size)
    total = torch.zeros((), device=device)
    for part in range(parts):
        generator = torch.Generator(device=device).manual_seed(state.seed(part * ranks.size + ranks.rank))
        micro_batch = tuple(tensor[part::parts] for tensor in batch)
        with gradients_stay(work, last=part == parts - 1):
            with torch.autocast(device.type, torch.bfloat16, enabled=options.bf16 and device.type == "cuda"):
                value = work(micro_batch, generator) / parts
            value.backward()
        total += value.detach()
    parameters = [parameter for group in state.groups for parameter in group["params"]]
    norm = nn.utils.clip_grad_norm_(parameters, options.optimizer.max_gradient_norm)
    loss, size = torch.stack([total, whole(norm)]).tolist()
    losses, stops = ranks.sum([loss, float(stop)])
    return losses / ranks.size, size, stops > 0


def validate(state: TrainingState, context: TrainingContext, snapshots: Snapshots) -> None:
    """Logs how good the averaged weights are, where the run asks for it, and notes that it is done."""
    if context.validate is None:
        return
    with averaged(state.model, state.average):
        found = context.validate(state.model)
    if found is not None:
        context.log(state.step, found.numbers, found)
    snapshots.note_validation(state.step)


@contextmanager
def averaged(model: nn.Module, average: WeightAverage) -> Iterator[None]:
    """Lends the averaged weights to the model within a `with` block."""
    own = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    training = model.training
    model.load_state_dict(average.weights)
    model.eval()
    try:
        yield
    finally:
        model.load_state_dict(own)
        model.train(training)


def _due(done: int, every: int, steps: int) -> bool:
    return done % every == 0 or done == steps
