"""Runs a training job: once to its end or a signal, or as a trial."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from ladcast.data.loading.batches import BatchSource, SampleBatch, SampleOrder
from ladcast.progress import peak_memory
from ladcast.recipes.trial import Trial
from ladcast.recipes.validation import Validation
from ladcast.training.distributed import Ranks
from ladcast.training.footprint import Footprint, count_flops, measure
from ladcast.training.interruption import EXIT_RESUMABLE, requeue_job
from ladcast.training.logs import TrainingLog
from ladcast.training.loop import Surroundings, TrainingInterruptedError, fit
from ladcast.training.options import TrainingOptions
from ladcast.training.parallel import Loss
from ladcast.training.trackers import open_trackers

PROFILED_STEPS = 5
MOST_OVERFITTING_STEPS = 500
GIB = 2**30


@dataclass(frozen=True)
class TrainingJob:
    """Is all that a training run of either model consists of."""

    model: nn.Module
    loss: Loss
    data: BatchSource
    options: TrainingOptions
    output: Path
    settings: dict[str, Any] = field(default_factory=dict)
    """The configuration as plain data, for trackers."""
    made_of: dict[str, Any] = field(default_factory=dict)
    """By name, as plain data, what the weights are made of: a run does not go on with something else."""
    trackers: Sequence[str] | None = None
    validate: Callable[[nn.Module], Validation] | None = None

    def sample(self) -> SampleBatch:
        """Returns a batch of one."""
        return self.data.batch(np.zeros(1, np.int64))


def train(job: TrainingJob, ranks: Ranks, interrupted: Callable[[], bool]) -> dict[str, Tensor]:
    """Trains to the end and returns the averaged weights.

    When `interrupted` says so, the state is saved and the SLURM job, if this is one, goes back into the queue; then the
    program ends.

    Raises:
        SystemExit: with 0 where the job is requeued, else with 75.
    """
    # Of a run without ranks, on which there is nothing to distribute.
    warnings.filterwarnings("ignore", message="torch.distributed is disabled")
    trackers = open_trackers(job.trackers, job.output, job.settings) if ranks.is_first else []
    log = TrainingLog(job.output / "log.jsonl", job.options.steps, trackers=trackers, silent=not ranks.is_first)
    flops = count_flops(job.model, job.loss, job.sample())

    def validate(model: nn.Module, step: int) -> dict[str, float]:
        assert job.validate is not None
        found = job.validate(model)
        log.draw(step, found.maps, found.about)
        return found.numbers

    around = Surroundings(
        job.output / "resume",
        log,
        ranks,
        validate if job.validate else None,
        interrupted,
        flops_per_sample=flops,
        made_of={name: digest(part) for name, part in job.made_of.items()},
    )
    try:
        return fit(job.model, job.loss, job.data, job.options, around)
    except TrainingInterruptedError as stop:
        if ranks.is_first:
            print(stop, flush=True)
        requeued = ranks.any(ranks.is_first and requeue_job(os.environ))
        if ranks.is_first and not requeued:
            print("Run the same command again to go on.", flush=True)
        raise SystemExit(0 if requeued else EXIT_RESUMABLE) from None
    finally:
        log.close()


def digest(plain: Any) -> str:
    """Returns the SHA-256 of plain data."""
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def try_out(job: TrainingJob, ranks: Ranks, trial: Trial, interrupted: Callable[[], bool]) -> None:
    """Does what the trial asks for in a temporary folder, and prints what it finds.

    Raises:
        SystemExit: `interrupted` said so.
    """
    try:
        _try_out(job, ranks, trial, interrupted)
    except TrainingInterruptedError as stop:
        raise SystemExit(f"The trial was interrupted after step {stop.step}; nothing of it is kept.") from None
    finally:
        if ranks.is_first:
            shutil.rmtree(_trial_folder(job), ignore_errors=True)


def _try_out(job: TrainingJob, ranks: Ranks, trial: Trial, interrupted: Callable[[], bool]) -> None:
    if trial.dry_run:
        if ranks.is_first:
            options = job.options
            footprint = measure(job.model, job.loss, job.sample(), bf16=options.bf16, recompute=options.recompute)
            print(describe(job.sample(), footprint, options, ranks.size))
        _take_steps(job, ranks, interrupted, steps=1)
    elif trial.overfit_one_batch:
        order = SampleOrder(len(job.data), job.options.batch_size, job.options.seed)
        one = replace(job, data=OneBatch(job.data, order.batch(0)))
        _take_steps(one, ranks, interrupted, steps=min(job.options.steps, MOST_OVERFITTING_STEPS))
    else:
        _profile(job, ranks, interrupted)
    if ranks.is_first:
        print(peak_memory())


def describe(sample: SampleBatch, footprint: Footprint, options: TrainingOptions, ranks: int) -> str:
    """Says what a training step takes: shapes, parameters, arithmetic and memory."""
    shards = ranks if options.sharding == "fsdp" else 1
    parts = options.micro_batches(ranks)
    micro = options.batch_size // ranks // parts
    memory = footprint.device_bytes(micro, shards=shards) / GIB
    return "\n".join(
        [
            f"sample      {', '.join(' x '.join(map(str, part.shape[1:])) or 'scalar' for part in sample)}",
            f"batch       {options.batch_size} = {ranks} ranks x {parts} micro-batches x {micro} samples",
            f"parameters  {footprint.parameters / 1e6:.1f} M, of which {footprint.trained / 1e6:.1f} M are trained",
            f"arithmetic  {footprint.flops_per_sample / 1e12:.3g} TFLOP a sample, "
            f"{footprint.flops_per_sample * options.batch_size / 1e12:.3g} a step",
            f"memory      {memory:.1f} GiB a rank: {footprint.state_bytes(shards) / GIB:.1f} for weights, average, "
            f"gradients and optimizer, {footprint.sample_bytes / GIB:.2f} for activations of a sample",
        ]
    )


@dataclass(frozen=True, eq=False)
class OneBatch:
    """Serves the same samples in every batch, in any order."""

    source: BatchSource
    indices: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.indices)

    def batch(self, indices: npt.NDArray[np.int64]) -> SampleBatch:
        """Returns samples out of the one batch."""
        return self.source.batch(self.indices[indices])


def _trial_folder(job: TrainingJob) -> Path:
    return job.output / ".trial"


def _take_steps(job: TrainingJob, ranks: Ranks, interrupted: Callable[[], bool], *, steps: int) -> None:
    """Trains for some steps in a folder that all ranks see."""
    folder = _trial_folder(job)
    if ranks.is_first:
        shutil.rmtree(folder, ignore_errors=True)
    ranks.any(False)  # all wait for that
    log = TrainingLog(folder / "log.jsonl", steps, silent=not ranks.is_first)
    flops = count_flops(job.model, job.loss, job.sample())
    around = Surroundings(folder / "resume", log, ranks, interrupted=interrupted, flops_per_sample=flops)
    optimizer = replace(job.options.optimizer, warmup_steps=min(job.options.optimizer.warmup_steps, steps // 10))
    fit(
        job.model,
        job.loss,
        job.data,
        replace(job.options, steps=steps, checkpoint_every=steps, optimizer=optimizer),
        around,
    )


def _profile(job: TrainingJob, ranks: Ranks, interrupted: Callable[[], bool]) -> None:
    """Profiles some steps after as many that warm up, and prints what took longest."""
    from torch.profiler import profile, schedule

    with profile(schedule=schedule(wait=0, warmup=PROFILED_STEPS, active=PROFILED_STEPS, repeat=1)) as profiler:

        def count_step() -> bool:
            profiler.step()
            return interrupted()

        _take_steps(job, ranks, count_step, steps=2 * PROFILED_STEPS)
    if ranks.is_first:
        trace = job.output / "profile.json"
        profiler.export_chrome_trace(str(trace))
        longest = "self_device_time_total" if ranks.device.type == "cuda" else "self_cpu_time_total"
        print(profiler.key_averages().table(sort_by=longest, row_limit=15, max_name_column_width=60))
        print(f"trace {trace}")
