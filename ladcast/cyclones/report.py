"""What the tracks of one or several systems show: computed once, for the figure and for the lines that people read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import xarray as xr

from ladcast.cyclones.errors import (
    CASE,
    contingency,
    ensemble_mean,
    error_growth,
    homogeneous,
    lead_hours,
    position_errors,
    spread_skill,
)
from ladcast.cyclones.strikes import STRIKE_RADIUS_KM, strike_scores, strike_tables
from ladcast.cyclones.table import after_start, group, rows, same_row
from ladcast.grid import Grid

VERIFIED_GRID = "360x181"
"""Where strikes are counted: points 111 km apart at most, as a strike reaches 120 km."""


@dataclass(frozen=True)
class TrackReport:
    """The tracks of one system beside the best tracks, and what follows from both.

    `errors` are those of the ensemble-mean track; without one where at no observed time half of the members have the
    storm.
    """

    tracks: xr.Dataset
    best: xr.Dataset
    mean: xr.Dataset
    errors: xr.Dataset

    @cached_property
    def growth(self) -> xr.Dataset:
        """Returns the mean error at each lead time, with intervals."""
        return error_growth(self.errors, generator=np.random.default_rng(0))

    @cached_property
    def spread(self) -> xr.Dataset:
        """Returns the spread of the members beside the error of their mean."""
        return spread_skill(self.errors)

    @property
    def is_verified(self) -> bool:
        """Says whether there is any error."""
        return bool(self.errors.sizes["point"])

    @property
    def init_time(self) -> np.datetime64:
        """Returns the first initial time."""
        return np.datetime64(self.tracks["start"].values.min())

    def first_forecast(self) -> TrackReport:
        """Returns the report on the tracks of the first initial time."""
        first = self.init_time
        parts = (rows(table, table["start"].values == first) for table in (self.tracks, self.mean, self.errors))
        tracks, mean, errors = parts
        return self if tracks.sizes == self.tracks.sizes else TrackReport(tracks, self.best, mean, errors)


def verify_tracks(tracks: xr.Dataset, best: xr.Dataset) -> TrackReport:
    """Compares the tracks of observed storms with their best tracks; positions at the initial time have no errors.

    Beside the errors of the mean track, `member_km` is how far its members are from the storm on average.
    """
    mean = ensemble_mean(tracks)
    ahead = after_start(mean)
    seen = same_row(ahead, best, ("storm", "time")) >= 0
    if not seen.any():
        return TrackReport(tracks, best, mean, rows(ahead, seen))
    errors, each = position_errors(ahead, best), position_errors(after_start(tracks), best)
    first, case = group(each, CASE)
    away = np.bincount(case, each["distance_km"].values) / np.bincount(case)
    row = same_row(errors, each.isel(point=first), CASE)
    return TrackReport(tracks, best, mean, errors.assign(member_km=("point", away[row])))


def compare_systems(reports: Mapping[str, TrackReport]) -> dict[str, TrackReport]:
    """Cuts systems to the cases (storm, initial time, valid time) that all of them have: only these are compared."""
    common = homogeneous(*(report.errors for report in reports.values()))
    return {
        name: replace(report, errors=errors) for (name, report), errors in zip(reports.items(), common, strict=True)
    }


def describe_tracks(tracks: xr.Dataset, best: xr.Dataset | None) -> Iterator[str]:
    """Yields lines for people: which rules could judge, how many tracks, and how many of them are observed storms."""
    yield str(tracks.attrs["rules"])
    count = len(set(zip(*(tracks[name].values.tolist() for name in ("storm", "start", "number")), strict=True)))
    yield f"{count} tracks in {tracks.attrs['members']} members, {tracks.sizes['point']} positions"
    if best is not None and tracks.sizes["point"] and "observed" in tracks:
        counts = contingency(tracks, best)
        yield (
            f"observed storms: {int(counts['hits'].sum())} hits, {int(counts['misses'].sum())} misses; "
            f"{int(counts['false_alarms'].sum())} positions of other lows"
        )


def describe_errors(report: TrackReport) -> Iterator[str]:
    """Yields lines for people: errors and spread by lead time, and how good the strike probabilities are."""
    if not report.is_verified:
        yield "no errors: at no observed time do half of the members have the storm"
        return
    growth, spread = report.growth.sel(bound="mean"), report.spread
    alive = {lead: int((lead_hours(report.tracks) == lead).sum()) for lead in growth["lead"].values.tolist()}
    yield f"{'lead (d)':>8}{'alive':>8}{'error of the mean (km)':>25}{'along':>8}{'right':>8}{'spread (km)':>14}"
    for lead in growth["lead"].values[growth["lead"].values % 24 == 0]:
        wide = float(spread["spread_km"].sel(lead=lead)) if lead in spread["lead"] else np.nan
        error, along, cross = (float(growth[name].sel(lead=lead)) for name in ("distance_km", "along_km", "cross_km"))
        yield f"{lead / 24:>8.0f}{alive[lead]:>8}{error:>25.0f}{along:>8.0f}{cross:>8.0f}{wide:>14.0f}"
    yield from describe_strikes(report)
    yield "Central pressures are too high on a coarse grid: they are no measure of intensity."


def describe_strikes(report: TrackReport) -> Iterator[str]:
    """Yields a line on the strike probabilities of storms that live at the initial time, where there are such."""
    tables = strike_tables(report.tracks, report.best, Grid.parse(VERIFIED_GRID))
    if not len(tables):
        return
    scores = strike_scores(tables, generator=np.random.default_rng(0))
    skill, low, high = scores["brier_skill"].values
    interval = "" if np.isnan(low) else f" ({low:.2f} to {high:.2f})"
    value = scores["economic_value"].sel(bound="score")
    brier = float(scores["brier"][0])
    yield (
        f"strikes within {STRIKE_RADIUS_KM:g} km: Brier score {brier:.4f}, "
        f"skill over the base rate {skill:.2f}{interval}, economic value {float(value.max()):.2f} at best"
    )


def describe_comparison(reports: Mapping[str, TrackReport]) -> Iterator[str]:
    """Yields the errors of systems from `compare_systems`, a line a day of lead time."""
    if not all(report.is_verified for report in reports.values()):
        yield "no comparison: the systems have no case (storm, initial time, valid time) in common"
        return
    growth = {name: report.growth.sel(bound="mean") for name, report in reports.items()}
    first = next(iter(growth.values()))
    yield "error of the mean (km) on the same cases:"
    yield f"{'lead (d)':>8}{'cases':>8}" + "".join(f"{name:>18}" for name in reports)
    for lead in first["lead"].values[first["lead"].values % 24 == 0]:
        errors = "".join(f"{float(system['distance_km'].sel(lead=lead)):>18.0f}" for system in growth.values())
        yield f"{lead / 24:>8.0f}{int(first['cases'].sel(lead=lead)):>8}{errors}"
