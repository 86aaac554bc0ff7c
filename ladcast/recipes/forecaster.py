"""`ladcast train forecaster`: reads latents, trains the diffusion transformer, writes a forecaster's folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from ladcast.checkpoint import checkpoint_hash
from ladcast.config import ConfigError, load_config, to_plain
from ladcast.data.loading.batches import SampleBatch
from ladcast.data.loading.datasets import LatentDataset
from ladcast.diffusion.denoiser import Denoiser
from ladcast.diffusion.noise import TrainingNoise
from ladcast.forecasting.checkpoints import load_codec, load_forecaster, save_forecaster
from ladcast.forecasting.codec import LatentCodec, LatentScale
from ladcast.forecasting.diffusion import DiffusionConfig, DiffusionStepper, SamplingOptions
from ladcast.forecasting.forecaster import Forecaster, find_stepper
from ladcast.forecasting.stepper import FrameCounts
from ladcast.grid import Grid
from ladcast.models.autoencoder import AutoencoderConfig
from ladcast.models.transformer import TransformerConfig
from ladcast.recipes.build import ForecastValidation, Frames, Period, TransformerSize
from ladcast.recipes.launch import TrainingJob, train, try_out
from ladcast.recipes.trial import NO_TRIAL, Trial
from ladcast.recipes.validation import Validation, check_validation, validate_forecaster
from ladcast.times import windows
from ladcast.training.distributed import Ranks, join_ranks
from ladcast.training.options import TrainingOptions
from ladcast.training.parallel import Loss
from ladcast.training.push_forward import DiffusionObjective, PushForward, diffusion_loss


@dataclass(frozen=True)
class ForecasterRun:
    """Describes a training run of a forecaster."""

    latents: Path
    autoencoder: Path
    train: Period
    model: TransformerSize
    training: TrainingOptions
    output: Path
    frames: Frames = field(default_factory=Frames)
    noise: TrainingNoise = field(default_factory=TrainingNoise)
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    push_forward: PushForward = field(default_factory=PushForward)
    validation: ForecastValidation | None = None
    name: str = "forecaster"
    initial: Path | None = None
    """Forecaster's folder whose weights training starts from, to adapt a model to other data."""
    data_on_gpu: bool = False
    """Keeps all latents in GPU memory: 4 bytes a number."""
    trackers: tuple[str, ...] | None = None
    """Out of tensorboard, wandb and mlflow; by default tensorboard where it is installed."""


def train_forecaster(
    config: Path,
    overrides: Sequence[str] = (),
    *,
    device: str | None = None,
    trial: Trial = NO_TRIAL,
    interrupted: Callable[[], bool] = lambda: False,
) -> Path | None:
    """Trains the forecaster that `config` describes and returns its checkpoint folder; nothing after a trial."""
    run = load_config(config, ForecasterRun, overrides)
    folder = run.output / run.name
    with join_ranks(device) as ranks:
        forecaster, job = prepare(run, ranks)
        if trial.asked:
            try_out(job, ranks, trial, interrupted)
            return None
        weights = train(job, ranks, interrupted)
        if ranks.is_first:
            stepper = find_stepper(forecaster.config.stepper.kind).build(forecaster.config.stepper)
            stepper.network.load_state_dict(weights)
            trained = replace(forecaster, stepper=stepper)
            save_forecaster(trained, folder, {"run": to_plain(run), "autoencoder": checkpoint_hash(run.autoencoder)})
    return folder


def prepare(run: ForecasterRun, ranks: Ranks) -> tuple[Forecaster, TrainingJob]:
    """Reads the latents of a run and creates its forecaster, the same on all ranks."""
    codec = load_codec(run.autoencoder, str(ranks.device))
    data, codec.latent_scale = read_latents(run, ranks.device if run.data_on_gpu else torch.device("cpu"))
    if run.validation is not None:
        check_validation(run.validation, codec.normalizer.channels)
    torch.manual_seed(run.training.seed)
    forecaster = new_forecaster(run, codec)
    if run.initial is not None:
        initial = load_forecaster(run.initial, "cpu")
        forecaster.stepper.network.load_state_dict(initial.stepper.network.state_dict())

    def validate(model: nn.Module) -> Validation:
        assert run.validation is not None
        return validate_forecaster(forecaster, run.validation)

    objective = DiffusionObjective(run.noise, token_rows(codec.grid, codec.autoencoder.config), run.push_forward)
    job = TrainingJob(
        forecaster.stepper.network,
        forecast_loss(replace(objective, row_weight=objective.row_weight.to(ranks.device))),
        data,
        run.training,
        run.output,
        settings=to_plain(run),
        made_of=made_of(run, forecaster),
        trackers=run.trackers,
        validate=validate if run.validation else None,
    )
    return forecaster, job


def made_of(run: ForecasterRun, forecaster: Forecaster) -> dict[str, Any]:
    """Says what the weights of a run are made of, beside its training options."""
    settings = to_plain(run)
    return {
        "model": asdict(forecaster.config.stepper.transformer),
        "latents": [checkpoint_hash(run.autoencoder), forecaster.codec.latent_scale.to_dict(), settings["train"]],
        "loss": [settings[name] for name in ("frames", "noise", "push_forward")],
        "initial": run.initial and checkpoint_hash(run.initial),
    }


def read_latents(run: ForecasterRun, device: torch.device) -> tuple[LatentDataset, LatentScale]:
    """Reads the latents of the training period into memory, scaled to the standard deviation sigma_data."""
    store = xr.open_zarr(run.latents, chunks=None)
    check_latents(run, store, checkpoint_hash(run.autoencoder))
    scale = LatentScale(tuple(store["latent_mean"].values.tolist()), tuple(store["latent_std"].values.tolist()))
    period = run.train.select(store)
    latents = scale.apply(torch.from_numpy(period["latent"].values).to(device))
    times = period["time"].values.astype("datetime64[ns]")
    return LatentDataset(
        latents, times, past=run.frames.past, future=run.frames.future * run.push_forward.blocks
    ), scale


def check_latents(run: ForecasterRun, store: xr.Dataset, autoencoder: str) -> None:
    """Raises ConfigError where latents are not those of the autoencoder with this hash."""
    maker = store.attrs.get("autoencoder")
    if maker is None or "latent" not in store:
        raise ConfigError(f"{run.latents} holds no latents. Make them with `ladcast-data encode`.")
    if maker != autoencoder:
        raise ConfigError(
            f"{run.latents} was made by another autoencoder ({maker[:12]}) than {run.autoencoder} "
            f"({autoencoder[:12]}). Run `ladcast-data encode` again."
        )


def count_samples(run: ForecasterRun, period: xr.Dataset) -> int:
    """Returns the number of training samples; raises ConfigError where there is none."""
    length = run.frames.past + run.frames.future * run.push_forward.blocks
    count = len(windows(period["time"].values.astype("datetime64[ns]"), length))
    if not count:
        raise ConfigError(f"{run.latents} has no {length} frames 6 h apart in the training period.")
    return count


def new_forecaster(run: ForecasterRun, codec: LatentCodec) -> Forecaster:
    """Creates a forecaster with fresh weights that fits the codec's latents."""
    autoencoder = codec.autoencoder.config
    transformer = transformer_config(run, autoencoder, codec.grid)
    frames = FrameCounts(run.frames.past, run.frames.future)
    stepper = DiffusionStepper.build(DiffusionConfig(transformer, frames, codec.latent_scale.target, run.sampling))
    stepper.network.to(codec.static.device)
    return Forecaster(codec, stepper, name=run.name)


def transformer_config(run: ForecasterRun, autoencoder: AutoencoderConfig, grid: Grid) -> TransformerConfig:
    """Completes the size of a transformer with what its autoencoder and the grid say."""
    tokens = grid.coarsen(autoencoder.downsampling * run.model.patch_size)
    return TransformerConfig(
        latent_channels=autoencoder.latent_channels,
        latitude_deg=(tokens.latitude[0], tokens.latitude[-1]),
        longitude_deg=(tokens.longitude[0], tokens.longitude[-1]),
        **asdict(run.model),
    )


def forecast_loss(objective: DiffusionObjective) -> Loss:
    """Returns the loss of one batch of windows of latents."""

    def loss(model: nn.Module, batch: SampleBatch, generator: torch.Generator) -> Tensor:
        past, future, init_time = batch
        return diffusion_loss(cast(Denoiser, model), past, future, init_time, objective=objective, generator=generator)

    return loss


def token_rows(grid: Grid, autoencoder: AutoencoderConfig) -> Tensor:
    """Returns the area of each latent row, with mean 1."""
    rows = grid.coarsen(autoencoder.downsampling)
    return torch.tensor(np.asarray(rows.area_weights), dtype=torch.float32)
