"""Errors of tracks: where storms were against where they were forecast to be, alike for every system."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import xarray as xr
from jaxtyping import Float, Int

from ladcast.cyclones.geometry import bearing_deg, distance_km, positions, unit_vectors
from ladcast.cyclones.table import group, make_table, rows, same_row, with_members
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
