"""What a training run is, and the run itself: to its end, to a signal, or only tried out."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr
from torch import Tensor, nn

from ladcast.config import load_config, to_plain
from ladcast.data.batches import BatchSource, SampleBatch, SampleOrder
from ladcast.device import peak_memory
from ladcast.fields import ChannelSet
from ladcast.plots.maps import Maps  # and with it all that drawing needs, before a long run begins
from ladcast.recipes import TRAIN, DryRun, Period
from ladcast.resumable import sole_writer
from ladcast.training.cost import Footprint, count_flops, measure
from ladcast.training.distributed import Loss, Ranks, join_ranks
from ladcast.training.logs import TrainingLog, Validation, open_trackers
from ladcast.training.loop import TrainingContext, TrainingInterruptedError, fit
from ladcast.training.options import TrackerName, TrainingOptions
from ladcast.training.slurm import EXIT_RESUMABLE, requeue_job

RESUME, TRIAL = "resume", ".trial"
"""Folders of the output: the snapshots of a run, and what is only tried out."""
PROFILED_STEPS = 5
MOST_OVERFITTING_STEPS = 500
GIB = 2**30
Count = TypeVar("Count", Footprint, float)
_COUNTED: dict[str, Any] = {}
"""What was counted of steps, by all that it depends on."""
LATER: dict[str, Any] = {
    "step_hours": 6,
    "mean_state": None,
    "frames_per_token": 1,
    "past_beside": False,
    "places": None,
    "decoded": 0.0,
    "pooled_weights": (),
}
"""Fields of configurations that are younger than snapshots from which runs still go on, and what they were before."""


@dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """What the configurations of all models have."""

    train: Period
    training: TrainingOptions
    output: Path
    initial: Path | None = None
    """Checkpoint folder whose weights training starts from, to adapt a model to other data."""
    data_on_gpu: bool = False
    """Keeps all training data in GPU memory: 2 bytes a number of states, 4 of latents."""
    trackers: tuple[TrackerName, ...] | None = None
    """By default tensorboard where it is installed."""


class Recipe(ABC):
    """The model, loss, data and options of one training run.

    A recipe has opened and checked all that its run needs, until its last step. It has read no training data and made
    no weights: a plan makes its network on the device "meta".
    """

    kind: ClassVar[str]
    """Name of the kind of model."""
    schema: ClassVar[type[TrainingRun]]
    """The class of its configuration."""
    run: TrainingRun

    @classmethod
    def of_config(cls, config: Path, overrides: Sequence[str] = ()) -> Callable[[torch.device], Recipe]:
        """Reads a configuration; returns what opens the data that it names, for `carry_out`."""
        return partial(cls.open, load_config(config, cls.schema, overrides))

    @classmethod
    @abstractmethod
    def open(cls, run: Any, device: torch.device) -> Recipe:
        """Opens and checks the data of a run.

        Raises:
            ConfigError, FileNotFoundError, ValueError: something that the run needs is missing or does not fit.
        """

    @property
    def settings(self) -> dict[str, Any]:
        """Returns the configuration as plain data."""
        return dict(to_plain(self.run))

    @property
    @abstractmethod
    def inputs(self) -> dict[str, Any]:
        """Returns by name, as plain data, what the weights depend on beside the options of training."""

    @property
    @abstractmethod
    def samples(self) -> int:
        """Returns the number of training samples."""

    @property
    @abstractmethod
    def sample(self) -> SampleBatch:
        """Returns the shapes and types of a batch of one, on the device "meta"."""

    @property
    @abstractmethod
    def bytes_on_gpu(self) -> int:
        """Returns the size of the training data where a GPU keeps them, else 0."""

    @abstractmethod
    def network(self) -> nn.Module:
        """Creates the network with fresh weights, on torch's default device."""

    def initial_weights(self, fresh: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Returns the weights that training starts from: the fresh ones, or others."""
        return fresh

    def take_from(self, data: BatchSource, network: nn.Module) -> None:
        """Sets what a fresh network knows of its training data: nothing, but for kinds that say so."""
        return

    @abstractmethod
    def loss(self, network: nn.Module, device: torch.device) -> Loss:
        """Returns the loss of a batch on the device."""

    @abstractmethod
    def read(self, device: torch.device, progress: Callable[[int, int], None]) -> BatchSource:
        """Reads the training data, or opens them where they stay on disk."""

    def validate(self, network: nn.Module) -> Validation | None:
        """Returns how good a network with the averaged weights is; None where the run asks for no validation."""
        return None

    def count(self, counter: Callable[..., Count], network: nn.Module, loss: Loss, **settings: bool) -> Count:
        """Returns what `counter` finds of a step, of which a process counts each kind once.

        That takes a second or more, and depends on nothing but inputs, shapes, device and settings.
        """
        where = next(network.parameters()).device
        shapes = [list(part.shape) for part in self.sample]
        key = digest([self.kind, self.inputs, shapes, counter.__name__, str(where), settings])
        if key not in _COUNTED:
            _COUNTED[key] = counter(network, loss, self.sample, **settings)
        counted: Count = _COUNTED[key]
        return counted

    @abstractmethod
    def save(self, weights: Mapping[str, Tensor]) -> Path:
        """Writes the checkpoint folder of the trained model and returns its path."""


def carry_out(
    open_recipe: Callable[[torch.device], Recipe],
    *,
    device: str | None = None,
    dry_run: DryRun = TRAIN,
    interrupted: Callable[[], bool] = lambda: False,
) -> Path | None:
    """Trains what a recipe describes and returns the folder of the model; nothing where it is only tried out.

    Raises:
        SystemExit: the run was interrupted; see `train`.
        FileExistsError: another process trains into this folder.
    """
    with join_ranks(device) as ranks:
        recipe = open_recipe(ranks.device)
        work = recipe.run.output / (TRIAL if dry_run.is_asked else RESUME)
        with ExitStack() as held:
            ranks.only_first(lambda: held.enter_context(sole_writer(work, patient=True)))
            if dry_run.is_asked:
                try_out(recipe, ranks, dry_run, interrupted)
                return None
            weights = train(recipe, ranks, interrupted)
            return recipe.save(weights) if ranks.is_first else None


def train(recipe: Recipe, ranks: Ranks, interrupted: Callable[[], bool]) -> dict[str, Tensor]:
    """Trains to the end and returns the averaged weights.

    When `interrupted` says so, the state is saved and the SLURM job, if this is one, goes back into the queue; then the
    program ends.

    Raises:
        SystemExit: with 0 where the job is requeued, else with 75.
    """
    run = recipe.run
    trackers = open_trackers(run.trackers, run.output, recipe.settings) if ranks.is_first else []
    log = TrainingLog(run.output / "log.jsonl", run.training.steps, trackers=trackers, silent=not ranks.is_first)
    try:
        job = prepare(recipe, ranks, log)
        context = TrainingContext(
            run.output / RESUME,
            log,
            ranks,
            recipe.validate,
            interrupted,
            flops_per_sample=recipe.count(count_flops, job.network, job.loss),
            inputs={name: digest(content) for name, content in recipe.inputs.items()},
        )
        return fit(job.network, job.loss, job.data, run.training, context)
    except TrainingInterruptedError as stop:
        if ranks.is_first:
            print(stop, flush=True)
        requeued = ranks.any(ranks.is_first and requeue_job(os.environ))
        if ranks.is_first and not requeued:
            print("Run the same command again to go on.", flush=True)
        raise SystemExit(0 if requeued else EXIT_RESUMABLE) from None
    finally:
        log.close()


@dataclass(frozen=True, eq=False)
class Prepared:
    """The network, the loss and the data of a run, on its device."""

    network: nn.Module
    loss: Loss
    data: BatchSource


def prepare(recipe: Recipe, ranks: Ranks, log: TrainingLog) -> Prepared:
    """Reads the data of a run and creates its network, the same on all ranks."""
    data = recipe.read(ranks.device, log.reading)
    torch.manual_seed(recipe.run.training.seed)
    network = recipe.network()
    network.load_state_dict(recipe.initial_weights(network.state_dict()))
    network.to(ranks.device)  # made on the CPU, so that the same seed gives the same weights on any device
    recipe.take_from(data, network)
    return Prepared(network, recipe.loss(network, ranks.device), data)


def as_input(config: Any) -> dict[str, Any]:
    """Returns a configuration as plain data, without fields of `LATER` that say what was so before they came."""
    return {name: value for name, value in asdict(config).items() if name not in LATER or LATER[name] != value}


def digest(plain: Any) -> str:
    """Returns the SHA-256 of plain data."""
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def try_out(recipe: Recipe, ranks: Ranks, dry_run: DryRun, interrupted: Callable[[], bool]) -> None:
    """Does what is asked for in a temporary folder, and prints what it finds.

    Raises:
        SystemExit: `interrupted` said so.
    """
    output, options = recipe.run.output, recipe.run.training
    folder = output / TRIAL
    log = TrainingLog(folder / "log.jsonl", options.steps, silent=not ranks.is_first)
    job = prepare(recipe, ranks, log)

    def take(trial: Prepared, steps: int, interrupted: Callable[[], bool]) -> None:
        if ranks.is_first:
            shutil.rmtree(folder, ignore_errors=True)
        ranks.wait()
        steps_log = TrainingLog(folder / "log.jsonl", steps, silent=not ranks.is_first)
        flops = recipe.count(count_flops, trial.network, trial.loss)
        context = TrainingContext(folder / "resume", steps_log, ranks, interrupted=interrupted, flops_per_sample=flops)
        optimizer = replace(options.optimizer, warmup_steps=min(options.optimizer.warmup_steps, steps // 10))
        short = replace(options, steps=steps, checkpoint_every=steps, optimizer=optimizer)
        fit(trial.network, trial.loss, trial.data, short, context)

    try:
        if dry_run.dry_run:
            if ranks.is_first:
                costs = recipe.count(measure, job.network, job.loss, bf16=options.bf16, recompute=options.recompute)
                print(describe_step(recipe.sample, costs, options, ranks.size))
            take(job, 1, interrupted)
        elif dry_run.overfit_one_batch:
            order = SampleOrder(len(job.data), options.batch_size, options.seed)
            one = replace(job, data=OneBatch(job.data, order.batch(0)))
            take(one, min(options.steps, MOST_OVERFITTING_STEPS), interrupted)
        else:
            _profile(partial(take, job), recipe, ranks, interrupted)
    except TrainingInterruptedError as stop:
        raise SystemExit(f"The trial was interrupted after step {stop.step}; nothing of it is kept.") from None
    finally:
        if ranks.is_first:
            shutil.rmtree(folder, ignore_errors=True)
    if ranks.is_first:
        print(peak_memory())


def _profile(
    take: Callable[[int, Callable[[], bool]], None], recipe: Recipe, ranks: Ranks, interrupted: Callable[[], bool]
) -> None:
    """Profiles some steps after as many that warm up, and prints what took longest."""
    from torch.profiler import profile, schedule

    with profile(schedule=schedule(wait=0, warmup=PROFILED_STEPS, active=PROFILED_STEPS, repeat=1)) as profiler:

        def count_step() -> bool:
            profiler.step()
            return interrupted()

        take(2 * PROFILED_STEPS, count_step)
    if ranks.is_first:
        trace = recipe.run.output / "profile.json"
        profiler.export_chrome_trace(str(trace))
        longest = "self_device_time_total" if ranks.device.type == "cuda" else "self_cpu_time_total"
        print(profiler.key_averages().table(sort_by=longest, row_limit=15, max_name_column_width=60))
        print(f"trace {trace}")


def describe_step(sample: SampleBatch, footprint: Footprint, options: TrainingOptions, ranks: int) -> str:
    """Describes what a training step takes: shapes, parameters, arithmetic and memory."""
    shards = ranks if options.sharding == "fsdp" else 1
    parts = options.micro_batches(ranks)
    micro = options.batch_size // ranks // parts
    memory = footprint.device_bytes(micro, shards=shards) / GIB
    flops = footprint.flops_per_sample / 1e12
    return (
        f"sample      {', '.join(' x '.join(map(str, part.shape[1:])) or 'scalar' for part in sample)}\n"
        f"batch       {options.batch_size} = {ranks} ranks x {parts} micro-batches x {micro} samples\n"
        f"parameters  {footprint.parameters / 1e6:.1f} M, of which {footprint.trained / 1e6:.1f} M are trained\n"
        f"arithmetic  {flops:.3g} TFLOP a sample, {flops * options.batch_size:.3g} a step\n"
        f"memory      {memory:.1f} GiB a rank: {footprint.state_bytes(shards) / GIB:.1f} for weights, average, "
        f"gradients and optimizer, {footprint.sample_bytes / GIB:.2f} for activations of a sample"
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


def maps_of(datasets: Mapping[str, xr.Dataset], channels: ChannelSet, names: Iterable[str]) -> Maps:
    """Takes the fields of some channels out of datasets with dimensions [level,] latitude, longitude."""
    chosen = [channel for channel in channels if channel.name in names]
    return {
        channel.name: {
            title: (ds[channel.variable] if channel.level is None else ds[channel.variable].sel(level=channel.level))
            for title, ds in datasets.items()
        }
        for channel in chosen
    }
