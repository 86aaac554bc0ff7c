"""The analyses that forecasts start from: read on any grid, with a record of what had to be made up."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from ladcast.data.normalization import Normalizer, ocean_mask
from ladcast.data.packing import pack
from ladcast.data.regrid import regrid
from ladcast.data.store import open_store
from ladcast.fields import ChannelSet
from ladcast.grid import Grid, grid_of
from ladcast.times import Times, describe
from ladcast.types import OceanMask

Fill = Literal["refuse", "mean", "nearest-level"]
SHOWN_TIMES = 4


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

    @property
    def unreal(self) -> str | None:
        """Returns what of the weather is unreal, such as that it is a model's, if the source says so."""
        return self.states.attrs.get("unreal")

    def read(self, time: np.datetime64, *, fill: Fill = "refuse", normalizer: Normalizer | None = None) -> Analysis:
        """Reads the state of one time, regridded conservatively where the grid of the source is another.

        Channels with NaN (but for the SST over land) are refused unless `fill` says how to fill them:
        `nearest-level` takes the nearest complete level of the same variable, `mean` the mean of `normalizer`.

        Raises:
            ValueError: the time is not there, channels have NaN and `fill` is `refuse`, or they cannot be filled.
        """
        index, channels = _find_time(self.times, time, self.where), self.channels
        state = pack(self.states.isel(time=[index]), channels)[0]
        gaps = _gaps(state, channels)
        if gaps:  # before regridding, which would hide small holes and widen large ones
            state = _fill(state, gaps, channels, fill=fill, normalizer=normalizer, where=self.where)
        regridded = torch.from_numpy(regrid(state.numpy(), grid_of(self.states), self.grid))
        filled = tuple(channels.names[gap] for gap in gaps)
        attributes = {name: self.states[name].attrs for name in channels.variables}
        derived = tuple(f"{name}: {about['derived']}" for name, about in attributes.items() if "derived" in about)
        ocean = ocean_mask(regridded, channels)
        return Analysis(regridded, ocean, self.times[index], self.where, filled, derived)


def open_analyses(path: str | Path | xr.Dataset, channels: ChannelSet, grid: Grid) -> Analyses:
    """Opens the states of a store or file for forecasts with these channels on this grid; see `open_store`."""
    where = "the dataset" if isinstance(path, xr.Dataset) else str(path)
    return Analyses(open_store(path, channels, regular=False, complete=False), channels, grid, where)


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
    nearest = np.sort(times[np.argsort(abs(times - time), kind="stable")[:SHOWN_TIMES]])
    raise ValueError(
        f"{where}: expected the time {describe(time)}, got {len(times)} times from "
        f"{describe(times[0])} to {describe(times[-1])}. Choose one of them; nearest: {describe(nearest)}."
    )


def _gaps(state: Float[Tensor, "channel lat lon"], channels: ChannelSet) -> list[int]:
    with_nan = state.isnan().any(dim=(-2, -1)).tolist()
    return [index for index, gap in enumerate(with_nan) if gap and index not in channels.masked_on_land]


def _fill(
    state: Float[Tensor, "channel lat lon"],
    gaps: list[int],
    channels: ChannelSet,
    *,
    fill: Fill,
    normalizer: Normalizer | None,
    where: str,
) -> Float[Tensor, "channel lat lon"]:
    if fill == "refuse":
        shares = [f"{channels.names[gap]} ({float(state[gap].isnan().float().mean()):.0%})" for gap in gaps]
        raise ValueError(
            f"{where}: expected complete fields, got NaN in {', '.join(shares)}. Take them from another "
            "source, or fill them knowingly with fill='nearest-level' or fill='mean'."
        )
    if fill == "mean":
        if normalizer is None:
            raise ValueError("fill='mean' needs a normalizer. Pass one, or use fill='nearest-level'.")
        substitutes = {gap: normalizer.mean[gap].expand_as(state[gap]) for gap in gaps}
    else:
        substitutes = {gap: state[_nearest_complete(gap, gaps, channels, where)] for gap in gaps}
    planes = [torch.where(plane.isnan(), substitutes.get(i, plane), plane) for i, plane in enumerate(state)]
    return torch.stack(planes)


def _nearest_complete(gap: int, gaps: list[int], channels: ChannelSet, where: str) -> int:
    wanted = channels.channels[gap]
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
