"""Errors of tracks, alike for every system: which storm a track is, and where it was against where it was forecast."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from jaxtyping import Float, Int

from ladcast.cyclones.points import bearing_deg, distance_km, positions, unit_vectors
from ladcast.cyclones.table import Columns, after_start, group, make_table, rows, same_row, sort_rows, with_members
from ladcast.times import DAY, HOUR, Times
from ladcast.verification.statistics.base import FloatArray, ratio

CASE = ("storm", "start", "time")
"""What makes a case: a storm, the initial time of the forecast and the valid time."""
SAMPLES = 1000
CONFIDENCE = 0.9


def lead_hours(tracks: xr.Dataset) -> Float[np.ndarray, " point"]:
    """Returns the lead time of each row in hours."""
    return np.asarray((tracks["time"].values - tracks["start"].values) / HOUR, dtype=float)


def ensemble_mean(tracks: xr.Dataset, *, least_alive: float = 0.5) -> xr.Dataset:
    """Averages the positions of the members that still have the storm, as unit vectors.

    Cases in which fewer than the share `least_alive` of the ensemble have it are left out. `alive` counts the members
    that have it; `spread_km` is their distance from the mean, sqrt(sum d^2 / (alive - 1)), NaN for one member.
    """
    first, case = group(tracks, CASE)
    vectors = unit_vectors(tracks["latitude"].values, tracks["longitude"].values)
    total = np.stack([np.bincount(case, component, len(first)) for component in vectors.T], axis=-1).astype(float)
    latitude, longitude = positions(total)
    alive = np.bincount(case, minlength=len(first))
    away = distance_km(tracks["latitude"].values, tracks["longitude"].values, latitude[case], longitude[case])
    variance = np.divide(
        np.bincount(case, away**2, len(first)), alive - 1, out=np.full(len(first), np.nan), where=alive > 1
    )
    mean = {name: tracks[name].values[first] for name in CASE} | {"latitude": latitude, "longitude": longitude}
    table = make_table(mean, **tracks.attrs)  # sorted as the groups are
    table = table.assign(alive=("point", alive), spread_km=("point", np.sqrt(variance)))
    return rows(table, alive >= least_alive * with_members(tracks))


def position_errors(tracks: xr.Dataset, best: xr.Dataset) -> xr.Dataset:
    """Adds the errors of each position for which the best track has the storm at that time; drops the others.

    `distance_km` is the great-circle error, `along_km` and `cross_km` its parts along and to the right of the observed
    motion (NaN where the storm stands still), `msl_error` in Pa tells more of the grid than of the forecast.

    Raises:
        ValueError: no position has a best track at its time.
    """
    observed = same_row(tracks, best, ("storm", "time"))
    tracks, observed = rows(tracks, observed >= 0), observed[observed >= 0]
    if not tracks.sizes["point"]:
        raise ValueError("No forecast position has a best-track position of its storm at its time. `identify` first?")
    at = best["latitude"].values[observed], best["longitude"].values[observed]
    there = tracks["latitude"].values, tracks["longitude"].values
    distance = distance_km(*at, *there)
    angle = np.deg2rad(bearing_deg(*at, *there) - observed_motion(best)[observed])
    errors = {"distance_km": distance, "along_km": distance * np.cos(angle), "cross_km": distance * np.sin(angle)}
    if "msl" in tracks and "msl" in best:
        errors["msl_error"] = tracks["msl"].values - best["msl"].values[observed]
    return tracks.assign({name: ("point", values) for name, values in errors.items()})


def observed_motion(best: xr.Dataset) -> Float[np.ndarray, " point"]:
    """Returns the bearing (degrees) in which each storm moved towards each position; that of the next for the first.

    NaN where it did not move.
    """
    lat, lon, storm = best["latitude"].values, best["longitude"].values, best["storm"].values
    before, after = (lat[:-1], lon[:-1]), (lat[1:], lon[1:])
    together = (storm[1:] == storm[:-1]) & (distance_km(*before, *after) > 0)
    bearing = np.full(len(storm), np.nan)
    # on the sphere a storm arrives in another direction than the one in which it left
    leaving, arriving = bearing_deg(*before, *after), (bearing_deg(*after, *before) + 180) % 360
    first = np.concatenate([[True], storm[1:] != storm[:-1]])[:-1]
    bearing[:-1] = np.where(first & together, leaving, np.nan)
    bearing[1:] = np.where(together, arriving, bearing[1:])
    return bearing


def homogeneous(*systems: xr.Dataset) -> list[xr.Dataset]:
    """Keeps the cases (storm, start, time) that all systems have: only these may be compared."""
    return [rows(table, np.all([same_row(table, other, CASE) >= 0 for other in systems], axis=0)) for table in systems]


def error_growth(
    errors: xr.Dataset,
    *,
    generator: np.random.Generator,
    names: Sequence[str] = ("distance_km", "along_km", "cross_km"),
) -> xr.Dataset:
    """Averages columns of a table at each lead time, with intervals from resampling storms.

    `errors` has a row per case, such as `position_errors(ensemble_mean(tracks), best)`.

    Returns:
        each name with dims (bound, lead): mean, lower and upper bound of the central 90 %; and `cases`, `storms`.
    """
    leads, means, count = _resampled(errors, {name: errors[name].values for name in names}, generator)
    growth = {name: (("bound", "lead"), with_bounds(values, len(count))) for name, values in means.items()}
    return xr.Dataset(
        {**growth, "cases": ("lead", count.sum(0)), "storms": ("lead", (count > 0).sum(0))},
        coords={"bound": ["mean", "low", "high"], "lead": ("lead", leads, {"units": "hours"})},
    )


def spread_skill(errors: xr.Dataset, *, generator: np.random.Generator | None = None) -> xr.Dataset:
    """Compares the spread of members with the error of their mean, at each lead time: equal in a calibrated ensemble.

    `errors` comes from `position_errors(ensemble_mean(tracks), best)`. `spread_skill` = sqrt(mean of (M + 1) / M
    spread^2) / sqrt(mean of error^2), M the members that have the storm; `spread_skill_bounds` are the bounds of its
    central 90 % where storms are resampled.
    """
    errors = rows(errors, np.isfinite(errors["spread_km"].values))
    squares = {
        "spread": (1 + 1 / errors["alive"].values) * errors["spread_km"].values ** 2,
        "error": errors["distance_km"].values ** 2,
    }
    leads, means, count = _resampled(errors, squares, generator or np.random.default_rng(0))
    spread, error = np.sqrt(means["spread"]), np.sqrt(means["error"])
    skill, *bounds = with_bounds(ratio(spread, error), len(count))
    columns = {"spread_km": spread[0], "error_km": error[0], "spread_skill": skill, "cases": count.sum(0)}
    found = xr.Dataset({name: ("lead", values) for name, values in columns.items()}, coords={"lead": leads})
    return found.assign(spread_skill_bounds=(("bound", "lead"), np.stack(bounds)))


def _resampled(
    table: xr.Dataset, columns: Columns, generator: np.random.Generator
) -> tuple[FloatArray, dict[str, FloatArray], Int[np.ndarray, "storm lead"]]:
    """Averages columns at each lead time, for all storms and for each draw of storms.

    Returns:
        the lead times; of each column the means (sample, lead), those of all storms first; and the count of cases.
    """
    leads, lead = np.unique(lead_hours(table), return_inverse=True)
    names, storm = np.unique(table["storm"].values.astype("U"), return_inverse=True)
    cell, shape = storm * len(leads) + lead, (len(names), len(leads))

    def by_storm(values: npt.NDArray[Any]) -> FloatArray:
        return np.asarray(np.bincount(cell, values, len(names) * len(leads)), dtype=float).reshape(shape)

    drawn, means = draw_with_all(len(names), generator), {}
    for name, values in columns.items():
        used = by_storm(np.isfinite(values))
        means[name] = ratio(drawn @ by_storm(np.nan_to_num(values)), drawn @ used)
        means[name][1:, (used > 0).sum(0) < 2] = np.nan  # a single storm cannot be resampled
    return leads, means, by_storm(np.ones(len(cell))).astype(int)


def draw_storms(storms: int, generator: np.random.Generator, samples: int = SAMPLES) -> Int[np.ndarray, "sample storm"]:
    """Draws `storms` storms with replacement, `samples` times; returns how often each storm is drawn.

    Positions of one storm err together, so that storms are resampled for intervals, never single times.
    """
    if not storms:
        return np.zeros((samples, 0), dtype=int)
    return generator.multinomial(storms, np.full(storms, 1 / storms), size=samples)


def draw_with_all(storms: int, generator: np.random.Generator) -> Int[np.ndarray, "sample storm"]:
    """Returns each storm once, then the draws: the first sample is what there is."""
    return np.concatenate([np.ones((1, storms), dtype=int), draw_storms(storms, generator)])


def storm_interval(values: Float[np.ndarray, "sample ..."], storms: int) -> Float[np.ndarray, "bound ..."]:
    """Returns the lower and upper bound of the central 90 %; NaN for a single storm, which cannot be resampled."""
    if storms < 2:
        return np.full((2, *values.shape[1:]), np.nan)
    tail = (1 - CONFIDENCE) / 2
    with warnings.catch_warnings():  # what no draw has, has no bounds
        warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)
        return np.asarray(np.nanquantile(values, [tail, 1 - tail], axis=0))


def with_bounds(values: Float[np.ndarray, "sample ..."], storms: int) -> Float[np.ndarray, "bound ..."]:
    """Returns the value of all storms, which is the first, and the bounds over the draws, which are the others."""
    return np.concatenate([values[:1], storm_interval(values[1:], storms)])


RANGE_KM = 300.0
LEAST_TIMES = 2
REUNION = DAY
TRACK = ("storm", "start", "number")


def identify(tracks: xr.Dataset, best: xr.Dataset, *, least_times: int = LEAST_TIMES) -> xr.Dataset:
    """Renames each track to the observed storm that is nearest to its first `least_times` common positions.

    Only the first common positions count, so that a forecast which goes astray later still is that storm's forecast.
    Of several tracks of a member that are near the same storm the nearest is it, among those that meet it within
    `REUNION` of the first: a low that passes by later is another one, and so for several storms of a track. The others,
    tracks further than `RANGE_KM` away on average, and those with fewer common times keep their names, but for the name
    of a storm that they are not: they are false alarms. A column `observed` says which are identified.
    """
    first, track = group(tracks, TRACK)
    known, storm = np.unique(best["storm"].values.astype("U"), return_inverse=True)
    row, seen = _simultaneous(tracks, best)
    # a number for each pair of a track and a storm: those that have a time in common are measured at once
    pair = track[row] * len(known) + storm[seen]
    order = np.lexsort([tracks["time"].values[row], pair])
    row, seen, pair = row[order], seen[order], pair[order]
    early = np.arange(len(pair)) - np.searchsorted(pair, pair) < least_times
    there, here = ((table["latitude"].values, table["longitude"].values) for table in (best, tracks))
    away = distance_km(*(axis[seen] for axis in there), *(axis[row] for axis in here))
    met, begin, index, count = np.unique(pair[early], return_index=True, return_inverse=True, return_counts=True)
    mean, since = np.bincount(index, away[early], len(met)) / count, tracks["time"].values[row][early][begin]
    near = np.flatnonzero((count >= least_times) & (mean <= RANGE_KM))
    _, member = group(tracks.isel(point=first), ("start", "number"))
    # a track is one storm at most, and a storm one track of each member
    for key in (met // len(known), member[met // len(known)] * len(known) + met % len(known)):
        near = near[_nearest_of_first(key[near], mean[near], since[near])]
    names = tracks["storm"].values[first].astype("U").astype(object)
    taken = np.isin(names.astype("U"), known)  # lows of forecasts and those of analyses are numbered alike
    names[taken] = [f"other-{name}" for name in names[taken]]
    names[met[near] // len(known)] = known[met[near] % len(known)]
    found = np.isin(np.arange(len(first)), met[near] // len(known))
    return sort_rows(tracks.assign(storm=("point", names[track]), observed=("point", found[track])))


def observed_cases(best: xr.Dataset, starts: Times, leads: npt.ArrayLike) -> xr.Dataset:
    """Returns the positions of observed storms at these lead times (hours) of forecasts from these initial times."""
    ahead = best["time"].values - starts[:, None]
    row, case = np.nonzero(np.isin(ahead, (np.asarray(leads) * HOUR).astype("timedelta64[ns]")))
    return sort_rows(best.isel(point=case).assign(start=("point", starts[row])))


def contingency(tracks: xr.Dataset, best: xr.Dataset) -> xr.Dataset:
    """Counts hits, misses and false alarms at each lead time after 0, over starts and members.

    `tracks` come from `identify`. A hit is a member that has the storm at a time at which it is observed, a miss one
    that has not; a false alarm is a position of a track that is no observed storm's. There are no correct negatives:
    storms that neither exist nor are forecast cannot be counted.
    """
    tracks = after_start(tracks)
    leads, lead = np.unique(lead_hours(tracks), return_inverse=True)
    cases = observed_cases(best, np.unique(tracks["start"].values), leads)
    of_case = np.searchsorted(leads, lead_hours(cases))
    there = np.bincount(of_case, minlength=len(leads)) * with_members(tracks)
    hits = np.bincount(of_case, members_that_have(tracks, cases), len(leads)).astype(int)
    false = np.bincount(lead[~tracks["observed"].values], minlength=len(leads))
    counts = {"hits": hits, "misses": there - hits, "false_alarms": false}
    rates = {"hit_rate": ratio(hits, there), "false_alarm_ratio": ratio(false, hits + false)}
    return xr.Dataset({name: ("lead", values) for name, values in (counts | rates).items()}, coords={"lead": leads})


def members_that_have(tracks: xr.Dataset, cases: xr.Dataset) -> Int[np.ndarray, " point"]:
    """Counts the members that have the storm of each case, by `tracks` from `identify`."""
    tracks = rows(tracks, tracks["observed"].values)
    once = tracks.isel(point=group(tracks, (*CASE, "number"))[0])
    first, case = group(once, CASE)
    row = same_row(cases, once.isel(point=first), CASE)
    return np.where(row >= 0, np.append(np.bincount(case), 0)[row], 0)


def _simultaneous(tracks: xr.Dataset, best: xr.Dataset) -> tuple[Int[np.ndarray, " pair"], Int[np.ndarray, " pair"]]:
    """Returns every pair of a row of `tracks` and a row of `best` at the same time."""
    order = np.argsort(best["time"].values, kind="stable")
    times = best["time"].values[order]
    begin, end = (np.searchsorted(times, tracks["time"].values, side=side) for side in ("left", "right"))
    row = np.repeat(np.arange(len(begin)), end - begin)
    place = np.arange(len(row)) - np.repeat(np.cumsum(end - begin) - (end - begin), end - begin)
    return row, order[begin[row] + place]


def _nearest_of_first(
    key: Int[np.ndarray, " pair"], away: Float[np.ndarray, " pair"], since: Times
) -> Int[np.ndarray, " key"]:
    """Returns the index of the nearest pair of each key, among those that meet within `REUNION` of its first."""
    _, key = np.unique(key, return_inverse=True)
    order = np.lexsort([since, key])
    earliest = since[order[np.searchsorted(key[order], key)]]
    soon = np.flatnonzero(since - earliest <= REUNION)
    nearest = soon[np.lexsort([away[soon], key[soon]])]
    return nearest[np.unique(key[nearest], return_index=True)[1]]
