"""`ladcast train autoencoder`: reads states, trains the autoencoder, writes its checkpoint folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from ladcast.checkpoint import checkpoint_hash
from ladcast.config import ConfigError, load_config, to_plain
from ladcast.data.loading.batches import BatchSource, SampleBatch
from ladcast.data.loading.datasets import StateDataset, StoredStates, load_scaled
from ladcast.data.loading.reader import StateReader, open_reader
from ladcast.data.normalization import Normalizer, ocean_mask
from ladcast.data.packing import pack, unpack
from ladcast.fields import VALIDATION_CHANNELS, ChannelSet
from ladcast.forecasting.checkpoints import load_codec, save_codec
from ladcast.forecasting.codec import LatentCodec
from ladcast.grid import Grid
from ladcast.models.autoencoder import Autoencoder, AutoencoderConfig
from ladcast.recipes.build import AutoencoderSize, Period, StoreOptions
from ladcast.recipes.launch import TrainingJob, train, try_out
from ladcast.recipes.trial import NO_TRIAL, Trial
from ladcast.recipes.validation import Validation, maps_of
from ladcast.training.distributed import Ranks, join_ranks
from ladcast.training.logs import TrainingLog
from ladcast.training.losses import relative_l2
from ladcast.training.options import TrainingOptions
from ladcast.training.parallel import Loss

VALIDATED_AT_ONCE = 64


@dataclass(frozen=True)
class AutoencoderRun:
    """Describes a training run of an autoencoder."""

    data: StoreOptions
    statistics: Path
    train: Period
    validation: Period
    model: AutoencoderSize
    training: TrainingOptions
    output: Path
    stride: int = 1
    initial: Path | None = None
    """Checkpoint folder whose weights training starts from, to adapt a model to other data."""
    data_on_gpu: bool = False
    """Keeps all training states in GPU memory: 2 bytes a number."""
    data_on_disk: bool = False
    """Reads training states from the store when they are needed, where memory does not hold them all."""
    reading_threads: int = 8
    part: Literal["all", "decoder"] = "all"
    """What is trained: "decoder" keeps the encoder of `initial`, and with it the latents."""
    trackers: tuple[str, ...] | None = None
    """Out of tensorboard, wandb and mlflow; by default tensorboard where it is installed."""

    def __post_init__(self) -> None:
        if self.part == "decoder" and self.initial is None:
            raise ValueError("part 'decoder' needs 'initial', the checkpoint folder whose encoder is kept.")
        if self.data_on_gpu and self.data_on_disk:
            raise ValueError("'data_on_gpu' and 'data_on_disk' exclude each other: choose one, or neither for memory.")


def train_autoencoder(
    config: Path,
    overrides: Sequence[str] = (),
    *,
    device: str | None = None,
    trial: Trial = NO_TRIAL,
    interrupted: Callable[[], bool] = lambda: False,
) -> Path | None:
    """Trains the autoencoder that `config` describes and returns its checkpoint folder; nothing after a trial."""
    run = load_config(config, AutoencoderRun, overrides)
    with join_ranks(device) as ranks:
        setup = prepare(run, ranks)
        if trial.asked:
            try_out(setup.job, ranks, trial, interrupted)
            return None
        weights = train(setup.job, ranks, interrupted)
        if ranks.is_first:
            autoencoder = Autoencoder(setup.codec.autoencoder.config)
            autoencoder.load_state_dict(weights)
            codec = LatentCodec(autoencoder, setup.codec.normalizer, setup.codec.grid, static=setup.codec.static.cpu())
            save_codec(codec, run.output / "autoencoder", {"run": to_plain(run), "steps": run.training.steps})
    return run.output / "autoencoder"


@dataclass(frozen=True, eq=False)
class AutoencoderTraining:
    """Holds a codec whose autoencoder is to be trained, and how."""

    codec: LatentCodec
    job: TrainingJob


def prepare(run: AutoencoderRun, ranks: Ranks) -> AutoencoderTraining:
    """Reads the data of a run and creates its model, the same on all ranks."""
    channels, grid = run.data.channel_set(), Grid.parse(run.data.grid)
    store = run.data.open()
    normalizer = Normalizer.load(run.statistics, channels)
    log = TrainingLog(run.output / "log.jsonl", run.training.steps, silent=not ranks.is_first)
    held_out = load_scaled(frames_of(run, run.validation.select(store), 4 * run.stride, normalizer)).float()
    reader = frames_of(run, run.train.select(store), run.stride, normalizer)
    data = training_states(run, reader, ranks.device, log)
    autoencoder = new_autoencoder(run, channels, grid).to(ranks.device)
    static = run.data.static_fields(store).to(ranks.device)
    valid = valid_points(pack(store.isel(time=[0]), channels), channels).to(ranks.device)
    codec = LatentCodec(autoencoder, normalizer, grid, static=static)
    if run.initial is not None:
        check_initial(run, load_codec(run.initial, "cpu"), codec)

    def validate(model: nn.Module) -> Validation:
        return validate_autoencoder(model, held_out, static, normalizer=normalizer, grid=grid)

    job = TrainingJob(
        autoencoder,
        reconstruction_loss(static, grid, valid),
        data,
        run.training,
        run.output,
        settings=to_plain(run),
        made_of=made_of(run, autoencoder, normalizer),
        trackers=run.trackers,
        validate=validate,
    )
    return AutoencoderTraining(codec, job)


def made_of(run: AutoencoderRun, autoencoder: Autoencoder, normalizer: Normalizer) -> dict[str, Any]:
    """Says what the weights of a run are made of, beside its training options."""
    settings = to_plain(run)
    return {
        "model": asdict(autoencoder.config),
        "states": [run.data.grid, list(run.data.static), settings["train"], run.stride],
        "channels": normalizer.channels.to_dict(),
        "statistics": normalizer.to_dict(),
        "initial": [run.part, run.initial and checkpoint_hash(run.initial)],
    }


def new_autoencoder(run: AutoencoderRun, channels: ChannelSet, grid: Grid) -> Autoencoder:
    """Creates the autoencoder of a run: with fresh weights, or those of `initial`; frozen where it is not trained."""
    torch.manual_seed(run.training.seed)
    autoencoder = Autoencoder(autoencoder_config(run.model, channels, grid, len(run.data.static)))
    if run.initial is not None:
        autoencoder.load_state_dict(load_codec(run.initial, "cpu").autoencoder.state_dict())
    if run.part == "decoder":
        autoencoder.encoder.requires_grad_(False)
    return autoencoder


def check_initial(run: AutoencoderRun, initial: LatentCodec, codec: LatentCodec) -> None:
    """Raises ConfigError where the weights of `initial` were trained for something that this run means otherwise.

    To go on with other data, the channels must be the same. An encoder that is kept must see what it was trained with.
    """
    same = {"channels": initial.normalizer.channels == codec.normalizer.channels}
    if run.part == "decoder":
        same |= {
            "statistics": initial.normalizer.to_dict() == codec.normalizer.to_dict(),
            "grid": initial.grid.matches(codec.grid),
            "static fields": torch.equal(initial.static, codec.static.cpu()),
            "model": initial.autoencoder.config == codec.autoencoder.config,
        }
    if other := [name for name, is_same in same.items() if not is_same]:
        raise ConfigError(
            f"initial: {run.initial} was trained with other {', '.join(other)}. Use the same"
            + (", or train all with part: all." if run.part == "decoder" else ".")
        )


def frames_of(run: AutoencoderRun, ds: xr.Dataset, stride: int, normalizer: Normalizer) -> StateReader:
    """Returns a reader of every `stride`-th frame of a selection from the run's store."""
    return open_reader(ds.isel(time=slice(None, None, stride)), normalizer, run.data.path)


def training_states(run: AutoencoderRun, reader: StateReader, device: torch.device, log: TrainingLog) -> BatchSource:
    """Returns the training states on disk, in memory or on the GPU, as the run asks."""
    if run.data_on_disk:
        return StoredStates(reader, threads=run.reading_threads, pin_memory=device.type == "cuda")
    scaled = load_scaled(reader, threads=run.reading_threads, progress=log.reading)
    return StateDataset(scaled.to(device) if run.data_on_gpu else scaled)


def autoencoder_config(size: AutoencoderSize, channels: ChannelSet, grid: Grid, num_static: int) -> AutoencoderConfig:
    """Completes the size of an autoencoder with what the data say."""
    return AutoencoderConfig(
        channels=len(channels), static_channels=num_static, pole_rows=grid.pole_rows, **asdict(size)
    )


def valid_points(state: Tensor, channels: ChannelSet) -> Tensor:
    """Returns where each channel has truth, `channel lat lon`: everywhere but for the SST, which has none on land."""
    valid = torch.ones(state.shape[1:], dtype=torch.bool)
    for index in channels.masked_on_land:
        valid[index] = ocean_mask(state, channels)
    return valid


def reconstruction_loss(static: Tensor, grid: Grid, valid: Tensor) -> Loss:
    """Returns the loss of one batch of scaled states."""
    row_weight = torch.tensor(grid.area_weights, dtype=torch.float32, device=static.device)

    def loss(model: nn.Module, batch: SampleBatch, generator: torch.Generator) -> Tensor:
        scaled = batch[0].float()
        return relative_l2(model(scaled, static), scaled, row_weight=row_weight, valid=valid)

    return loss


@torch.no_grad()
def validate_autoencoder(
    model: nn.Module, held_out: Tensor, static: Tensor, *, normalizer: Normalizer, grid: Grid
) -> Validation:
    """Returns the area-weighted RMSE of the headline channels over scaled states, and maps of the first one."""
    channels = normalizer.channels
    weight = torch.tensor(grid.area_weights, dtype=torch.float32)[:, None]
    total, first = torch.zeros(len(channels)), None
    for states in held_out.split(VALIDATED_AT_ONCE):
        made = model(states.to(static.device), static).float().cpu()
        total += (weight * (made - states) ** 2).mean(dim=(-2, -1)).sum(0)
        first = made[:1] if first is None else first
    assert first is not None
    rmse = (total / len(held_out)).sqrt() * normalizer.std
    names = [name for name in VALIDATION_CHANNELS if name in channels.names]
    fields = {
        title: unpack(normalizer.inverse(state), channels, grid, np.zeros(1, "datetime64[ns]")).isel(time=0)
        for title, state in {"truth": held_out[:1], "reconstruction": first}.items()
    }
    numbers = {f"rmse_{name}": rmse[channels.index(name)].item() for name in names}
    return Validation(numbers, maps_of(fields, channels, names), "First state of the validation")
