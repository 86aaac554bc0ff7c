"""A season of cyclones: what several systems are worth on the same initial times, storms, valid and lead times.

Storms that live at the initial time are one sample, those that form later (genesis) another. A case is a storm, an
initial time and a valid time at which the storm is observed. Intervals come from resampling storms, the same for all
systems, so that differences are paired.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import reduce
from pathlib import Path

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float

from ladcast.cf import CONVENTIONS
from ladcast.cyclones.errors import (
    CASE,
    CONFIDENCE,
    TRACK,
    error_growth,
    identify,
    lead_hours,
    members_that_have,
    observed_cases,
    spread_skill,
)
from ladcast.cyclones.report import VERIFIED_GRID, TrackReport, compare_systems, verify_tracks
from ladcast.cyclones.stitching import Stitching
from ladcast.cyclones.strikes import STRIKE_RADIUS_KM, brier_difference, strike_scores, strike_tables
from ladcast.cyclones.table import after_start, group, rows, same_row, sort_rows, storms, with_members
from ladcast.cyclones.tracker import ALL_LOWS, STITCHING, lead_text, live_long, stated_leads
from ladcast.files import whole_file
from ladcast.grid import Grid
from ladcast.run import version_of
from ladcast.times import HOUR, Times, describe
from ladcast.verification.statistics.base import ratio
from ladcast.verification.table import count_of

BOUNDS = ("score", "low", "high")
WINDOWS_HOURS = (48, 120, 240)
"""Strikes are verified within these hours of the initial time, and within the whole forecast."""
GRID = Grid.parse(VERIFIED_GRID)
ABOUT: dict[str, tuple[str, str]] = {
    "distance_km": ("distance of the mean track from the storm", "km"),
    "member_km": ("mean distance of the members from the storm", "km"),
    "along_km": ("error of the mean track along the storm's motion", "km"),
    "cross_km": ("error of the mean track to the right of the storm's motion", "km"),
    "along_size_km": ("mean absolute error along the storm's motion", "km"),
    "cross_size_km": ("mean absolute error across the storm's motion", "km"),
    "spread_km": ("root mean square distance of the members from their mean track", "km"),
    "spread_skill": ("spread of the members over the root mean square error of their mean track", "1"),
    "hit_rate": ("share of the members that have a storm which lives at the initial time", "1"),
    "genesis_hit_rate": ("share of the members that have a storm which forms after the initial time", "1"),
    "other_lows": ("lows of a member that are no observed storm: false alarms", "1"),
    "brier": (f"Brier score of strikes within {STRIKE_RADIUS_KM:g} km", "1"),
    "fair_brier": ("Brier score without what the number of members adds by chance", "1"),
    "brier_skill": ("skill of the Brier score over the climatological frequency, that of the sample", "1"),
    "reliability": ("reliability part of the Brier score", "1"),
    "base_rate": ("climatological frequency of strikes, that of the sample", "1"),
    "economic_value": ("share of a perfect forecast's savings, 0 is the climatological frequency's", "1"),
    "observed_frequency": ("frequency of strikes for each forecast probability", "1"),
    "forecast_probability": ("mean of the forecast probabilities that are rounded so", "1"),
    "area": ("share of the area with this forecast probability", "1"),
    "cases": ("cases (storm, initial time, valid time) with position errors in all systems", "1"),
    "storms": ("storms of these cases", "1"),
    "hit_cases": ("cases of storms that live at the initial time", "1"),
    "genesis_cases": ("cases of storms that form after the initial time", "1"),
    "lead": ("lead time", "hours"),
    "window": ("strikes are verified until this lead time", "hours"),
    "members": ("ensemble members", "1"),
    "probability": ("forecast probability, rounded", "1"),
    "cost_loss": ("cost of acting over the loss that acting avoids", "1"),
    "bound": ("score, and bounds of its central 90 % where storms are resampled", ""),
}
"""Long name and units of what `season_scores` returns; NAME_difference is that of a system less that of the first."""
COMPARED = ("distance_km", "member_km")
ERRORS = (*COMPARED, "along_km", "cross_km", "along_size_km", "cross_size_km")


def storms_of(analyses: xr.Dataset) -> xr.Dataset:
    """Returns the tracks of all lows in a series of analyses as the storms that forecasts are verified against.

    Raises:
        ValueError: they are tracks of an ensemble, or there are none.
    """
    if not analyses.sizes["point"]:
        raise ValueError(
            "Expected storms in the truth, got no track of a low. Ask for less, such as --set detection.depth_pa=100 "
            "stitching.life_hours=24."
        )
    if with_members(analyses) != 1 or len(np.unique(analyses["start"].values)) > 1:
        raise ValueError(
            f"Expected the tracks of analyses as truth, got those of a forecast of {with_members(analyses)} members "
            f"from {describe(np.unique(analyses['start'].values), limit=2)}. Name states or their tracks."
        )
    return sort_rows(analyses.drop_vars(["start", "number"]))


def join_starts(tables: Sequence[xr.Dataset], name: str) -> xr.Dataset:
    """Joins the tracks of one system from different initial times.

    Raises:
        ValueError: two are from one initial time, or their ensembles differ in size.
    """
    starts = [start for table in tables for start in init_times(table)]
    if len(set(starts)) < len(starts) or len({with_members(table) for table in tables}) != 1:
        sizes = sorted({with_members(table) for table in tables})
        raise ValueError(
            f"{name}: expected forecasts from different initial times by ensembles of one size, got "
            f"{describe(np.array(starts), limit=3)} and {sizes} members. Name each initial time once."
        )
    joined = sort_rows(xr.concat(tables, "point", join="override", combine_attrs="override"))
    stated = np.sort(np.array(starts, dtype="datetime64[ns]"))  # of no initial time where old tracks have no low
    leads = reduce(np.intersect1d, map(stated_leads, tables))
    return joined.assign_attrs(starts=" ".join(np.datetime_as_string(stated, "m")), leads=lead_text(leads))


def init_times(tracks: xr.Dataset) -> Times:
    """Returns the initial times of forecasts, also of those that have no low."""
    if stated := str(tracks.attrs.get("starts", "")).split():
        return np.unique(np.array(stated, dtype="datetime64[ns]"))
    return np.unique(tracks["start"].values)


def season_scores(
    systems: Mapping[str, xr.Dataset], best: xr.Dataset, rules: Stitching = STITCHING, *, genesis: bool = False
) -> xr.Dataset:
    """Scores the tracks of systems against the storms of a season, on what all of them have.

    Position errors are those of storms that live at the initial time, with `genesis` of all storms, where half of the
    members of every system have them; hit rates are of all cases.

    Returns:
        `ABOUT` by system, bound, and lead time, or window of strikes.

    Raises:
        ValueError: the systems have no initial time, lead time or case in common.
    """
    starts, leads = _in_common(systems, best)
    until, best = best["time"].values.max(), _while_forecast(best, starts, leads)
    cut = {name: _cut(tracks, starts, leads, until) for name, tracks in systems.items()}
    step_hours = float(np.diff(leads, prepend=0).min())
    # each initial time for itself: the pairs of forecast and observed lows at one time are many
    found = {
        name: xr.concat(
            [_recognise(rows(some, some["start"].values == start), best, rules, step_hours) for start in starts],
            "point",
        )
        for name, some in cut.items()
    }
    cases, at_start = (_asked(observed_cases(best, starts, some), found.values()) for some in (leads, np.zeros(1)))
    known = same_row(cases, at_start, ("storm", "start")) >= 0
    reports = _verify(found, cases if genesis else rows(cases, known), best)
    first = next(iter(systems))
    windows = [hours for hours in WINDOWS_HOURS if hours < leads.max()] + [int(leads.max())]
    tables = {
        name: [strike_tables(tracks, best, GRID, cases=at_start, within_hours=hours) for hours in windows]
        for name, tracks in found.items()
    }
    parts = []
    for name, tracks in found.items():
        pair = reports[name].errors, reports[first].errors
        hits = [members_that_have(some, cases) / with_members(some) for some in (tracks, found[first])]
        strikes = [_strikes(*some) for some in zip(tables[name], tables[first], strict=True)]
        by_lead = [_position_scores(*pair), *_hit_rates(cases, known, hits), _other_lows(tracks, starts, leads, until)]
        parts.append(xr.merge([*by_lead, xr.concat(strikes, xr.Variable("window", windows))], join="outer"))
    scores = xr.concat(parts, xr.Variable("system", list(found)), join="outer")
    scores = scores.assign_coords(members=("system", [with_members(tracks) for tracks in found.values()]))
    for shared in ("cases", "storms", "hit_cases", "genesis_cases"):
        scores[shared] = scores[shared].isel(system=0).fillna(0).astype(int)
    return _described(scores).assign_attrs(
        initial_times=" ".join(describe(start) for start in starts),
        season_storms=len(storms(best)),
        storms_at_initial_times=len(storms(at_start)),
        genesis="included in position errors" if genesis else "left out of position errors",
    )


def _in_common(systems: Mapping[str, xr.Dataset], best: xr.Dataset) -> tuple[Times, Float[np.ndarray, " lead"]]:
    """Returns the initial times within the season, and the lead times after 0 h, that all systems have."""
    if without := [name for name, tracks in systems.items() if not after_start(tracks).sizes["point"]]:
        raise ValueError(
            f"{', '.join(without)}: expected lows after the initial times, got none in any forecast, so that there is "
            "no storm to compare. Leave it out, or ask for less, such as --set detection.depth_pa=100."
        )
    starts: Times = reduce(np.intersect1d, map(init_times, systems.values()))
    starts = starts[(starts >= best["time"].values.min()) & (starts < best["time"].values.max())]
    leads = reduce(np.intersect1d, map(_lead_times, systems.values()))
    if not (starts.size and leads.size):
        held = "; ".join(f"{name} has {describe(init_times(some), limit=4)}" for name, some in systems.items())
        season = describe(best["time"].values[[best["time"].values.argmin(), best["time"].values.argmax()]])
        raise ValueError(
            f"Expected initial times and lead times that all systems have, within the storms' season ({season}), got "
            f"none: {held}. Compare forecasts of the same dates."
        )
    return starts, leads


def _lead_times(tracks: xr.Dataset) -> Float[np.ndarray, " lead"]:
    """Returns the lead times after 0 h: those stated, as a system may have lost all; of old tracks those of rows."""
    leads = stated_leads(tracks)
    return leads[leads > 0] if leads.size else np.unique(lead_hours(after_start(tracks)))


def season_storms(scores: xr.Dataset, best: xr.Dataset) -> xr.Dataset:
    """Returns the storms that scores are of: their positions while a forecast runs."""
    starts = np.array(str(scores.attrs["initial_times"]).split(), dtype="datetime64[ns]")
    return _while_forecast(best, starts, scores["lead"].values)


def _while_forecast(best: xr.Dataset, starts: Times, leads: Float[np.ndarray, " lead"]) -> xr.Dataset:
    """Returns the positions at times that a forecast from one of these initial times reaches."""
    times, starts = best["time"].values, np.sort(starts)
    since = times - starts[np.searchsorted(starts, times, "right").clip(1) - 1]
    return rows(best, (since >= 0 * HOUR) & (since <= leads.max() * HOUR))


def _cut(tracks: xr.Dataset, starts: Times, leads: Float[np.ndarray, " lead"], until: np.datetime64) -> xr.Dataset:
    """Returns what a system has from these initial times at these lead times, while storms are known."""
    known = tracks["time"].values <= until
    return rows(tracks, known & np.isin(tracks["start"].values, starts) & np.isin(lead_hours(tracks), [0, *leads]))


def _recognise(tracks: xr.Dataset, best: xr.Dataset, rules: Stitching, step_hours: float) -> xr.Dataset:
    """Names the observed storms. Left out are short tracks of other lows, and storms that a member found again.

    A track of an observed storm may be short, as a forecast may begin or end in its life: the storm itself is not. A
    member that has not got a storm of the initial time within `rules.gap_hours` has lost it.

    Lead times are `step_hours` apart.
    """
    tracks = identify(tracks, best)
    first, track = group(tracks, TRACK)
    begun = (tracks["time"].values - tracks["start"].values)[first][track]
    at_start = same_row(tracks.assign(time=tracks["start"]), best, ("storm", "time")) >= 0
    found_again = tracks["observed"].values & at_start & (begun > rules.gap_hours * HOUR)
    kept = np.where(tracks["observed"].values, ~found_again, live_long(tracks, step_hours, rules))
    return rows(tracks, kept)


def _asked(cases: xr.Dataset, systems: Iterable[xr.Dataset]) -> xr.Dataset:
    """Returns the cases of storms that all systems look for: all where all lows are tracked, else those it has."""
    for tracks in systems:
        if tracks.attrs.get("tracked") != ALL_LOWS:
            cases = rows(cases, same_row(cases, tracks, ("storm", "start")) >= 0)
    return cases


def _verify(found: Mapping[str, xr.Dataset], sample: xr.Dataset, best: xr.Dataset) -> dict[str, TrackReport]:
    """Returns the reports of all systems on the cases of a sample that all of them have."""
    of_sample = {name: rows(some, same_row(some, sample, CASE) >= 0) for name, some in found.items()}
    reports = compare_systems({name: verify_tracks(some, best) for name, some in of_sample.items()})
    if not all(report.is_verified for report in reports.values()):
        held = ", ".join(f"{name} {len(storms(some))} storms" for name, some in of_sample.items())
        raise ValueError(
            "Expected a storm that half of the members of every system have when it is observed after an initial time, "
            f"got none: {held}. Name more forecasts, --genesis, or rules of detection that find its lows."
        )
    return reports


def _generator() -> np.random.Generator:
    """Returns the same draws for every system and score."""
    return np.random.default_rng(0)


def _position_scores(errors: xr.Dataset, reference: xr.Dataset) -> xr.Dataset:
    """Averages the errors of one system, and their differences from those of another on the same cases."""
    columns = {f"{name}_size_km": abs(errors[f"{name}_km"]) for name in ("along", "cross")}
    columns |= {f"{name}_difference": errors[name] - reference[name].values for name in COMPARED}
    names = [*ERRORS, *(f"{name}_difference" for name in COMPARED)]
    growth = error_growth(errors.assign(columns), generator=_generator(), names=names).assign_coords(bound=list(BOUNDS))
    spread = spread_skill(errors, generator=_generator())
    ratios = xr.concat([spread["spread_skill"].expand_dims("bound"), spread["spread_skill_bounds"]], "bound")
    return growth.merge({"spread_km": spread["spread_km"], "spread_skill": ratios.assign_coords(bound=list(BOUNDS))})


def _hit_rates(
    cases: xr.Dataset, known: Bool[np.ndarray, " point"], hits: Sequence[Float[np.ndarray, " point"]]
) -> Iterator[xr.Dataset]:
    """Yields how many members have the storms of the initial time, and those that form later; also less another's."""
    for prefix, chosen in (("", known), ("genesis_", ~known)):
        name, counted = f"{prefix}hit_rate", f"{prefix or 'hit_'}cases"
        columns = {name: ("point", hits[0]), f"{name}_difference": ("point", hits[0] - hits[1])}
        rates = error_growth(rows(cases.assign(columns), chosen), generator=_generator(), names=list(columns))
        yield rates.drop_vars("storms").rename(cases=counted).assign_coords(bound=list(BOUNDS))


def _other_lows(
    tracks: xr.Dataset, starts: Times, leads: Float[np.ndarray, " lead"], until: np.datetime64
) -> xr.Dataset:
    """Counts the lows of a member that are no observed storm, at each lead time: false alarms."""
    others = rows(tracks, ~tracks["observed"].values)
    known = (starts[:, None] + (leads * HOUR).astype("timedelta64[ns]") <= until).sum(0)
    count = (lead_hours(others)[:, None] == leads).sum(0)
    return xr.Dataset({"other_lows": ("lead", ratio(count, known * with_members(tracks)))}, coords={"lead": leads})


def _strikes(
    tables: Float[np.ndarray, "storm event count"], reference: Float[np.ndarray, "storm event n"]
) -> xr.Dataset:
    """Scores the strikes within one window, also less the Brier scores of another system."""
    less = {
        name: ("bound", brier_difference(tables, reference, generator=_generator(), fair=fair))
        for name, fair in (("brier_difference", False), ("fair_brier_difference", True))
    }
    return strike_scores(tables, generator=_generator()).assign(less)


def _described(scores: xr.Dataset) -> xr.Dataset:
    for name, field in scores.variables.items():
        base = str(name).removesuffix("_difference")
        if base in ABOUT:
            text, units = ABOUT[base]
            field.attrs = {"long_name": text if base == name else f"{text}, less that of the first system"}
            field.attrs |= {"units": units} if units else {}
    scores["lead"].attrs["standard_name"] = "forecast_period"
    return scores


def write_season(scores: xr.Dataset, path: Path) -> Path:
    """Writes scores to a netCDF file with CF attributes, replacing an older one when it is whole."""
    about = {
        "Conventions": CONVENTIONS,
        "title": "scores of cyclones",
        "history": f"written by {version_of('ladcast')}",
    }
    with whole_file(path) as temporary:
        scores.assign_attrs(about).to_netcdf(temporary, engine="netcdf4")
    return path


SHOWN = {
    "members": ("member_km", 0),
    "along": ("along_km", 0),
    "right": ("cross_km", 0),
    "spread/error": ("spread_skill", 2),
    "hits": ("hit_rate", 2),
    "of genesis": ("genesis_hit_rate", 2),
    "other lows": ("other_lows", 2),
}
"""Titles of columns, with what they show and its decimals."""


def describe_season(scores: xr.Dataset) -> Iterator[str]:
    """Yields lines for people: the sample, errors and hits by day of lead time, worth of strike probabilities."""
    starts = np.array(str(scores.attrs["initial_times"]).split(), dtype="datetime64[ns]")
    yield (
        f"{count_of(len(starts), 'initial time')}, {describe(starts, limit=1)}; "
        f"{count_of(scores.attrs['season_storms'], 'storm')}, {scores.attrs['storms_at_initial_times']} of them at "
        f"initial times; genesis {scores.attrs['genesis']}"
    )
    yield f"() central {CONFIDENCE:.0%} where storms are resampled, the same ones for every system"
    first, *_ = names = [str(name) for name in scores["system"].values]
    days = [lead for lead in scores["lead"].values.tolist() if lead % 24 == 0]
    for name in names:
        system = scores.sel(system=name)
        titles = "".join(f"{title:>{len(title) + 3}}" for title in SHOWN)
        less = "" if name == first else f"less {first}"
        yield f"{name}, {int(system['members'])} members"
        yield f"{'lead (d)':>8}{'cases':>7}{'storms':>8}{'error of the mean (km)':>24}{titles}{less:>24}".rstrip()
        for lead in days:
            at = system.sel(lead=lead)
            values = (at[what] if what == "other_lows" else at[what].sel(bound="score") for what, _ in SHOWN.values())
            shown = zip(SHOWN.items(), values, strict=True)
            cells = "".join(f"{_number(value, digits):>{len(title) + 3}}" for (title, (_, digits)), value in shown)
            less = "" if name == first else _bounded(at["distance_km_difference"], "+.0f")
            error = _bounded(at["distance_km"], ".0f")
            sample = f"{lead / 24:>8.0f}{at['cases'].item():>7}{at['storms'].item():>8}"
            yield f"{sample}{error:>24}{cells}{less:>24}".rstrip()
    yield f"strikes within {STRIKE_RADIUS_KM:g} km and so many days of the initial time"
    # what members add by chance to the Brier score would decide between ensembles of unlike size
    brier, title = ("brier", "Brier") if (scores["members"] < 2).any() else ("fair_brier", "fair Brier")
    yield f"{'days':>8}{title:>12}{'skill over the base rate':>27}{'reliability':>13}{'value':>7}{'at cost/loss':>14}"
    for window in scores["window"].values.tolist():
        for name in names:
            at = scores.sel(system=name, window=window)
            score = at.sel(bound="score")
            value, skill = score["economic_value"], _bounded(at["brier_skill"], ".2f")
            cost = _number(value["cost_loss"][np.argmax(value.fillna(-1).values)], 2)
            mean, reliability = (_number(score[what], 5) for what in (brier, "reliability"))
            worth = f"{_number(value.max(), 2):>7}{cost:>14}  {name}"
            less = "" if name == first else f", {title} less {first} {_bounded(at[f'{brier}_difference'], '+.5f')}"
            yield f"{window / 24:>8.4g}{mean:>12}{skill:>27}{reliability:>13}{worth}{less}"


def _number(value: xr.DataArray, digits: int) -> str:
    return f"{float(value):.{digits}f}" if np.isfinite(value) else "-"


def _bounded(values: xr.DataArray, form: str) -> str:
    score, low, high = (f"{value:{form}}" for value in values.sel(bound=list(BOUNDS)).values)
    return f"{score} ({low} to {high})" if np.isfinite(values).all() else score.replace("nan", "-")
