"""The latents that a forecaster is trained on: their store, their usual changes, and what each is worth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from ladcast.config import ConfigError
from ladcast.forecasting.codec import LatentCodec, LatentScale
from ladcast.forecasting.stepper import FrameCounts
from ladcast.grid import Grid
from ladcast.models.autoencoder import AutoencoderConfig
from ladcast.times import windows
from ladcast.training.objectives import DecodedScore
from ladcast.types import Latent, Scaled

SAMPLED_WINDOWS = 1024
"""Windows, evenly spaced, whose changes stand for those of all."""
SAMPLED_LATENTS = 16
DECODED_WINDOWS = 32
LEAST_CHANGE = 0.1
"""The usual change of a decoded field counts as at least that part of its departures from the mean state: the sea
surface hardly changes, and errors of its codec are no part of a forecast's skill."""
LATENT_NUDGE = 0.1
"""By how many standard deviations a latent channel is changed to see what that does to the decoded field."""
WEIGHT_RANGE = (0.3, 3.0)
"""Weights of the loss that follow from the decoded field stay within, relative to their mean."""


def open_training_latents(path: Path, autoencoder: Path, made_by: str) -> xr.Dataset:
    """Opens a store of latents; raises ConfigError where `made_by` is not the hash of the autoencoder they are of."""
    store: xr.Dataset = xr.open_zarr(path, chunks=None)
    maker = store.attrs.get("autoencoder")
    if maker is None or "latent" not in store:
        raise ConfigError(f"{path} holds no latents. Make them with `ladcast-data encode`.")
    if maker != made_by:
        raise ConfigError(
            f"{path} was made by another autoencoder ({maker[:12]}) than {autoencoder} "
            f"({made_by[:12]}). Run `ladcast-data encode` again."
        )
    return store


def latent_rows(grid: Grid, autoencoder: AutoencoderConfig) -> Tensor:
    """Returns the area of each latent row, `y 1`, with mean 1."""
    rows = grid.coarsen(autoencoder.downsampling)
    return torch.tensor(np.asarray(rows.area_weights), dtype=torch.float32)[:, None]


def usual_changes(latents: xr.Dataset, scale: LatentScale, frames: FrameCounts) -> Float[Tensor, "frame latent"]:
    """Returns the standard deviation of what has changed in scaled latents by each frame of a call."""
    found = windows(latents["time"].values.astype("datetime64[ns]"), 1 + frames.future, frames.step)
    chosen = found[np.unique(np.linspace(0, len(found) - 1, SAMPLED_WINDOWS).astype(int))]
    needed, places = np.unique(chosen, return_inverse=True)
    sequence = _read(latents, scale, needed)[torch.from_numpy(places.reshape(chosen.shape))]
    change = (sequence[:, 1:] - sequence[:, :1]).double()
    return change.square().mean(dim=(0, 3, 4)).sqrt().float()


def decoded_weights(
    codec: LatentCodec, latents: xr.Dataset, changes: Float[Tensor, "frame latent"], factors: Float[Tensor, " channel"]
) -> Float[Tensor, "latent frame"]:
    """Returns weights with mean 1: how much the usual change of each latent channel moves the decoded field."""
    chosen = np.unique(np.linspace(0, latents.sizes["time"] - 1, SAMPLED_LATENTS).astype(int))
    effects = latent_effects(codec, _read(latents, codec.latent_scale, chosen), factors)
    weights = effects[:, None] * changes.T
    weights = (weights / weights.mean()).clamp(*WEIGHT_RANGE)
    return weights / weights.mean()


@torch.no_grad()
def latent_effects(
    codec: LatentCodec, latents: Float[Tensor, "frame latent y x"], factors: Float[Tensor, " channel"]
) -> Float[Tensor, " latent"]:
    """Returns by how much the decoded field moves when one latent channel is nudged by noise, for each of them.

    That is the root of the mean square over frames, points and channels with their `factors`; a channel counts in units
    of its departures where the autoencoder knows those, else in units of its normalisation.
    """
    device, generator = codec.static.device, torch.Generator().manual_seed(0)
    latents, factors = latents.to(device), factors.to(device)[:, None, None]
    unit = getattr(codec.autoencoder, "departure_std", torch.ones(1, device=device))

    effects, before = [], decode_scaled(codec, latents)
    for channel in range(latents.shape[1]):
        nudged = latents.clone()
        noise = torch.randn(nudged[:, channel].shape, generator=generator)
        nudged[:, channel] += LATENT_NUDGE * codec.latent_scale.target * noise.to(device)
        effects.append((factors * ((decode_scaled(codec, nudged) - before) / unit) ** 2).mean().sqrt())
    return torch.stack(effects).cpu()


@torch.no_grad()
def decoded_score(
    codec: LatentCodec,
    latents: xr.Dataset,
    frames: FrameCounts,
    factors: Float[Tensor, " channel"],
    *,
    compiled: bool = False,
) -> DecodedScore:
    """Returns how to score decoded forecasts: area and `factors` over the usual change by each frame of a call.

    A `compiled` decoder is one graph for forecasts, whose gradients are wanted, and one for the truth.
    """
    device = codec.static.device
    found = windows(latents["time"].values.astype("datetime64[ns]"), 1 + frames.future, frames.step)
    chosen = found[np.unique(np.linspace(0, len(found) - 1, DECODED_WINDOWS).astype(int))]
    mean, square, change = (torch.zeros((), device=device) for _ in range(3))
    for window in chosen:
        fields = decode_scaled(codec, _read(latents, codec.latent_scale, window).to(device))
        mean = mean + fields[0] / len(chosen)
        square = square + fields[0] ** 2 / len(chosen)
        change = change + (fields[1:] - fields[0]) ** 2 / len(chosen)
    departure = (square - mean**2).clamp_min(0).mean(dim=(1, 2)).sqrt()
    unit = change.mean(dim=(2, 3)).sqrt().clamp_min(LEAST_CHANGE * departure)
    area = torch.tensor(np.asarray(codec.grid.area_weights), dtype=torch.float32, device=device)
    weight = (factors.to(device) / unit)[:, :, None, None] * area[:, None]
    fused = torch.compile(decode_scaled, dynamic=False) if compiled else decode_scaled

    def decode(latent: Latent) -> Scaled:
        # torch's compiler gives up on tensors without values, with which costs are counted, and remembers that.
        return (decode_scaled if isinstance(latent, FakeTensor) else fused)(codec, latent)

    return DecodedScore(decode, weight, codec.autoencoder.config.downsampling)


def decode_scaled(codec: LatentCodec, latent: Latent) -> Scaled:
    """Decodes scaled latents to scaled fields, on their device and in the precision that the caller has chosen."""
    fields: Scaled = codec.autoencoder.decode(codec.latent_scale.invert(latent))
    return fields


def _read(latents: xr.Dataset, scale: LatentScale, numbers: npt.NDArray[np.int64]) -> Tensor:
    """Reads some latents, scaled."""
    return scale.apply(torch.from_numpy(latents["latent"].isel(time=numbers).values))
