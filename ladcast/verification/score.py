"""The one scorer: a forecast and its truth become accumulated statistics."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr
from torch import Tensor

from ladcast.verification.accumulate import Accumulator, merge_accumulators
from ladcast.verification.case import region_weights, select_regions
from ladcast.verification.climatology import Climatology
from ladcast.verification.match import (
    Match,
    Scope,
    ScoringChunk,
    common_channels,
    lead_chunks,
    match_truth,
    read_at,
    read_cases,
    read_climate,
    read_truth,
    require_climate,
    require_truth,
    scoring_chunks,
)
from ladcast.verification.statistics import select_statistics
from ladcast.verification.statistics.distances import gaussian_statistics

Found = tuple[ScoringChunk, int, dict[str, Tensor], Tensor]
"""A chunk, a position among its lead times, the sums [region, level, ...] there, and the weight [region, level]."""


@dataclass(frozen=True)
class ScoreOptions:
    """What is scored, and where it is computed.

    `statistics` are names or groups in `ladcast.verification.statistics`, by default what always is computed; `regions`
    are names in `REGIONS`, by default the globe. On a GPU (`device` cuda) the members of a cell are read once.
    """

    statistics: tuple[str, ...] | None = None
    regions: tuple[str, ...] | None = None
    device: str = "cpu"


DEFAULT_OPTIONS = ScoreOptions()


def score(
    forecast: xr.Dataset,
    truth: xr.Dataset,
    *,
    statistics: Sequence[str] | None = None,
    climatology: Climatology | None = None,
    options: ScoreOptions = DEFAULT_OPTIONS,
) -> Accumulator:
    """Scores an ensemble, or a single forecast if it has no dimension `number`, over all its initial times.

    `statistics` is short for `ScoreOptions(statistics=...)`. Where the climatology lacks a channel, the anomaly
    correlation is NaN. Stored data may be lazy: what is read at once is one variable at one chunk of lead times.

    Raises:
        ValueError: see `match_truth` and `select_statistics`; or the forecast has a NaN or an infinite value
            where the truth has none, or a value where the truth is masked.
    """
    match = match_truth(forecast, truth)
    scope = scope_of(match, truth, options)
    names = options.statistics if statistics is None else statistics
    chosen = select_statistics(names, members=match.members, climatology=climatology.parts if climatology else ())
    parts = {statistic.climate for statistic in chosen if statistic.climate}
    probabilities = climatology.probabilities if climatology and "quantiles" in parts else ()
    scope = replace(scope, probabilities=probabilities)
    leads = lead_chunks(forecast, match)

    def found(index: int) -> Iterator[Found]:
        for chunk in scoring_chunks(match, index, leads):
            climate = read_climate(climatology, parts, chunk)
            for lead, case in enumerate(read_cases(forecast, truth, scope, chunk, climate)):
                yield chunk, lead, {s.name: s.reduce(case) for s in chosen}, case.area.total

    scores = merge_accumulators(collect(scope, index, found(index)) for index in range(len(match.init_times)))
    return replace(scores, axes={"quantile": probabilities}) if probabilities else scores


def score_climatology(
    climatology: Climatology, forecast: xr.Dataset, truth: xr.Dataset, *, options: ScoreOptions = DEFAULT_OPTIONS
) -> Accumulator:
    """Scores the normal distribution of the climatology at the valid times of `forecast`, in closed form.

    Only the layout of `forecast` is used, and of `options` not the statistics. The accumulator has infinitely many
    members: its fair and its ordinary CRPS are both the CRPS of the distribution.

    Raises:
        ValueError: see `match_truth`; or the climatology has no standard deviations, no channel in common, or is NaN
            where the truth is not.
    """
    if not climatology.part("std"):
        raise ValueError(
            "The climatology has means only: as a forecast it needs standard deviations, `<variable>_std`. Fit it with "
            "`ladcast-data climatology`, or leave its own score out; anomalies and events need none."
        )
    match = match_truth(forecast, truth)
    scope = scope_of(match, truth, options)
    channels = set(common_channels(climatology.part("std"), truth)) & set(match.channels)
    if not channels:
        raise ValueError(f"The climatology has none of {', '.join(channel.name for channel in match.channels)}.")
    kept = tuple(channel for channel in match.channels if channel in channels)
    scope = replace(scope, match=replace(match, channels=kept, members=math.inf))
    leads = lead_chunks(forecast, scope.match)

    def found(index: int) -> Iterator[Found]:
        for chunk in scoring_chunks(scope.match, index, leads):
            true = read_truth(truth, chunk).to(scope.device)
            missing = require_truth(true, chunk)
            mean, std = (read_at(climatology, part, chunk).to(scope.device) for part in ("mean", "std"))
            require_climate(mean + std, missing, chunk)
            for lead, hidden in enumerate(missing):
                area = scope.area(~hidden)
                sums = gaussian_statistics(*(field[lead].masked_fill(hidden, 0) for field in (mean, std, true)))
                yield chunk, lead, {name: area.sum(field) for name, field in sums.items()}, area.total

    return merge_accumulators(collect(scope, index, found(index)) for index in range(len(match.init_times)))


def scope_of(match: Match, truth: xr.Dataset, options: ScoreOptions) -> Scope:
    """Returns what all cases of a match share."""
    regions, device = select_regions(options.regions), torch.device(options.device)
    weights = torch.from_numpy(region_weights(regions, match.grid, truth)).to(device)
    return Scope(match, regions, weights, device)


def collect(scope: Scope, index: int, parts: Iterable[Found]) -> Accumulator:
    """Puts the sums of every case of one initial time in their places; what a variable does not have stays NaN."""
    match = scope.match
    shape = (1, len(scope.regions), len(match.channels), len(match.lead_times))
    sums: dict[str, npt.NDArray[np.float64]] = {}
    total = np.zeros(shape)
    for chunk, lead, found, weight in parts:
        place = (0, slice(None), chunk.rows, chunk.leads.start + lead)
        total[place] = weight.cpu().numpy()
        for name, values in found.items():
            sums.setdefault(name, np.full((*shape, *values.shape[2:]), np.nan))[place] = values.cpu().numpy()
    return Accumulator(
        sums=sums,
        weight=total,
        channels=match.channels,
        lead_times=tuple(match.lead_times),
        init_times=(match.init_times[index],),
        members=match.members,
        regions=tuple(region.name for region in scope.regions),
    )
