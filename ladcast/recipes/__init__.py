"""What a training run of each model consists of: here what their configurations share, and what may be done instead.

The command line imports this module, so it imports nothing heavy.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge, Interval

from ladcast.forecasting import MOST_DAYS

if TYPE_CHECKING:
    import xarray as xr

    from ladcast.fields import ChannelSet


@dataclass(frozen=True)
class Period:
    """A stretch of time, both ends included."""

    start: str
    end: str

    def select(self, ds: xr.Dataset) -> xr.Dataset:
        """Returns the time steps within the period; raises ValueError where there are none."""
        from ladcast.data.store import select_period

        return select_period(ds, self.start, self.end)


@dataclass(frozen=True)
class StateStore:
    """A store of states, and the channels and the grid that are read from it."""

    path: Path
    grid: str
    channels: Path | None = None
    """YAML file of a channel set; by default the standard one."""
    static: tuple[str, ...] = ("land_sea_mask", "geopotential_at_surface")

    def channel_set(self) -> ChannelSet:
        """Returns the channels."""
        from ladcast.fields import read_channels

        return read_channels(self.channels or "era5")

    def open(self) -> xr.Dataset:
        """Opens and checks the store; its first and last state are judged at once, the others when they are read."""
        from ladcast.data.store import check_ends, open_store
        from ladcast.grid import Grid

        channels = self.channel_set()
        return check_ends(open_store(self.path, channels, Grid.parse(self.grid)), channels, str(self.path))


@dataclass(frozen=True)
class ForecastValidation:
    """The forecasts that are made and scored during training."""

    store: StateStore
    starts: tuple[str, ...]
    members: Annotated[int, Ge(1)] = 4
    days: Annotated[int, Interval(ge=1, le=MOST_DAYS)] = 5
    variables: tuple[str, ...] = ("z500", "t850")
    """Channels that are logged and drawn."""


@dataclass(frozen=True)
class DryRun:
    """What to do with a training run instead of training; nothing of the weights is kept.

    Args:
        dry_run: print shapes, memory and arithmetic, and take one step.
        overfit_one_batch: train on the first batch alone; its loss must fall.
        profile: take a few steps and write a trace for Perfetto or chrome://tracing.
    """

    dry_run: bool = False
    overfit_one_batch: bool = False
    profile: bool = False

    def __post_init__(self) -> None:
        if self.dry_run + self.overfit_one_batch + self.profile > 1:
            raise ValueError("Choose one of --dry-run, --overfit-one-batch and --profile.")

    @property
    def is_asked(self) -> bool:
        """Says whether a run is only tried out."""
        return self.dry_run or self.overfit_one_batch or self.profile


TRAIN = DryRun()
"""Trains: there is nothing to try out."""
