"""What a stage reads: a part of a store, named by content, opened anew in each process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from data_pipelines.manifest import fingerprint
from data_pipelines.options import Selection
from ladcast.data.store import open_store, select_period
from ladcast.fields import ChannelSet, read_channels
from ladcast.grid import Grid
from ladcast.times import describe, parse_time


@dataclass(frozen=True)
class View:
    """Selects channels and a period of a store, through the gate of `open_store`.

    The fingerprint is that of the whole store, so a view of a changed store is another view. `omit` leaves out times,
    `accept_gaps` lets the time axis have holes that nobody declared: both become gaps that the product declares.
    """

    store: Path
    digest: str
    channels: ChannelSet
    grid: Grid | None = None
    start: str | None = None
    end: str | None = None
    omit: tuple[str, ...] = ()
    accept_gaps: bool = False

    @classmethod
    def of(cls, store: Path, selection: Selection) -> View:
        """Fixes what is selected now."""
        channels = read_channels(selection.channels)
        grid = Grid.parse(selection.grid) if selection.grid else None
        return cls(store.absolute(), fingerprint(store), channels, grid, selection.start, selection.end)

    def open(self) -> xr.Dataset:
        """Returns the selected frames, lazily, in canonical layout."""
        return _open(self)

    @property
    def about(self) -> dict[str, Any]:
        """Returns the entry of a manifest's `inputs`."""
        return {"name": self.store.name, "fingerprint": self.digest}

    @property
    def arguments(self) -> dict[str, Any]:
        """Returns the entry of a manifest's `arguments`."""
        grid = None if self.grid is None else str(self.grid)
        period = {"start": self.start, "end": self.end, "omit": list(self.omit), "accept_gaps": self.accept_gaps}
        return {"channels": self.channels.to_dict(), "grid": grid, **period}


@lru_cache(maxsize=4)
def _open(view: View) -> xr.Dataset:
    ds = open_store(view.store, view.channels, view.grid, regular=not view.accept_gaps)
    return leave_out(select_period(ds, view.start, view.end), view.omit)


def leave_out(ds: xr.Dataset, omit: Sequence[str]) -> xr.Dataset:
    """Returns the frames but those at the times `omit`; raises ValueError where one is not there to be left out."""
    times, unwanted = ds["time"].values, np.array([parse_time(text) for text in omit], "datetime64[ns]")
    unknown = np.setdiff1d(unwanted, times)
    if unknown.size:
        raise ValueError(f"Expected to leave out {describe(unknown)}, which is not there. Correct --omit.")
    return ds.isel(time=np.flatnonzero(~np.isin(times, unwanted))) if omit else ds
