"""Reads what is scored at once: one start, one variable with its levels, some lead times; and checks its masks."""

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
from ladcast.verification.case import Area, Case
from ladcast.verification.climatology import Climatology
from ladcast.verification.match import Match
from ladcast.verification.regions import Region

DIMS = ("prediction_timedelta", "level", "latitude", "longitude")


@dataclass(frozen=True)
class Block:
    """Points at one start, one variable with its levels, and some lead times."""

    start: int
    variable: str
    levels: list[int] | None
    rows: slice
    leads: slice

    def times(self, match: Match) -> Times:
        """Returns the valid times."""
        times: Times = match.starts[self.start] + match.lead_times[self.leads]
        return times


@dataclass(frozen=True)
class Scope:
    """Holds what is the same for all cases: match, regions with weights, device, probabilities of the quantiles."""

    match: Match
    regions: tuple[Region, ...]
    weights: Float[Tensor, "region lat lon"]
    device: torch.device
    probabilities: tuple[float, ...] = ()

    def area(self, present: Bool[Tensor, "level lat lon"]) -> Area:
        """Returns the areas on which the present cells count."""
        return Area(self.match.grid, self.regions, self.weights, present)


def blocks(match: Match, start: int, leads: Sequence[slice]) -> Iterator[Block]:
    """Yields the blocks of one start, variable by variable."""
    for variable, rows, levels in match.variables():
        for some in leads:
            yield Block(start, variable, levels, rows, some)


def read_cases(
    forecast: xr.Dataset, truth: xr.Dataset, scope: Scope, block: Block, climate: Mapping[str, Tensor]
) -> Iterator[Case]:
    """Reads one block, checks its masks, fills masked cells with zero, and yields one case for each lead time."""
    chosen = _at_levels(forecast[block.variable], block.levels)
    chosen = chosen.isel(time=block.start, prediction_timedelta=block.leads)
    members = _tensor(chosen, ("prediction_timedelta", "number", *DIMS[1:])).to(scope.device)
    true = read_truth(truth, scope.match, block).to(scope.device)
    missing = require_truth(true, scope.match, block)
    require_same_mask(members, missing, scope.match, block)
    climate = {part: field.to(scope.device) for part, field in climate.items()}
    masked = bool(missing.any())
    for lead, time in enumerate(block.times(scope.match)):
        hidden = missing[lead]

        def filled(field: Tensor, hidden: Tensor = hidden) -> Tensor:
            return field.masked_fill(hidden, 0) if masked else field

        yield Case(
            members=filled(members[lead]),
            truth=filled(true[lead]),
            area=scope.area(~hidden),
            climate={part: filled(field[..., lead, :, :, :]) for part, field in climate.items()},
            probabilities=scope.probabilities,
            key=_key(scope.match.starts[block.start], time, block.variable),
        )


def read_climate(
    climatology: Climatology | None, parts: set[str], match: Match, block: Block
) -> dict[str, Float[Tensor, "*quantile lead level lat lon"]]:
    """Reads the wanted parts of the climatology (`Climatology.parts`) at the block's valid times."""
    if climatology is None:
        return {}
    readers = {
        "mean": {"mean": climatology.mean_at},
        "quantiles": {"quantiles": climatology.quantiles_at},
        "dry_fraction": {"dry_fraction": climatology.dry_fraction_at, "wet_threshold": climatology.wet_threshold_at},
    }
    wanted = {name: at for part in sorted(parts) for name, at in readers[part].items()}
    count = len(climatology.probabilities)
    return {name: read_at(at, match, block, count if name == "quantiles" else 0) for name, at in wanted.items()}


def read_at(
    at: Callable[[Times, Sequence[str]], xr.Dataset], match: Match, block: Block, quantiles: int = 0
) -> Float[Tensor, "*quantile lead level lat lon"]:
    """Reads a climatology at the block's valid times, with its quantiles first; NaN where it lacks the channel."""
    times = block.times(match)
    leading = ("quantile",) if quantiles else ()
    found = at(times, [block.variable])
    if block.variable not in found:
        sizes = ([quantiles] if quantiles else []) + [len(times), len(block.levels or [0]), *match.grid.shape]
        return torch.full(sizes, torch.nan)
    field = found[block.variable]
    field = field if block.levels is None else field.reindex(level=block.levels)
    return _tensor(field, (*leading, "time", *DIMS[1:]))


def read_truth(truth: xr.Dataset, match: Match, block: Block) -> Float[Tensor, "lead level lat lon"]:
    """Reads the truth at the block's valid times."""
    index = match.truth_index[block.start, block.leads]
    field = _at_levels(truth[block.variable], block.levels).isel(time=index)
    return _tensor(field, ("time", *DIMS[1:]))


def _at_levels(field: xr.DataArray, levels: list[int] | None) -> xr.DataArray:
    return field if levels is None else field.isel(level=field.indexes["level"].get_indexer(levels))


def _tensor(field: xr.DataArray, dims: tuple[str, ...]) -> Tensor:
    """Reads the values in this order of dimensions, with length one where the field lacks a dimension."""
    ordered = field.variable.transpose(*(dim for dim in dims if dim in field.dims))
    values = ordered.values.reshape([ordered.sizes.get(dim, 1) for dim in dims])
    # torch wants its own order and the right to write; nothing here does, so a copy is made only where one is needed
    return torch.from_numpy(np.require(values, np.result_type(values, np.float32), ["C", "W"]))


def _key(start: np.datetime64, valid: np.datetime64, variable: str) -> tuple[int, ...]:
    """Names a case by numbers that are not negative, as a seed must be."""
    hours = (int(time.astype("datetime64[h]").astype(np.int64)) % 2**32 for time in (start, valid))
    return (*hours, list(VARIABLES).index(variable))


def require_truth(
    true: Float[Tensor, "lead level lat lon"], match: Match, block: Block
) -> Bool[Tensor, "lead level lat lon"]:
    """Returns where the truth is masked; raises ValueError for a hole in it: only the SST may be NaN, over land."""
    missing = torch.isnan(true)
    if true.sum().isfinite():  # one number says that all are finite
        return missing
    if (hidden := missing.flatten(1).all(1)).any():
        times = block.times(match)[hidden.cpu().numpy()]
        raise ValueError(f"The truth of '{block.variable}' is NaN everywhere at {describe(times)}. Repair it first.")
    wrong = torch.isinf(true) if block.variable in MASKED_ON_LAND else ~torch.isfinite(true)
    if wrong.any():
        lead, *cell = (int(index) for index in wrong.nonzero()[0])
        raise ValueError(
            f"The truth of '{block.variable}' at {describe(block.times(match)[lead])} has {true[lead, *cell]:g} at "
            f"{_place(cell, match, block)}, {int(wrong.sum())} such cells; only "
            f"'{', '.join(MASKED_ON_LAND)}' may be NaN. Repair it first."
        )
    return missing


def require_climate(
    climate: Float[Tensor, "lead level lat lon"],
    missing: Bool[Tensor, "lead level lat lon"],
    match: Match,
    block: Block,
) -> None:
    """Raises ValueError where the climatology is not finite but the truth is present."""
    wrong = ~(torch.isfinite(climate) | missing)
    if wrong.any():
        lead, *cell = (int(index) for index in wrong.nonzero()[0])
        raise ValueError(
            f"The climatology of '{block.variable}' for {describe(block.times(match)[lead])} has "
            f"{climate[lead, *cell]:g} at {_place(cell, match, block)} where the truth is present, {int(wrong.sum())} "
            "such cells. Fit it again, or leave it out."
        )


def require_same_mask(
    members: Float[Tensor, "lead member level lat lon"],
    missing: Bool[Tensor, "lead level lat lon"],
    match: Match,
    block: Block,
) -> None:
    """Raises ValueError where the forecast is not finite but the truth is, or the other way round."""
    if not missing.any() and members.sum().isfinite():  # one number says that all are finite
        return
    wrong = torch.isfinite(members) == missing[:, None]
    if not wrong.any():
        return
    lead, member, *cell = (int(index) for index in wrong.nonzero()[0])
    hours = match.lead_times[block.leads][lead] / HOUR
    raise ValueError(
        f"'{block.variable}' of the forecast from {describe(match.starts[block.start])}, lead {hours:g} h, member "
        f"{member}: expected NaN exactly where the truth is NaN, got {members[lead, member, *cell]:g} at "
        f"{_place(cell, match, block)}, {int(wrong.sum())} such cells. Give both the same mask; another NaN is a "
        "failed forecast."
    )


def _place(cell: Sequence[int], match: Match, block: Block) -> str:
    """Says where a cell (level, lat, lon) lies."""
    level, lat, lon = cell
    height = "" if block.levels is None else f"{block.levels[level]} hPa, "
    return f"{height}{match.grid.latitude[lat]:g} N, {match.grid.longitude[lon]:g} E"
