"""Which tracks of a forecast are which observed storms: hits, misses and false alarms."""

from __future__ import annotations

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int

from ladcast.cyclones.errors import lead_hours
from ladcast.cyclones.geometry import distance_km
from ladcast.cyclones.table import group, same_row, sort_rows, with_members
from ladcast.times import HOUR
from ladcast.verification.statistics.base import ratio

RANGE_KM = 300.0
LEAST_TIMES = 2
TRACK = ("storm", "start", "number")


def identify(
    tracks: xr.Dataset, best: xr.Dataset, *, range_km: float = RANGE_KM, least_times: int = LEAST_TIMES
) -> xr.Dataset:
    """Renames each track to the observed storm that is nearest to its first `least_times` common positions.

    Only the first common positions count, so that a forecast which goes astray later still is that storm's forecast.
    Of several tracks of a member that are near the same storm the nearest is it. The others, tracks further than
    `range_km` away on average, and those with fewer common times keep their names: they are false alarms. A column
    `observed` says which are identified.
    """
    first, track = group(tracks, TRACK)
    known, storm = np.unique(best["storm"].values.astype("U"), return_inverse=True)
    row, seen = _simultaneous(tracks, best)
    # a number for each pair of a track and a storm: all pairs are measured at once
    pair = track[row] * len(known) + storm[seen]
    order = np.lexsort([tracks["time"].values[row], pair])
    row, seen, pair = row[order], seen[order], pair[order]
    early = np.arange(len(pair)) - np.searchsorted(pair, pair) < least_times
    there, here = ((table["latitude"].values, table["longitude"].values) for table in (best, tracks))
    away = distance_km(*(axis[seen] for axis in there), *(axis[row] for axis in here))
    size = len(first) * len(known)
    total, count = np.bincount(pair[early], away[early], size), np.bincount(pair[early], minlength=size)
    mean = np.where(count >= least_times, total / np.maximum(count, 1), np.inf).reshape(len(first), len(known))
    nearest, distance = mean.argmin(1), mean.min(1)
    found = _nearest_of_each(tracks.isel(point=first), nearest, distance) & (distance <= range_km)
    names = np.where(found[track], known[nearest[track]], tracks["storm"].values.astype("U")).astype(object)
    return sort_rows(tracks.assign(storm=("point", names), observed=("point", found[track])))


def contingency(tracks: xr.Dataset, best: xr.Dataset) -> xr.Dataset:
    """Counts hits, misses and false alarms at each lead time, over starts and members.

    `tracks` come from `identify`. A hit is a member that has the storm at a time at which it is observed, a miss one
    that has not; a false alarm is a position of a track that is no observed storm's. There are no correct negatives:
    storms that neither exist nor are forecast cannot be counted.
    """
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
