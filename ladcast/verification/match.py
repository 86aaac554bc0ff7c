"""Which truth belongs to which forecast: common channels, the grid, and the index of every valid time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import xarray as xr
from jaxtyping import Int, Shaped

from ladcast.fields import VARIABLES, Channel
from ladcast.grid import Grid, points_of
from ladcast.times import describe
from ladcast.units import same_units

SCORED_BYTES = 64 * 2**20
"""Forecast values that are read at once, at most, unless one lead time is larger."""


@dataclass(frozen=True)
class Match:
    """What can be scored: channels, initial times, lead times, and where `truth` holds each valid time.

    `init_times` are datetime64[ns], `lead_times` timedelta64[ns]; `members` is infinite for a full distribution.
    """

    channels: tuple[Channel, ...]
    grid: Grid
    init_times: Shaped[np.ndarray, " init"]
    lead_times: Shaped[np.ndarray, " lead"]
    truth_index: Int[np.ndarray, "init lead"]
    members: int | float

    def variables(self) -> Iterator[tuple[str, slice, list[int] | None]]:
        """Yields each variable, its rows among the channels, and its levels (None for a surface variable)."""
        row = 0
        for name, group in groupby(self.channels, key=lambda channel: channel.variable):
            channels = list(group)
            levels = [channel.level for channel in channels if channel.level is not None]
            yield name, slice(row, row + len(channels)), levels or None
            row += len(channels)


def match_truth(forecast: xr.Dataset, truth: xr.Dataset) -> Match:
    """Finds the truth for each initial time plus lead time.

    `forecast` has (time, prediction_timedelta[, number][, level], latitude, longitude), `truth` has
    (time[, level], latitude, longitude) at valid times. Channels that only one of them has, or that
    `ladcast.fields` does not describe, are left out; what is scored stands in `Match.channels`.

    Raises:
        ValueError: a dimension is missing, the grids or units differ, nothing is common, or the truth lacks
            valid times.
    """
    _require(forecast, "forecast", ("time", "prediction_timedelta", "latitude", "longitude"))
    _require(truth, "truth", ("time", "latitude", "longitude"))
    grid, truth_grid = points_of(forecast), points_of(truth)
    if not grid.matches(truth_grid):
        raise ValueError(f"The forecast's grid is {grid}, the truth's is {truth_grid}. Regrid one of them first.")
    init_times = forecast["time"].values.astype("datetime64[ns]")
    lead_times = forecast["prediction_timedelta"].values.astype("timedelta64[ns]")
    return Match(
        channels=common_channels(forecast, truth),
        grid=grid,
        init_times=init_times,
        lead_times=lead_times,
        truth_index=find_times(truth, init_times[:, None] + lead_times, "truth"),
        members=forecast.sizes.get("number", 1),
    )


def find_times(ds: xr.Dataset, times: Shaped[np.ndarray, "*time"], what: str) -> Int[np.ndarray, "*time"]:
    """Returns the index of each time in `ds`, shaped as `times`; raises ValueError listing missing times."""
    index = np.asarray(ds.indexes["time"].get_indexer(times.ravel())).reshape(times.shape)
    if (index < 0).any():
        first, last = (describe(ds["time"].values[place]) for place in (0, -1))
        raise ValueError(
            f"The {what} lacks {describe(np.unique(times[index < 0]))} (it runs from {first} to {last}). "
            "Score fewer starts or lead times, or extend it."
        )
    return index


def common_channels(first: xr.Dataset, second: xr.Dataset) -> tuple[Channel, ...]:
    """Returns the channels that both hold, in the order of `ladcast.fields`.

    Raises:
        ValueError: there is none, or the units of one differ.
    """
    shared = set(_channels(first)) & set(_channels(second))
    if not shared:
        names = [sorted(channel.name for channel in _channels(ds)) for ds in (first, second)]
        raise ValueError(f"No variable and level is in both datasets: {names[0]} and {names[1]}.")
    for name in {channel.variable for channel in shared}:
        units = [str(ds[name].attrs.get("units", "")) for ds in (first, second)]
        if not same_units(*units):
            raise ValueError(f"The units of '{name}' differ: '{units[0]}' and '{units[1]}'. Convert one of them.")
    order = list(VARIABLES)
    return tuple(sorted(shared, key=lambda channel: (order.index(channel.variable), channel.level or 0)))


def _channels(ds: xr.Dataset) -> list[Channel]:
    """Leaves out static fields and what `ladcast.fields` does not describe: stores hold much more."""
    moving = [name for name in VARIABLES if name in ds and {"time", "dayofyear"} & set(ds[name].dims)]
    return [
        Channel(name, level)
        for name in moving
        for level in (ds[name]["level"].values.astype(int).tolist() if "level" in ds[name].dims else [None])
    ]


def lead_chunks(forecast: xr.Dataset, match: Match) -> list[slice]:
    """Cuts the lead times into chunks that fit `SCORED_BYTES`, of whole stored chunks where possible."""
    fields = [forecast[channel.variable] for channel in match.channels]
    num_leads = len(match.lead_times)
    one_lead = max(field.nbytes for field in fields) / max(len(match.init_times) * num_leads, 1)
    length = int(max(SCORED_BYTES // one_lead, 1))
    chunk = max(_chunk(field) for field in fields)
    length -= length % chunk if chunk < length else 0  # else a stored chunk would be decoded twice
    return [slice(first, min(first + length, num_leads)) for first in range(0, num_leads, length)]


def _chunk(field: xr.DataArray) -> int:
    dim = "prediction_timedelta"
    stored = field.encoding.get("preferred_chunks", {}).get(dim, 1)
    return int(max(field.chunksizes.get(dim, (stored,))))


def _require(ds: xr.Dataset, what: str, dims: tuple[str, ...]) -> None:
    if missing := [dim for dim in dims if dim not in ds.dims]:
        raise ValueError(f"The {what} lacks the dimensions {missing} (it has {list(ds.dims)}).")
