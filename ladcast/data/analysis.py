"""The analyses that forecasts start from: read on any grid, with a record of what had to be made up."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from ladcast.data.normalization import Normalizer, ocean_mask, pack
from ladcast.data.regrid import regrid
from ladcast.data.sources.grib import FORECAST
from ladcast.data.store import open_store
from ladcast.data.weather import check_state, percent
from ladcast.fields import ChannelSet
from ladcast.grid import Grid, grid_of
from ladcast.times import Times, describe
from ladcast.types import OceanMask

Fill = Literal["refuse", "interpolate", "mean", "nearest-level"]
SHOWN_TIMES = 4
MOST_INTERPOLATED = 0.01
"""Share of the points of a field that may be interpolated from their neighbours."""
SWEEPS = 200


@dataclass(frozen=True, eq=False)
class Analysis:
    """An initial condition in SI units, where its ocean is, and what had to be made up.

    Attributes:
        filled: the channels with gaps that were filled.
        derived: the variables that the source does not have as such, each with how they were computed.
    """

    state: Float[Tensor, "channel lat lon"]
    ocean: OceanMask
    time: np.datetime64
    source: str
    filled: tuple[str, ...] = ()
    derived: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Analyses:
    """The states of one source that forecasts may start from: opened and checked once, read one by one.

    Attributes:
        states: all of them, lazily, in canonical layout on the grid of the source.
        channels: those that an analysis has.
        grid: the grid that an analysis is regridded to.
        where: the source, for messages and provenance.
    """

    states: xr.Dataset
    channels: ChannelSet
    grid: Grid
    where: str

    @property
    def times(self) -> Times:
        """Returns the times that there are states of."""
        return self.states["time"].values

    def read(self, time: np.datetime64, *, fill: Fill = "refuse", normalizer: Normalizer | None = None) -> Analysis:
        """Reads the state of one time, regridded conservatively where the grid of the source is another.

        Channels with NaN (but for the SST over land) are refused unless `fill` says how to fill them: `interpolate`
        takes the neighbours of a few missing points, `nearest-level` the nearest complete level of the same variable
        (not of geopotential, which no other level resembles), `mean` the mean of `normalizer`.

        Raises:
            ValueError: the time is not there, no weather has its state, channels have NaN and `fill` is `refuse`, or
                they cannot be filled.
        """
        index, channels = _find_time(self.times, time, self.where), self.channels
        at = f"{self.where}: at {describe(self.times[index])}"
        state = pack(self.states.isel(time=[index]), channels)[0]
        with_nan = state.isnan().any(dim=(-2, -1)).tolist()
        gaps = [i for i, gap in enumerate(with_nan) if gap and i not in channels.masked_on_land]
        if gaps:  # before regridding, which would hide small holes and widen large ones
            state = _fill(state, gaps, channels, fill=fill, normalizer=normalizer, where=at)
        made_up = () if fill == "interpolate" else gaps
        check_state(state.numpy(), channels, grid_of(self.states), at, skip=made_up)
        regridded = torch.from_numpy(regrid(state.numpy(), grid_of(self.states), self.grid))
        filled = tuple(channels.names[gap] for gap in gaps)
        attributes = {name: self.states[name].attrs for name in channels.variables}
        derived = [f"{name}: {about['derived']}" for name, about in attributes.items() if "derived" in about]
        if FORECAST in self.states.attrs:
            derived.append(f"all fields: {self.states.attrs[FORECAST]}")
        ocean = ocean_mask(regridded, channels)
        return Analysis(regridded, ocean, self.times[index], self.where, filled, tuple(derived))


def open_analyses(path: str | Path | xr.Dataset, channels: ChannelSet, grid: Grid) -> Analyses:
    """Opens the states of a store or file for forecasts with these channels on this grid; see `open_store`."""
    where = str(path.encoding.get("source", "the dataset") if isinstance(path, xr.Dataset) else path)
    return Analyses(open_store(path, channels, regular=False, complete=False, forecasts=True), channels, grid, where)


def read_analysis(
    path: str | Path | xr.Dataset,
    time: np.datetime64,
    channels: ChannelSet,
    grid: Grid,
    *,
    fill: Fill = "refuse",
    normalizer: Normalizer | None = None,
) -> Analysis:
    """Reads one state of a store or file; see `Analyses.read`. For several states, `open_analyses` opens it once."""
    return open_analyses(path, channels, grid).read(time, fill=fill, normalizer=normalizer)


def _find_time(times: Times, time: np.datetime64, where: str) -> int:
    found = np.flatnonzero(times == time)
    if found.size:
        return int(found[0])
    # In seconds: nanoseconds count no more than 292 years, and a typing error may be further off.
    distance = abs(times.astype("datetime64[s]") - time.astype("datetime64[s]"))
    nearest = np.sort(times[np.argsort(distance, kind="stable")[:SHOWN_TIMES]])
    raise ValueError(
        f"{where}: expected the time {describe(time)}, got {len(times)} times from "
        f"{describe(times[0])} to {describe(times[-1])}. Choose one of them; nearest: {describe(nearest)}."
    )


def _fill(
    state: Float[Tensor, "channel lat lon"],
    gaps: list[int],
    channels: ChannelSet,
    *,
    fill: Fill,
    normalizer: Normalizer | None,
    where: str,
) -> Float[Tensor, "channel lat lon"]:
    missing = [int(state[gap].isnan().sum()) for gap in gaps]
    points = state[0].numel()
    shares = [f"{channels.names[gap]} ({percent(n / points)})" for gap, n in zip(gaps, missing, strict=True)]
    few = max(missing) <= max(MOST_INTERPOLATED * points, 1)
    if fill == "refuse":
        how = "interpolate" if few else "nearest-level` or `--fill mean"
        raise ValueError(
            f"{where}: expected complete fields, got NaN in {', '.join(shares)}. Take them from another "
            f"source, or fill them knowingly: `--fill {how}`."
        )
    if fill == "interpolate":
        if not few:
            raise ValueError(
                f"{where}: expected at most {percent(MOST_INTERPOLATED)} of a field to interpolate, got NaN in "
                f"{', '.join(shares)}. Take them from another source, or use `--fill nearest-level` or `--fill mean`."
            )
        substitutes = {gap: torch.from_numpy(_interpolated(state[gap].numpy())) for gap in gaps}
    elif fill == "mean":
        if normalizer is None:
            raise ValueError("fill='mean' needs a normalizer. Pass one, or use fill='nearest-level'.")
        substitutes = {gap: normalizer.mean[gap].cpu().expand_as(state[gap]) for gap in gaps}
    else:
        substitutes = {gap: state[_nearest_complete(gap, gaps, channels, where)] for gap in gaps}
    planes = [torch.where(plane.isnan(), substitutes.get(i, plane), plane) for i, plane in enumerate(state)]
    return torch.stack(planes)


def _interpolated(plane: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Fills missing points such that each is the mean of its four neighbours: Laplace's equation, by relaxation."""
    missing = np.isnan(plane)
    filled = np.where(missing, np.nanmean(plane), plane).astype(np.float64)
    for _ in range(SWEEPS):
        rows = np.pad(filled, ((1, 1), (0, 0)), mode="edge")
        around = (np.roll(filled, 1, 1) + np.roll(filled, -1, 1) + rows[2:] + rows[:-2]) / 4
        filled = np.where(missing, around, filled)
    return filled.astype(plane.dtype)


def _nearest_complete(gap: int, gaps: list[int], channels: ChannelSet, where: str) -> int:
    wanted = channels.channels[gap]
    if wanted.variable == "geopotential":
        raise ValueError(
            f"{where}: expected no NaN in {wanted.name}: the geopotential of another level is no substitute for it. "
            "Take it from another source, or interpolate a few missing points (`--fill interpolate`)."
        )
    # The logarithm of the pressure is nearly a height.
    distance = {
        index: abs(np.log(other.level / wanted.level))
        for index, other in enumerate(channels)
        if index not in gaps and other.variable == wanted.variable and other.level and wanted.level
    }
    if not distance:
        raise ValueError(
            f"{where}: '{wanted.variable}' has no complete level to fill {wanted.name} from. "
            "Take it from another source, or use fill='mean'."
        )
    return min(distance, key=lambda index: distance[index])
