"""Which truth belongs to which forecast; and both read for the scorer, chunk by chunk, with their masks compared.

A chunk is one initial time, one variable with its levels, and some lead times.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from ladcast.fields import MASKED_ON_LAND, VARIABLES, Channel
from ladcast.grid import Grid, points_of
from ladcast.times import HOUR, Times, describe
from ladcast.units import same_units
from ladcast.verification.case import Area, Case, Region
from ladcast.verification.climatology import Climatology, stored_chunk

MEAN_OVER_TIME = re.compile(r"\b(time|prediction_timedelta|forecast_period): mean\b")
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
        if is_mean_over_time(first[name]) != is_mean_over_time(second[name]):
            raise ValueError(
                f"'{name}' is a mean over time in one of forecast, truth and climatology, and not in another. "
                "Make all weekly means: `ladcast products weekly`, `ladcast-data weekly`."
            )
    order = list(VARIABLES)
    return tuple(sorted(shared, key=lambda channel: (order.index(channel.variable), channel.level or 0)))


def is_mean_over_time(field: xr.DataArray) -> bool:
    """Says whether a field holds means over times, such as weeks, as its cell methods tell."""
    return bool(MEAN_OVER_TIME.search(str(field.attrs.get("cell_methods", ""))))


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
    chunk = max(stored_chunk(field, "prediction_timedelta") for field in fields)
    length -= length % chunk if chunk < length else 0  # else a stored chunk would be decoded twice
    return [slice(first, min(first + length, num_leads)) for first in range(0, num_leads, length)]


def _require(ds: xr.Dataset, what: str, dims: tuple[str, ...]) -> None:
    if missing := [dim for dim in dims if dim not in ds.dims]:
        raise ValueError(f"The {what} lacks the dimensions {missing} (it has {list(ds.dims)}).")


FIELD_DIMS = ("prediction_timedelta", "level", "latitude", "longitude")


@dataclass(frozen=True)
class ScoringChunk:
    """One initial time, one variable with its levels, and some lead times of a match."""

    match: Match
    init_index: int
    variable: str
    levels: list[int] | None
    rows: slice
    leads: slice

    @property
    def init_time(self) -> np.datetime64:
        """Returns the initial time."""
        return np.datetime64(self.match.init_times[self.init_index])

    @property
    def valid_times(self) -> Times:
        """Returns the valid time of each lead time."""
        return np.asarray(self.init_time + self.match.lead_times[self.leads])

    def say_cell(self, cell: Sequence[int]) -> str:
        """Says where a cell (level, lat, lon) lies."""
        level, lat, lon = cell
        height = "" if self.levels is None else f"{self.levels[level]} hPa, "
        return f"{height}{self.match.grid.latitude[lat]:g} N, {self.match.grid.longitude[lon]:g} E"


@dataclass(frozen=True)
class Scope:
    """What all cases share: match, regions with weights, device, probabilities of the quantiles."""

    match: Match
    regions: tuple[Region, ...]
    weights: Float[Tensor, "region lat lon"]
    device: torch.device
    probabilities: tuple[float, ...] = ()

    def area(self, present: Bool[Tensor, "level lat lon"]) -> Area:
        """Returns the areas on which the present cells count."""
        return Area(self.match.grid, self.regions, self.weights, present)


def scoring_chunks(match: Match, init_index: int, leads: Sequence[slice]) -> Iterator[ScoringChunk]:
    """Yields the chunks of one initial time: all variables of some lead times, which latents decode together."""
    for some in leads:
        for variable, rows, levels in match.variables():
            yield ScoringChunk(match, init_index, variable, levels, rows, some)


def read_cases(
    forecast: xr.Dataset, truth: xr.Dataset, scope: Scope, chunk: ScoringChunk, climate: Mapping[str, Tensor]
) -> Iterator[Case]:
    """Reads one chunk, and yields the cases of it."""
    chosen = _at_levels(forecast[chunk.variable], chunk.levels)
    chosen = chosen.isel(time=chunk.init_index, prediction_timedelta=chunk.leads)
    members = _tensor(chosen, ("prediction_timedelta", "number", *FIELD_DIMS[1:])).to(scope.device)
    true = read_truth(truth, chunk).to(scope.device)
    climate = {part: field.to(scope.device) for part, field in climate.items()}
    return cases(members, true, scope, chunk, climate)


def cases(
    members: Float[Tensor, "lead member level lat lon"],
    true: Float[Tensor, "lead level lat lon"],
    scope: Scope,
    chunk: ScoringChunk,
    climate: Mapping[str, Tensor],
) -> Iterator[Case]:
    """Checks the masks of one chunk, fills masked cells with zero, and yields one case for each lead time."""
    missing = require_truth(true, chunk)
    require_same_mask(members, missing, chunk)
    masked = bool(missing.any())  # most variables never are: spare them a copy of every field
    for lead, time in enumerate(chunk.valid_times):
        hidden = missing[lead]
        hours = (int(moment.astype("datetime64[h]").astype(np.int64)) for moment in (chunk.init_time, time))

        def filled(field: Tensor, hidden: Tensor = hidden) -> Tensor:
            return field.masked_fill(hidden, 0) if masked else field

        yield Case(
            members=filled(members[lead]),
            truth=filled(true[lead]),
            area=scope.area(~hidden),
            climate={part: filled(field[..., lead, :, :, :]) for part, field in climate.items()},
            probabilities=scope.probabilities,
            key=(*(hour % 2**32 for hour in hours), list(VARIABLES).index(chunk.variable)),  # a seed is not negative
        )


def read_climate(
    climatology: Climatology | None, parts: set[str], chunk: ScoringChunk
) -> dict[str, Float[Tensor, "*quantile lead level lat lon"]]:
    """Reads the wanted parts of the climatology (`Climatology.parts`) at the chunk's valid times."""
    if climatology is None:
        return {}
    also = {"wet_threshold"} if "dry_fraction" in parts else set[str]()
    return {part: read_at(climatology, part, chunk) for part in sorted(parts | also)}


def read_at(climatology: Climatology, part: str, chunk: ScoringChunk) -> Float[Tensor, "*quantile lead level lat lon"]:
    """Reads a part of a climatology at the chunk's valid times, quantiles first; NaN where it lacks the channel."""
    times = chunk.valid_times
    leading = ("quantile",) if part == "quantiles" else ()
    found = climatology.at(part, times, [chunk.variable])
    if chunk.variable not in found:
        quantiles = [len(climatology.probabilities)] if leading else []
        return torch.full([*quantiles, len(times), len(chunk.levels or [0]), *chunk.match.grid.shape], torch.nan)
    field = found[chunk.variable]
    field = field if chunk.levels is None else field.reindex(level=chunk.levels)
    return _tensor(field, (*leading, "time", *FIELD_DIMS[1:]))


def read_truth(truth: xr.Dataset, chunk: ScoringChunk) -> Float[Tensor, "lead level lat lon"]:
    """Reads the truth at the chunk's valid times."""
    index = chunk.match.truth_index[chunk.init_index, chunk.leads]
    field = _at_levels(truth[chunk.variable], chunk.levels).isel(time=index)
    return _tensor(field, ("time", *FIELD_DIMS[1:]))


def _at_levels(field: xr.DataArray, levels: list[int] | None) -> xr.DataArray:
    return field if levels is None else field.isel(level=field.indexes["level"].get_indexer(levels))


def _tensor(field: xr.DataArray, dims: tuple[str, ...]) -> Tensor:
    """Reads the values in this order of dimensions, with length one where the field lacks a dimension."""
    ordered = field.variable.transpose(*(dim for dim in dims if dim in field.dims))
    values = ordered.values.reshape([ordered.sizes.get(dim, 1) for dim in dims])
    # torch wants its own order and the right to write; nothing here does, so a copy is made only where one is needed
    return torch.from_numpy(np.require(values, np.result_type(values, np.float32), ["C", "W"]))


def require_truth(true: Float[Tensor, "lead level lat lon"], chunk: ScoringChunk) -> Bool[Tensor, "lead level lat lon"]:
    """Returns where the truth is masked; raises ValueError for a hole in it: only the SST may be NaN, over land."""
    missing = torch.isnan(true)
    if true.sum().isfinite():  # one number says that all are finite
        return missing
    if (hidden := missing.flatten(1).all(1)).any():
        times = chunk.valid_times[hidden.cpu().numpy()]
        raise ValueError(f"The truth of '{chunk.variable}' is NaN everywhere at {describe(times)}. Repair it first.")
    wrong = torch.isinf(true) if chunk.variable in MASKED_ON_LAND else ~torch.isfinite(true)
    if wrong.any():
        lead, *cell = (int(index) for index in wrong.nonzero()[0])
        raise ValueError(
            f"The truth of '{chunk.variable}' at {describe(chunk.valid_times[lead])} has {true[lead, *cell]:g} at "
            f"{chunk.say_cell(cell)}, {int(wrong.sum())} such cells; only "
            f"'{', '.join(MASKED_ON_LAND)}' may be NaN. Repair it first."
        )
    return missing


def require_climate(
    climate: Float[Tensor, "lead level lat lon"], missing: Bool[Tensor, "lead level lat lon"], chunk: ScoringChunk
) -> None:
    """Raises ValueError where the climatology is not finite but the truth is present."""
    wrong = ~(torch.isfinite(climate) | missing)
    if wrong.any():
        lead, *cell = (int(index) for index in wrong.nonzero()[0])
        raise ValueError(
            f"The climatology of '{chunk.variable}' for {describe(chunk.valid_times[lead])} has "
            f"{climate[lead, *cell]:g} at {chunk.say_cell(cell)} where the truth is present, {int(wrong.sum())} "
            "such cells. Fit it again, or leave it out."
        )


def require_same_mask(
    members: Float[Tensor, "lead member level lat lon"],
    missing: Bool[Tensor, "lead level lat lon"],
    chunk: ScoringChunk,
) -> None:
    """Raises ValueError where the forecast is not finite but the truth is, or the other way round."""
    if not missing.any() and members.sum().isfinite():  # one number says that all are finite
        return
    wrong = torch.isfinite(members) == missing[:, None]
    if not wrong.any():
        return
    lead, member, *cell = (int(index) for index in wrong.nonzero()[0])
    hours = chunk.match.lead_times[chunk.leads][lead] / HOUR
    raise ValueError(
        f"'{chunk.variable}' of the forecast from {describe(chunk.init_time)}, lead {hours:g} h, member "
        f"{member}: expected NaN exactly where the truth is NaN, got {members[lead, member, *cell]:g} at "
        f"{chunk.say_cell(cell)}, {int(wrong.sum())} such cells. Give both the same mask; another NaN is a "
        "failed forecast."
    )
