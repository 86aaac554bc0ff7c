"""Schemas of the training configurations, and what their data sections mean."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import xarray as xr
from jaxtyping import Float
from torch import Tensor

from ladcast.data.normalization import normalized_static
from ladcast.data.store import open_store, select_period
from ladcast.fields import ChannelSet, read_channels
from ladcast.grid import Grid


@dataclass(frozen=True)
class Period:
    """A stretch of time, both ends included."""

    start: str
    end: str

    def select(self, ds: xr.Dataset) -> xr.Dataset:
        """Returns the frames within the period; raises ValueError where there are none."""
        return select_period(ds, self.start, self.end)


@dataclass(frozen=True)
class StoreOptions:
    """Says which store to read, as which channels on which grid."""

    path: Path
    grid: str
    channels: Path | None = None
    """YAML file of a channel set; by default the standard one."""
    static: tuple[str, ...] = ("land_sea_mask", "geopotential_at_surface")

    def channel_set(self) -> ChannelSet:
        """Returns the channels."""
        return read_channels(self.channels or "era5")

    def open(self) -> xr.Dataset:
        """Opens and checks the store."""
        return open_store(self.path, self.channel_set(), Grid.parse(self.grid))

    def static_fields(self, ds: xr.Dataset) -> Float[Tensor, "static lat lon"]:
        """Returns the constant fields, each normalised by its own mean and standard deviation."""
        return normalized_static(ds, self.static, Grid.parse(self.grid), str(self.path))


@dataclass(frozen=True)
class AutoencoderSize:
    """Sets the size of an autoencoder; grid and channels come from the data."""

    latent_channels: int
    widths: tuple[int, ...]
    blocks: tuple[int, ...]
    kinds: tuple[str, ...]
    kernels: tuple[tuple[int, ...], ...]
    head_dim: int = 32


@dataclass(frozen=True)
class TransformerSize:
    """Sets the size of a latent transformer; channels and token positions come from the autoencoder."""

    heads: int = 12
    head_dim: int = 128
    dual_blocks: int = 2
    single_blocks: int = 4
    refiner_blocks: int = 1
    patch_size: int = 1
    position: str = "geo_seamless"
    rope_axes_dim: tuple[int, int, int] = (16, 56, 56)
    area_weighted: bool = False


@dataclass(frozen=True)
class ForecastValidation:
    """Sets the forecasts that are scored during training."""

    store: StoreOptions
    starts: tuple[str, ...]
    members: int = 4
    days: int = 5
    variables: tuple[str, ...] = ("z500", "t850")
    """Channels that are logged and drawn."""


@dataclass(frozen=True)
class Frames:
    """Sets how many 6-hourly frames one call of the network sees and makes."""

    past: int = 1
    future: int = 4

    def __post_init__(self) -> None:
        if self.past != 1 or self.future < 1:
            raise ValueError(
                f"Expected past 1, as a forecast starts from one analysis, and future >= 1, got {self.past} and "
                f"{self.future}."
            )
