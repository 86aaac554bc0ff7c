"""The one scorer: a forecast and its truth become sums of statistics."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float
from torch import Tensor

from ladcast.times import Times, describe
from ladcast.verification.accumulate import Accumulator, area_sum, merge
from ladcast.verification.climatology import Climatology
from ladcast.verification.match import Match, common_channels, find_times, lead_blocks, match_truth
from ladcast.verification.statistics import Case, gaussian_statistics, select_statistics


@dataclass(frozen=True)
class Block:
    """Points at what is read and scored at once: one start, one variable with its levels, some lead times."""

    start: int
    variable: str
    levels: list[int] | None
    rows: slice
    leads: slice


Fields = dict[str, Tensor]


def score(
    forecast: xr.Dataset,
    truth: xr.Dataset,
    *,
    statistics: Sequence[str] | None = None,
    climatology: Climatology | None = None,
) -> Accumulator:
    """Scores an ensemble, or a single forecast if it has no dimension `number`, over all its starts.

    `statistics` are names in `STATISTICS`; by default all that the members and the climatology allow. Where
    the climatology lacks a channel, the anomaly correlation is NaN. Stored data may be lazy: what is read at
    once is one variable at one block of lead times.

    Raises:
        ValueError: see `match_truth` and `select_statistics`; or the forecast has a NaN or an infinite value
            where the truth has none, or a value where the truth is masked.
    """
    return merge(score_starts(forecast, truth, statistics=statistics, climatology=climatology))


def score_starts(
    forecast: xr.Dataset,
    truth: xr.Dataset,
    *,
    statistics: Sequence[str] | None = None,
    climatology: Climatology | None = None,
) -> Iterator[Accumulator]:
    """Yields the score of each start by itself, as a bootstrap or a progress bar needs it. See `score`."""
    match = match_truth(forecast, truth)
    chosen = select_statistics(statistics, members=match.members, climatology=climatology is not None)
    compared = climatology if any(statistic.needs_climatology for statistic in chosen) else None
    leads = lead_blocks(forecast, match)
    for start in range(len(match.starts)):
        cases = ((block, _read_case(forecast, truth, match, block, compared)) for block in _blocks(match, start, leads))
        fields = ((block, {s.name: s.field(case) for s in chosen}, case.weight) for block, case in cases)
        yield _collect(match, start, fields)


def score_climatology(climatology: Climatology, forecast: xr.Dataset, truth: xr.Dataset) -> Accumulator:
    """Scores the normal distribution of the climatology at the valid times of `forecast`, in closed form.

    Only the layout of `forecast` is used. The accumulator has infinitely many members: its fair and its
    ordinary CRPS are both the CRPS of the distribution.

    Raises:
        ValueError: see `match_truth`; or the climatology has no channel in common, or is NaN where the truth
            is not.
    """
    match = match_truth(forecast, truth)
    channels = set(common_channels(climatology.means, truth)) & set(match.channels)
    if not channels:
        raise ValueError(f"The climatology has none of {', '.join(channel.name for channel in match.channels)}.")
    kept = tuple(channel for channel in match.channels if channel in channels)
    match = replace(match, channels=kept, members=math.inf)
    leads = lead_blocks(forecast, match)
    return merge(
        _collect(
            match,
            start,
            (_climatology_fields(climatology, truth, match, b) for b in _blocks(match, start, leads)),
        )
        for start in range(len(match.starts))
    )


def persistence(start_state: xr.Dataset, forecast: xr.Dataset) -> xr.Dataset:
    """Returns the single forecast that keeps the state at each start, in the layout of `forecast`.

    `start_state` has (time[, level], latitude, longitude) and holds the starts of `forecast`; the result is
    a view over lead times, not a copy for each.

    Raises:
        ValueError: a start is missing in `start_state`.
    """
    starts = forecast["time"].values.astype("datetime64[ns]")
    names = [name for name in forecast.data_vars if name in start_state]
    states = start_state[names].isel(time=find_times(start_state, starts, "start state"))
    return states.expand_dims(prediction_timedelta=forecast["prediction_timedelta"].values, axis=1)


def _blocks(match: Match, start: int, leads: list[slice]) -> Iterator[Block]:
    for variable, rows, levels in match.variables():
        for some in leads:
            yield Block(start, variable, levels, rows, some)


def _collect(match: Match, start: int, parts: Iterable[tuple[Block, Fields, Tensor]]) -> Accumulator:
    """Sums the fields of every block of one start over the area."""
    shape = (len(match.channels), len(match.lead_times))
    sums: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float64]]] = {}
    total = np.zeros(shape)
    for block, fields, weight in parts:
        total[block.rows, block.leads] = weight.sum((-2, -1)).T.numpy()
        for name, field in fields.items():
            sums.setdefault(name, np.zeros(shape))[block.rows, block.leads] = area_sum(field, weight).T.numpy()
    return Accumulator(
        sums=sums,
        weight=total,
        channels=match.channels,
        lead_times=tuple(match.lead_times),
        starts=(match.starts[start],),
        members=match.members,
    )


def _read_case(
    forecast: xr.Dataset, truth: xr.Dataset, match: Match, block: Block, climatology: Climatology | None
) -> Case:
    """Reads one block, checks its masks and fills masked cells with zero."""
    chosen = _at_levels(forecast[block.variable], block.levels)
    chosen = chosen.isel(time=block.start, prediction_timedelta=block.leads)
    members = _tensor(chosen, ("number", "prediction_timedelta", "level", "latitude", "longitude"))
    true = _read_truth(truth, match, block)
    missing = torch.isnan(true)
    _require_same_mask(members, missing, match, block)
    usual = None if climatology is None else _read_climatology(climatology.mean_at, match, block)
    weight = _weight(match, missing)
    if missing.any():
        members, true = members.masked_fill(missing, 0), true.masked_fill(missing, 0)
        usual = None if usual is None else usual.masked_fill(missing, 0)
    return Case(members, true, weight, usual)


def _climatology_fields(
    climatology: Climatology, truth: xr.Dataset, match: Match, block: Block
) -> tuple[Block, Fields, Tensor]:
    true = _read_truth(truth, match, block)
    missing = torch.isnan(true)
    mean = _read_climatology(climatology.mean_at, match, block)
    std = _read_climatology(climatology.std_at, match, block)
    _require_same_mask(torch.where(missing, torch.nan, mean + std)[None], missing, match, block)
    filled = (field.masked_fill(missing, 0) for field in (mean, std, true))
    return block, gaussian_statistics(*filled), _weight(match, missing)


def _read_truth(truth: xr.Dataset, match: Match, block: Block) -> Float[Tensor, "lead level lat lon"]:
    index = match.truth_index[block.start, block.leads]
    field = _at_levels(truth[block.variable], block.levels).isel(time=index)
    return _tensor(field, ("time", "level", "latitude", "longitude"))


def _read_climatology(
    at: Callable[[Times, Sequence[str]], xr.Dataset], match: Match, block: Block
) -> Float[Tensor, "lead level lat lon"]:
    """Reads `Climatology.mean_at` or `std_at` at the block's valid times; NaN where it lacks the channel."""
    times = match.starts[block.start] + match.lead_times[block.leads]
    found = at(times, [block.variable])
    if block.variable not in found:
        return torch.full((len(times), len(block.levels or [0]), *match.grid.shape), torch.nan)
    field = found[block.variable]
    field = field if block.levels is None else field.reindex(level=block.levels)
    return _tensor(field, ("time", "level", "latitude", "longitude"))


def _at_levels(field: xr.DataArray, levels: list[int] | None) -> xr.DataArray:
    return field if levels is None else field.isel(level=field.indexes["level"].get_indexer(levels))


def _tensor(field: xr.DataArray, dims: tuple[str, ...]) -> Tensor:
    """Reads the values in this order of dimensions, with length one where the field lacks a dimension."""
    ordered = field.variable.transpose(*(dim for dim in dims if dim in field.dims))
    values = ordered.values.reshape([ordered.sizes.get(dim, 1) for dim in dims])
    return torch.from_numpy(np.array(values, dtype=np.result_type(values, np.float32)))


def _weight(match: Match, missing: Bool[Tensor, "lead level lat lon"]) -> Float[Tensor, "lead level lat lon"]:
    area = torch.from_numpy(match.grid.area_weights)[:, None]
    return torch.where(missing, 0.0, area)


def _require_same_mask(
    members: Float[Tensor, "member lead level lat lon"],
    missing: Bool[Tensor, "lead level lat lon"],
    match: Match,
    block: Block,
) -> None:
    """Raises ValueError where the forecast is not finite but the truth is, or the other way round."""
    start = match.starts[block.start]
    if (hidden := missing.flatten(1).all(1)).any():
        times = start + match.lead_times[block.leads][hidden.numpy()]
        raise ValueError(f"The truth of '{block.variable}' is NaN everywhere at {describe(times)}. Repair it first.")
    wrong = torch.isfinite(members) == missing
    if not wrong.any():
        return
    member, lead, level, lat, lon = (int(index) for index in wrong.nonzero()[0])
    hours = match.lead_times[block.leads][lead] / np.timedelta64(1, "h")
    at = "" if block.levels is None else f" at {block.levels[level]} hPa"
    where = f"({match.grid.latitude[lat]:g} N, {match.grid.longitude[lon]:g} E)"
    raise ValueError(
        f"'{block.variable}'{at} of the forecast from {describe(start)}, lead {hours:g} h, member {member}: "
        f"expected NaN exactly where the truth is NaN, got {members[member, lead, level, lat, lon]:g} at "
        f"{where}, {int(wrong.sum())} such cells. Give both the same mask; another NaN is a failed forecast."
    )
