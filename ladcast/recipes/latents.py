"""The latents that a forecaster is trained on: their store, their usual changes, and what each is worth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from ladcast.config import ConfigError
from ladcast.forecasting.codec import LatentCodec, LatentScale
from ladcast.forecasting.stepper import FrameCounts
from ladcast.grid import Grid
from ladcast.models.autoencoder import AutoencoderConfig
from ladcast.times import windows

SAMPLED_WINDOWS = 1024
"""Windows, evenly spaced, whose changes stand for those of all."""
SAMPLED_LATENTS = 16
LATENT_NUDGE = 0.1
"""By how many standard deviations a latent channel is changed to see what that does to the decoded field."""
WEIGHT_RANGE = (0.3, 3.0)
"""Weights of the loss that follow from the decoded field stay within, relative to their mean."""


def open_latents(path: Path, autoencoder: Path, made_by: str) -> xr.Dataset:
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
    codec: LatentCodec,
    latents: xr.Dataset,
    changes: Float[Tensor, "frame latent"],
    factors: Float[Tensor, " channel"],
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

    def decode(scaled: Tensor) -> Tensor:
        return codec.autoencoder.decode(codec.latent_scale.invert(scaled)) / unit

    effects, before = [], decode(latents)
    for channel in range(latents.shape[1]):
        nudged = latents.clone()
        noise = torch.randn(nudged[:, channel].shape, generator=generator)
        nudged[:, channel] += LATENT_NUDGE * codec.latent_scale.target * noise.to(device)
        effects.append((factors * (decode(nudged) - before) ** 2).mean().sqrt())
    return torch.stack(effects).cpu()


def _read(latents: xr.Dataset, scale: LatentScale, numbers: npt.NDArray[np.int64]) -> Tensor:
    """Reads some latents, scaled."""
    return scale.apply(torch.from_numpy(latents["latent"].isel(time=numbers).values))
