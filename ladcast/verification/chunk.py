"""Reads what is scored at once: one initial time, one variable with its levels, some lead times; and checks masks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float
from torch import Tensor

from ladcast.fields import MASKED_ON_LAND, VARIABLES
from ladcast.times import HOUR, Times, describe
from ladcast.verification.case import Area, Case, Region
from ladcast.verification.climatology import Climatology
from ladcast.verification.match import Match

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
        times: Times = self.init_time + self.match.lead_times[self.leads]
        return times

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
    """Yields the chunks of one initial time, variable by variable."""
    for variable, rows, levels in match.variables():
        for some in leads:
            yield ScoringChunk(match, init_index, variable, levels, rows, some)


def read_cases(
    forecast: xr.Dataset, truth: xr.Dataset, scope: Scope, chunk: ScoringChunk, climate: Mapping[str, Tensor]
) -> Iterator[Case]:
    """Reads one chunk, checks its masks, fills masked cells with zero, and yields one case for each lead time."""
    chosen = _at_levels(forecast[chunk.variable], chunk.levels)
    chosen = chosen.isel(time=chunk.init_index, prediction_timedelta=chunk.leads)
    members = _tensor(chosen, ("prediction_timedelta", "number", *FIELD_DIMS[1:])).to(scope.device)
    true = read_truth(truth, chunk).to(scope.device)
    missing = require_truth(true, chunk)
    require_same_mask(members, missing, chunk)
    climate = {part: field.to(scope.device) for part, field in climate.items()}
    masked = bool(missing.any())  # most variables never are: spare them a copy of every field
    for lead, time in enumerate(chunk.valid_times):
        hidden = missing[lead]

        def filled(field: Tensor, hidden: Tensor = hidden) -> Tensor:
            return field.masked_fill(hidden, 0) if masked else field

        yield Case(
            members=filled(members[lead]),
            truth=filled(true[lead]),
            area=scope.area(~hidden),
            climate={part: filled(field[..., lead, :, :, :]) for part, field in climate.items()},
            probabilities=scope.probabilities,
            key=_key(chunk.init_time, time, chunk.variable),
        )


def read_climate(
    climatology: Climatology | None, parts: set[str], chunk: ScoringChunk
) -> dict[str, Float[Tensor, "*quantile lead level lat lon"]]:
    """Reads the wanted parts of the climatology (`Climatology.parts`) at the chunk's valid times."""
    if climatology is None:
        return {}
    readers = {
        "mean": {"mean": climatology.mean_at},
        "quantiles": {"quantiles": climatology.quantiles_at},
        "dry_fraction": {"dry_fraction": climatology.dry_fraction_at, "wet_threshold": climatology.wet_threshold_at},
    }
    wanted = {name: at for part in sorted(parts) for name, at in readers[part].items()}
    count = len(climatology.probabilities)
    return {name: read_at(at, chunk, count if name == "quantiles" else 0) for name, at in wanted.items()}


def read_at(
    at: Callable[[Times, Sequence[str]], xr.Dataset], chunk: ScoringChunk, quantiles: int = 0
) -> Float[Tensor, "*quantile lead level lat lon"]:
    """Reads a climatology at the chunk's valid times, with its quantiles first; NaN where it lacks the channel."""
    times = chunk.valid_times
    leading = ("quantile",) if quantiles else ()
    found = at(times, [chunk.variable])
    if chunk.variable not in found:
        sizes = ([quantiles] if quantiles else []) + [len(times), len(chunk.levels or [0]), *chunk.match.grid.shape]
        return torch.full(sizes, torch.nan)
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


def _key(init_time: np.datetime64, valid: np.datetime64, variable: str) -> tuple[int, ...]:
    """Names a case by numbers that are not negative, as a seed must be."""
    hours = (int(time.astype("datetime64[h]").astype(np.int64)) % 2**32 for time in (init_time, valid))
    return (*hours, list(VARIABLES).index(variable))


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
