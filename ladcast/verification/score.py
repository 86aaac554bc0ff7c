"""The one scorer: a forecast and its truth, datasets or tensors, become accumulated statistics."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from ladcast.fields import Channel
from ladcast.grid import points_of
from ladcast.verification.accumulate import Accumulator, merge_accumulators
from ladcast.verification.case import Case, region_weights, select_regions
from ladcast.verification.climatology import Climatology
from ladcast.verification.match import (
    Match,
    Scope,
    ScoringChunk,
    cases,
    common_channels,
    find_times,
    lead_chunks,
    match_truth,
    read_at,
    read_cases,
    read_climate,
    read_truth,
    require_climate,
    require_same_mask,
    require_truth,
    scoring_chunks,
)
from ladcast.verification.statistics import select_statistics
from ladcast.verification.statistics.base import Statistic
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
    scope = _scope(match, truth, options)
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

    scores = merge_accumulators(_collect(scope, index, found(index)) for index in range(len(match.init_times)))
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
    scope = _scope(match, truth, options)
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

    return merge_accumulators(_collect(scope, index, found(index)) for index in range(len(match.init_times)))


def _scope(match: Match, truth: xr.Dataset, options: ScoreOptions) -> Scope:
    regions, device = select_regions(options.regions), torch.device(options.device)
    weights = torch.from_numpy(region_weights(regions, match.grid, truth)).to(device)
    return Scope(match, regions, weights, device)


def _collect(scope: Scope, index: int, parts: Iterable[Found]) -> Accumulator:
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


WIDE_BYTES = 2**28
"""Members that are one case on a GPU, at most, unless one lead time is larger."""
Members = Float[Tensor, "lead member channel lat lon"]


@dataclass(frozen=True)
class Block:
    """What came true at some lead times of one start, and what the climatology knows of them, in memory."""

    match: Match
    truth: Float[Tensor, "lead channel lat lon"]
    climate: Mapping[str, Float[Tensor, "*quantile lead channel lat lon"]]

    def to(self, device: torch.device) -> Block:
        """Returns the block on a device."""
        climate = {part: field.to(device) for part, field in self.climate.items()}
        return replace(self, truth=self.truth.to(device), climate=climate)

    def of_leads(self, leads: slice) -> Block:
        """Returns a part of the lead times."""
        match, climate = self.match, {part: field[..., leads, :, :, :] for part, field in self.climate.items()}
        cut = replace(match, lead_times=match.lead_times[leads], truth_index=match.truth_index[:, leads])
        return Block(cut, self.truth[leads], climate)

    def missing(self) -> Bool[Tensor, "lead channel lat lon"]:
        """Returns where the truth is masked; raises ValueError for a hole in it."""
        return torch.cat([require_truth(self.truth[:, chunk.rows], chunk) for chunk in _chunks(self.match)], dim=1)


@dataclass(frozen=True)
class StateScorer:
    """Scores forecasts whose channels are those of the truth, in the order of `Match.channels`.

    Each case is scored as `score` does, with the same bits. `wide` makes all channels and lead times of a block one
    case for the statistics that are always computed, as launches and waiting are what costs on a GPU: sums over cells
    then differ in their last bits (relatively by 1e-14), as they do between devices.
    """

    truth: xr.Dataset
    climatology: Climatology | None
    options: ScoreOptions
    wide: bool = False

    @property
    def channels(self) -> tuple[Channel, ...]:
        """Returns what is scored, in the order of the states."""
        return common_channels(self.truth, self.truth)

    def read(self, start: np.datetime64, lead_times: Shaped[np.ndarray, " lead"], members: int) -> Block:
        """Reads what scores of so many members from `start` need at these lead times; any thread may.

        Raises:
            ValueError: the truth lacks a valid time.
        """
        init_times = np.array([start], "datetime64[ns]")
        index = find_times(self.truth, init_times[:, None] + lead_times, "truth")
        match = Match(self.channels, points_of(self.truth), init_times, lead_times, index, members)
        parts = {statistic.climate for statistic in self._statistics(self.options, members) if statistic.climate}
        truth, climate = list[Tensor](), dict[str, list[Tensor]]()
        for chunk in _chunks(match):
            truth.append(read_truth(self.truth, chunk))
            found = read_climate(self.climatology, parts, chunk)
            if self.climatology is not None and self.climatology.part("std"):
                found["std"] = read_at(self.climatology, "std", chunk)
            for part, field in found.items():
                climate.setdefault(part, []).append(field)
        return Block(match, torch.cat(truth, 1), {part: torch.cat(fields, -3) for part, fields in climate.items()})

    def score(self, members: Members, block: Block, *, plain: bool = False) -> Accumulator:
        """Scores members, on the device of both; `plain`, only by what is always computed.

        Raises:
            ValueError: a member is not finite where the truth is, or is where it is not; or the truth has a hole.
        """
        options = replace(self.options, statistics=None) if plain else self.options
        chosen = self._statistics(options, members.shape[1])
        scope = _scope(replace(block.match, members=members.shape[1]), self.truth, self.options)
        by_quantile = self.climatology is not None and any(s.climate == "quantiles" for s in chosen)
        if by_quantile and self.climatology is not None:
            scope = replace(scope, probabilities=self.climatology.probabilities)
        wide = [s for s in chosen if s.group is None and self.wide]
        narrow = [s for s in chosen if s not in wide]
        scores = _collect(scope, 0, [*_wide(members, block, scope, wide), *_narrow(members, block, scope, narrow)])
        return replace(scores, axes={"quantile": scope.probabilities}) if by_quantile else scores

    def score_climatology(self, block: Block) -> Accumulator:
        """Scores the normal distribution of the climatology, as the function of this name does."""
        assert self.climatology is not None
        held = set(common_channels(self.climatology.part("std"), self.truth))
        rows = [row for row, channel in enumerate(block.match.channels) if channel in held]
        kept = tuple(block.match.channels[row] for row in rows)
        match = replace(block.match, channels=kept, members=math.inf)
        scope = _scope(match, self.truth, self.options)
        climate = {part: block.climate[part][:, rows] for part in ("mean", "std")}
        return _collect(scope, 0, _gaussian(Block(match, block.truth[:, rows], climate), scope, self.wide))

    def _statistics(self, options: ScoreOptions, members: int) -> tuple[Statistic, ...]:
        parts = self.climatology.parts if self.climatology else ()
        return select_statistics(options.statistics, members=members, climatology=parts)


def _chunks(match: Match) -> Iterator[ScoringChunk]:
    return scoring_chunks(match, 0, [slice(0, len(match.lead_times))])


def _narrow(members: Members, block: Block, scope: Scope, chosen: Sequence[Statistic]) -> Iterator[Found]:
    for chunk in _chunks(block.match) if chosen else ():
        climate = {part: field[..., chunk.rows, :, :] for part, field in block.climate.items() if part != "std"}
        made = cases(members[:, :, chunk.rows], block.truth[:, chunk.rows], scope, chunk, climate)
        for lead, case in enumerate(made):
            yield chunk, lead, {s.name: s.reduce(case) for s in chosen}, case.area.total


def _wide(members: Members, block: Block, scope: Scope, chosen: Sequence[Statistic]) -> Iterator[Found]:
    if not chosen:
        return
    missing = block.missing()
    for chunk in _chunks(block.match):
        require_same_mask(members[:, :, chunk.rows], missing[:, chunk.rows], chunk)
    length = max(WIDE_BYTES * len(members) // members.nbytes, 1)
    for first in range(0, len(members), length):
        leads = slice(first, first + length)
        hidden = missing[leads].flatten(0, 1)
        case = Case(
            members=members[leads].transpose(0, 1).flatten(1, 2).masked_fill(hidden, 0),
            truth=block.truth[leads].flatten(0, 1).masked_fill(hidden, 0),
            area=scope.area(~hidden),
            climate={"mean": block.climate["mean"][leads].flatten(0, 1).masked_fill(hidden, 0)}
            if "mean" in block.climate
            else {},
        )
        found = {statistic.name: statistic.reduce(case) for statistic in chosen}
        yield from _by_lead(block, leads, found, case.area.total)


def _gaussian(block: Block, scope: Scope, wide: bool) -> Iterator[Found]:
    missing = block.missing()
    for chunk in _chunks(block.match):
        mean, std = (block.climate[part][:, chunk.rows] for part in ("mean", "std"))
        require_climate(mean + std, missing[:, chunk.rows], chunk)
    fields = [block.climate["mean"], block.climate["std"], block.truth]
    if wide:
        hidden = missing.flatten(0, 1)
        area = scope.area(~hidden)
        sums = gaussian_statistics(*(field.flatten(0, 1).masked_fill(hidden, 0) for field in fields))
        found = {name: area.sum(field) for name, field in sums.items()}
        yield from _by_lead(block, slice(0, len(missing)), found, area.total)
        return
    for chunk in _chunks(block.match):
        for lead in range(len(missing)):
            hidden = missing[lead, chunk.rows]
            area = scope.area(~hidden)
            sums = gaussian_statistics(*(field[lead, chunk.rows].masked_fill(hidden, 0) for field in fields))
            yield chunk, lead, {name: area.sum(field) for name, field in sums.items()}, area.total


def _by_lead(block: Block, leads: slice, sums: Mapping[str, Tensor], total: Tensor) -> Iterator[Found]:
    """Yields sums `region lead*channel ...` of a case of several lead times one lead time after the other."""
    channels = len(block.match.channels)
    everything = ScoringChunk(block.match, 0, "", None, slice(0, channels), leads)
    here = {name: values.cpu().unflatten(1, (-1, channels)) for name, values in sums.items()}
    weight = total.cpu().unflatten(1, (-1, channels))
    for lead in range(weight.shape[1]):
        yield everything, lead, {name: values[:, lead] for name, values in here.items()}, weight[:, lead]
