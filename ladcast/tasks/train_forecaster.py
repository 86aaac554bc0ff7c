"""`ladcast train forecaster`: reads latents, trains the diffusion transformer, writes a forecaster's folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from ladcast.checkpoint import weights_hash
from ladcast.config import ConfigError, load_config, to_plain
from ladcast.data.dataset import LatentDataset
from ladcast.data.loader import SampleBatch
from ladcast.diffusion.denoiser import Condition, Denoiser, denoising_loss, training_noise_like
from ladcast.diffusion.noise import TrainingNoise
from ladcast.forecasting.checkpoints import load_codec, load_forecaster, save_forecaster
from ladcast.forecasting.codec import LatentCodec, LatentScale
from ladcast.forecasting.forecaster import Forecaster, ForecasterConfig, SamplingOptions
from ladcast.grid import Grid
from ladcast.models.transformer import LatentTransformer, TransformerConfig
from ladcast.tasks.build import ForecastValidation, Frames, Period, TransformerSize
from ladcast.tasks.report import TrainingLog
from ladcast.tasks.validate import forecast_scores
from ladcast.training.loop import Loss, TrainingOptions, fit


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
    validation: ForecastValidation | None = None
    name: str = "forecaster"
    initial: Path | None = None
    """Forecaster's folder whose weights training starts from, to adapt a model to other data."""
    data_on_gpu: bool = False
    """Keeps all latents in GPU memory: 4 bytes a number."""


def train_forecaster(config: Path, overrides: Sequence[str] = (), device: str | None = None) -> Path:
    """Trains the forecaster that `config` describes and returns its checkpoint folder."""
    run = load_config(config, ForecasterRun, overrides)
    codec = load_codec(run.autoencoder, device)
    data, codec.latent_scale = read_latents(run, codec.static.device if run.data_on_gpu else torch.device("cpu"))
    torch.manual_seed(run.training.seed)
    forecaster = new_forecaster(run, codec)
    if run.initial is not None:
        forecaster.denoiser.load_state_dict(load_forecaster(run.initial, "cpu").denoiser.state_dict())
    log = TrainingLog(run.output / "log.jsonl", run.training.steps)

    def validate(model: nn.Module) -> dict[str, float]:
        return forecast_scores(forecaster, run.validation) if run.validation else {}

    weights = fit(
        forecaster.denoiser,
        diffusion_loss(run.noise, token_rows(codec)),
        data,
        run.training,
        folder=run.output / "resume",
        log=log,
        validate=validate,
    )
    forecaster.denoiser.load_state_dict(weights)
    folder = run.output / run.name
    save_forecaster(forecaster, folder, {"run": to_plain(run), "autoencoder": weights_hash(run.autoencoder)})
    return folder


def read_latents(run: ForecasterRun, device: torch.device) -> tuple[LatentDataset, LatentScale]:
    """Reads the latents of the training period into memory, scaled to the standard deviation sigma_data."""
    store = xr.open_zarr(run.latents, chunks=None)
    if store.attrs["autoencoder"] != weights_hash(run.autoencoder):
        raise ConfigError(
            f"{run.latents} was made by another autoencoder ({store.attrs['autoencoder'][:12]}) than "
            f"{run.autoencoder} ({weights_hash(run.autoencoder)[:12]}). Run `ladcast-data encode` again."
        )
    scale = LatentScale(tuple(store["latent_mean"].values.tolist()), tuple(store["latent_std"].values.tolist()))
    period = run.train.select(store)
    latents = scale.apply(torch.from_numpy(period["latent"].values).to(device))
    times = period["time"].values.astype("datetime64[ns]")
    return LatentDataset(latents, times, past=run.frames.past, future=run.frames.future), scale


def new_forecaster(run: ForecasterRun, codec: LatentCodec) -> Forecaster:
    """Creates a forecaster with fresh weights that fits the codec's latents."""
    autoencoder = codec.autoencoder.config
    tokens = codec.grid.coarsen(autoencoder.downsampling * run.model.patch_size)
    transformer = TransformerConfig(
        latent_channels=autoencoder.latent_channels,
        latitude_deg=(tokens.latitude[0], tokens.latitude[-1]),
        longitude_deg=(tokens.longitude[0], tokens.longitude[-1]),
        **asdict(run.model),
    )
    config = ForecasterConfig(
        autoencoder, transformer, run.frames.past, run.frames.future, codec.latent_scale.target, run.sampling
    )
    denoiser = Denoiser(LatentTransformer(transformer), config.sigma_data).to(codec.static.device)
    return Forecaster(config, codec, denoiser, name=run.name)


def diffusion_loss(noise: TrainingNoise, row_weight: Tensor) -> Loss:
    """Returns the loss of one batch of windows of latents."""

    def loss(model: nn.Module, batch: SampleBatch, generator: torch.Generator) -> Tensor:
        denoiser = cast(Denoiser, model)
        past, future, init_time = batch
        sigma = noise.sample(len(future), generator)
        unit = training_noise_like(future, generator)
        condition = Condition(past, init_time)
        return denoising_loss(denoiser, future, condition, sigma=sigma, noise=unit, row_weight=row_weight)

    return loss


def token_rows(codec: LatentCodec) -> Tensor:
    """Returns the area of each latent row, with mean 1."""
    rows: Grid = codec.grid.coarsen(codec.autoencoder.config.downsampling)
    return torch.tensor(np.asarray(rows.area_weights), dtype=torch.float32, device=codec.static.device)
