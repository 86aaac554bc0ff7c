"""Errors of tracks, alike for every system: which storm a track is, and where it was against where it was forecast."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import xarray as xr
from jaxtyping import Bool, Float, Int

from ladcast.cyclones.points import bearing_deg, distance_km, positions, unit_vectors
from ladcast.cyclones.table import after_start, group, make_table, rows, same_row, sort_rows, with_members
from ladcast.times import HOUR
from ladcast.verification.statistics.base import ratio

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
    total = np.stack([np.bincount(case, component, len(first)) for component in vectors.T], axis=-1)
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
    """Averages errors at each lead time, with intervals from resampling storms.

    `errors` has a row per case, such as `position_errors(ensemble_mean(tracks), best)`.

    Returns:
        each name with dims (bound, lead): mean, lower and upper bound of the central 90 %; and `cases`, `storms`.
    """
    leads, lead = np.unique(lead_hours(errors), return_inverse=True)
    names_of, storm = np.unique(errors["storm"].values.astype("U"), return_inverse=True)
    cell, shape = storm * len(leads) + lead, (len(names_of), len(leads))
    count = np.bincount(cell, minlength=np.prod(shape)).reshape(shape)
    drawn = draw_storms(len(names_of), generator)
    growth: dict[str, tuple[tuple[str, ...], npt.NDArray[np.float64]]] = {}
    for name in names:
        values = errors[name].values
        valid = np.isfinite(values)
        total = np.bincount(cell[valid], values[valid], np.prod(shape)).reshape(shape)
        used = np.bincount(cell[valid], minlength=np.prod(shape)).reshape(shape)
        bounds = storm_interval(ratio(drawn @ total, drawn @ used), len(names_of))
        growth[name] = ("bound", "lead"), np.concatenate([ratio(total.sum(0), used.sum(0))[None], bounds])
    return xr.Dataset(
        {**growth, "cases": ("lead", count.sum(0)), "storms": ("lead", (count > 0).sum(0))},
        coords={"bound": ["mean", "low", "high"], "lead": ("lead", leads, {"units": "hours"})},
    )


def spread_skill(errors: xr.Dataset) -> xr.Dataset:
    """Compares the spread of members with the error of their mean, at each lead time: equal in a calibrated ensemble.

    `errors` comes from `position_errors(ensemble_mean(tracks), best)`. `spread_skill` = sqrt(mean of (M + 1) / M
    spread^2) / sqrt(mean of error^2), M the members that have the storm.
    """
    errors = rows(errors, np.isfinite(errors["spread_km"].values))
    leads, lead = np.unique(lead_hours(errors), return_inverse=True)
    count = np.bincount(lead, minlength=len(leads))
    corrected = (1 + 1 / errors["alive"].values) * errors["spread_km"].values ** 2
    spread = np.sqrt(ratio(np.bincount(lead, corrected, len(leads)), count))
    error = np.sqrt(ratio(np.bincount(lead, errors["distance_km"].values ** 2, len(leads)), count))
    columns = {"spread_km": spread, "error_km": error, "spread_skill": ratio(spread, error), "cases": count}
    return xr.Dataset({name: ("lead", values) for name, values in columns.items()}, coords={"lead": leads})


def draw_storms(storms: int, generator: np.random.Generator, samples: int = SAMPLES) -> Int[np.ndarray, "sample storm"]:
    """Draws `storms` storms with replacement, `samples` times; returns how often each storm is drawn.

    Positions of one storm err together, so that storms are resampled for intervals, never single times.
    """
    return generator.multinomial(storms, np.full(storms, 1 / storms), size=samples)


def storm_interval(values: Float[np.ndarray, "sample ..."], storms: int) -> Float[np.ndarray, "bound ..."]:
    """Returns the lower and upper bound of the central 90 %; NaN for a single storm, which cannot be resampled."""
    if storms < 2:
        return np.full((2, *values.shape[1:]), np.nan)
    tail = (1 - CONFIDENCE) / 2
    return np.asarray(np.nanquantile(values, [tail, 1 - tail], axis=0))


RANGE_KM = 300.0
LEAST_TIMES = 2
TRACK = ("storm", "start", "number")


def identify(tracks: xr.Dataset, best: xr.Dataset, *, least_times: int = LEAST_TIMES) -> xr.Dataset:
    """Renames each track to the observed storm that is nearest to its first `least_times` common positions.

    Only the first common positions count, so that a forecast which goes astray later still is that storm's forecast.
    Of several tracks of a member that are near the same storm the nearest is it. The others, tracks further than
    `RANGE_KM` away on average, and those with fewer common times keep their names: they are false alarms. A column
    `observed` says which are identified.
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
    met, index, count = np.unique(pair[early], return_inverse=True, return_counts=True)
    mean = np.where(count >= least_times, np.bincount(index, away[early], len(met)) / count, np.inf)
    nearest, distance = np.zeros(len(first), dtype=int), np.full(len(first), np.inf)
    farthest_first = np.lexsort([-met, -mean])  # of several assignments to one track the last holds
    nearest[met[farthest_first] // len(known)] = met[farthest_first] % len(known)
    distance[met[farthest_first] // len(known)] = mean[farthest_first]
    found = _nearest_of_each(tracks.isel(point=first), nearest, distance) & (distance <= RANGE_KM)
    names = np.where(found[track], known[nearest[track]], tracks["storm"].values.astype("U")).astype(object)
    return sort_rows(tracks.assign(storm=("point", names), observed=("point", found[track])))


def contingency(tracks: xr.Dataset, best: xr.Dataset) -> xr.Dataset:
    """Counts hits, misses and false alarms at each lead time after 0, over starts and members.

    `tracks` come from `identify`. A hit is a member that has the storm at a time at which it is observed, a miss one
    that has not; a false alarm is a position of a track that is no observed storm's. There are no correct negatives:
    storms that neither exist nor are forecast cannot be counted.
    """
    tracks = after_start(tracks)
    leads, lead = np.unique(lead_hours(tracks), return_inverse=True)
    observed, members = tracks["observed"].values, with_members(tracks)
    verified = np.flatnonzero(observed & (same_row(tracks, best, ("storm", "time")) >= 0))
    once, _ = group(tracks.isel(point=verified), ("storm", "start", "number", "time"))
    hits = np.bincount(lead[verified[once]], minlength=len(leads))
    false = np.bincount(lead[~observed], minlength=len(leads))
    times = np.unique(tracks["start"].values)[:, None] + (leads * HOUR).astype("timedelta64[ns]")
    there = np.array([np.isin(best["time"].values, column).sum() for column in times.T]) * members
    counts = {"hits": hits, "misses": there - hits, "false_alarms": false}
    rates = {"hit_rate": ratio(hits, there), "false_alarm_ratio": ratio(false, hits + false)}
    return xr.Dataset({name: ("lead", values) for name, values in (counts | rates).items()}, coords={"lead": leads})


def _simultaneous(tracks: xr.Dataset, best: xr.Dataset) -> tuple[Int[np.ndarray, " pair"], Int[np.ndarray, " pair"]]:
    """Returns every pair of a row of `tracks` and a row of `best` at the same time."""
    order = np.argsort(best["time"].values, kind="stable")
    times = best["time"].values[order]
    begin, end = (np.searchsorted(times, tracks["time"].values, side=side) for side in ("left", "right"))
    row = np.repeat(np.arange(len(begin)), end - begin)
    place = np.arange(len(row)) - np.repeat(np.cumsum(end - begin) - (end - begin), end - begin)
    return row, order[begin[row] + place]


def _nearest_of_each(
    tracks: xr.Dataset, storm: Int[np.ndarray, " track"], distance: Float[np.ndarray, " track"]
) -> Bool[np.ndarray, " track"]:
    """Says which track is the nearest to its storm among those of the same start and member."""
    _, member = group(tracks, ("start", "number"))
    key = member * (storm.max(initial=0) + 1) + storm
    order = np.lexsort([distance, key])
    nearest = np.zeros(len(key), dtype=bool)
    nearest[order[np.unique(key[order], return_index=True)[1]]] = True
    return nearest
