"""The layer of cyclones: tracks of all members, and the share of members that pass near a place."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import xarray as xr

from ladcast.cyclones import read_tracks, strike_probability
from ladcast.cyclones.report import VERIFIED_GRID
from ladcast.cyclones.strikes import STRIKE_RADIUS_KM
from ladcast.cyclones.table import group, rows, with_members
from ladcast.cyclones.tracker import TrackOptions, are_all_lows, find_tracks
from ladcast.grid import Grid
from ladcast.times import HOUR
from ladcast.view.frames import Plane
from ladcast.view.sources import Source


@dataclass
class Storms:
    """The tracks of one forecast: of a file that `ladcast track --all` made of it, else found when first asked for."""

    source: Source
    file: Path | None = None
    _found: dict[np.datetime64, xr.Dataset] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def of(self, init: np.datetime64) -> xr.Dataset:
        """Returns the table of tracks from an initial time."""
        with self._lock:
            if init not in self._found:
                self._found[init] = self._read(init)
            return self._found[init]

    def _read(self, init: np.datetime64) -> xr.Dataset:
        if self.file is not None:
            tracks = read_tracks(self.file)
            if are_all_lows(tracks, self.source.dataset, init):  # not of one storm, nor of what the store held before
                return rows(tracks, tracks["start"].values == init)
        return find_tracks(self.source.dataset.sel(time=[init]), TrackOptions(), None)

    def lines(self, init: np.datetime64) -> dict[str, Any]:
        """Returns the tracks as lists: one for each storm of each member, with hours since the initial time."""
        table = self.of(init)
        _, owner = group(table, ("storm", "number"))
        lines = []
        for index in range(int(owner.max(initial=-1)) + 1):
            one = rows(table, owner == index)
            lines.append(
                {
                    "storm": str(one["storm"].values[0]),
                    "member": int(one["number"].values[0]),
                    "hours": ((one["time"].values - init) / HOUR).tolist(),
                    "latitude": one["latitude"].values.round(2).tolist(),
                    "longitude": one["longitude"].values.round(2).tolist(),
                    "msl": (one["msl"].values / 100).round(1).tolist() if "msl" in one else [],
                }
            )
        return {"tracks": lines, "members": with_members(table)}

    def strikes(self, init: np.datetime64) -> tuple[Plane, Grid]:
        """Returns the share of members, in per cent, that pass within 120 km of each point on a grid of 1 degree."""
        grid, table = Grid.parse(VERIFIED_GRID), self.of(init)
        return 100 * strike_probability(table, grid, every=True).values, grid


ABOUT_STRIKES = f"share of members with a low within {STRIKE_RADIUS_KM:g} km, at any lead time"
