"""Strike probability: the share of members that pass within 120 km of a place, and how good it is.

All scores follow from one table: where how many members said strike, and whether there was one. Tables of storms add
up, and storms are resampled for intervals.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import xarray as xr
from jaxtyping import Bool, Float, Int

from ladcast.cyclones.errors import draw_with_all, observed_cases, with_bounds
from ladcast.cyclones.points import unit_vectors
from ladcast.cyclones.table import after_start, group, rows, same_row, storms, with_members
from ladcast.grid import Grid
from ladcast.times import HOUR, Times
from ladcast.units import MEAN_EARTH_RADIUS_KM
from ladcast.verification.statistics.base import ratio
from ladcast.verification.statistics.events import (
    COST_LOSS,
    base_rate,
    brier,
    economic_value,
    fair_brier,
    observed_frequency,
    reliability,
)

STRIKE_RADIUS_KM = 120.0
STEP_KM = 30.0
"""Tracks are interpolated to points at most this far apart: a strike radius of 120 km is then 1 km short at worst."""
LONGEST_GAP = 24 * HOUR
DOMAIN_KM = 2000.0
PLACED = ("storm", "number", "start", "time", "latitude", "longitude")


def strike_probability(
    tracks: xr.Dataset,
    grid: Grid,
    *,
    window: tuple[np.datetime64, np.datetime64] | None = None,
    radius_km: float = STRIKE_RADIUS_KM,
    every: bool = False,
) -> xr.DataArray:
    """Returns the share of all members (those that lost the storm included) that pass within `radius_km` of each point.

    `tracks` hold one storm and one start, or with `every` all storms of one start: then a member passes with any of
    them. `window` limits the valid times, both ends included.

    Raises:
        ValueError: there are several storms, unless `every`, or several starts.
    """
    for name in ("start",) if every else ("storm", "start"):
        if name in tracks and len(found := np.unique(tracks[name].values.astype("U"))) > 1:
            raise ValueError(
                f"Strike probabilities need one {name}, got {len(found)}: {', '.join(found[:3])}. Select one."
            )
    if window is not None:
        tracks = _within(tracks, window)
    share = _count_struck(tracks, _points(grid), radius_km) / with_members(tracks)
    return xr.DataArray(
        share.reshape(grid.shape),
        coords={"latitude": list(grid.latitude), "longitude": list(grid.longitude)},
        dims=("latitude", "longitude"),
        name="strike_probability",
        attrs={"long_name": f"share of members passing within {radius_km:g} km", "units": "1"},
    )


def weights_around(grid: Grid, latitude: float, longitude: float) -> npt.NDArray[np.float64]:
    """Returns cell areas within `DOMAIN_KM` of a position and 0 beyond: where strikes of a storm are verified.

    Taken around the initial position, the domain depends neither on the forecast nor on what the storm did.
    """
    inside = _points(grid) @ unit_vectors(latitude, longitude) >= np.cos(DOMAIN_KM / MEAN_EARTH_RADIUS_KM)
    return np.where(inside.reshape(grid.shape), grid.area_weights[:, None], 0.0)


def strike_tables(
    tracks: xr.Dataset,
    best: xr.Dataset,
    grid: Grid,
    *,
    cases: xr.Dataset | None = None,
    within_hours: int | None = None,
) -> Float[np.ndarray, "storm event count"]:
    """Adds up the area where so many members said strike (count), and there was none or one (event), for each storm.

    A storm is verified within `DOMAIN_KM` of its best-track position at the initial time, which neither the forecast
    nor the further way of the storm decides, after the initial time and until `within_hours`, by default the last lead
    time of the forecast. `cases` are storms at initial times (`observed_cases` at lead time 0), by default those that a
    member has at any time: where all have lost it, all say that it does not strike. The tables of
    `ladcast.verification.statistics.events` are these over their sums.
    """
    if cases is None:
        cases = observed_cases(best, np.unique(tracks["start"].values), [0])
        cases = rows(cases, same_row(cases, tracks, ("storm", "start")) >= 0)
    tracks, members, names, points = after_start(tracks), with_members(tracks), storms(cases), _points(grid)
    tracks = tracks[[name for name in PLACED if name in tracks]]
    tables = np.zeros((len(names), 2, members + 1))
    for init_time in np.unique(cases["start"].values):
        of_start = rows(tracks, tracks["start"].values == init_time)
        last = of_start["time"].values.max(initial=init_time)
        last = last if within_hours is None else init_time + within_hours * HOUR
        known, of_start = (_within(table, (init_time + np.timedelta64(1, "ns"), last)) for table in (best, of_start))
        for row in np.flatnonzero(cases["start"].values == init_time):
            storm, *place = (cases[name].values[row] for name in ("storm", "latitude", "longitude"))
            weights = weights_around(grid, *place).ravel()
            near = np.flatnonzero(weights)
            said, came = (
                _count_struck(rows(table, table["storm"].values == storm), points[near], STRIKE_RADIUS_KM)
                for table in (of_start, known)
            )
            # one histogram for both: what the members said, and whether it came
            area = np.bincount((came > 0) * (members + 1) + said, weights[near], 2 * (members + 1))
            tables[names.index(storm)] += area.reshape(2, members + 1)
    return tables


PROBABILITIES = tuple(round(0.1 * k, 1) for k in range(11))
"""To which forecast probabilities are rounded, so that the reliability of ensembles of any size compares."""


def strike_scores(tables: Float[np.ndarray, "storm event count"], *, generator: np.random.Generator) -> xr.Dataset:
    """Scores the strike probabilities of all storms together, with intervals from resampling storms.

    Returns:
        `brier`, `fair_brier`, `brier_skill` over the base rate, `reliability`, `base_rate`, `economic_value` (by cost
        over loss), and by rounded probability its mean (`forecast_probability`), `observed_frequency` and the `area`
        forecast so, a share; with the dimension bound: the score, and the bounds of its central 90 %.
    """
    shares = _shares(tables, draw_with_all(len(tables), generator))
    said, rate = np.linspace(0, 1, shares.shape[-1]), base_rate(shares)
    rounded = np.rint(said[:, None] * 10) == np.arange(len(PROBABILITIES))
    scores = {"brier": brier(shares), "fair_brier": fair_brier(shares), "reliability": reliability(shares)}
    scores |= {"base_rate": rate, "brier_skill": 1 - ratio(scores["brier"], rate * (1 - rate))}
    scores |= {"economic_value": economic_value(shares)}
    by_probability = {"observed_frequency": observed_frequency(shares @ rounded), "area": (shares @ rounded).sum(-2)}
    by_probability["forecast_probability"] = ratio((shares.sum(-2) * said) @ rounded, by_probability["area"])
    dims = dict.fromkeys(by_probability, ("probability",)) | {"economic_value": ("cost_loss",)}
    scores |= by_probability
    return xr.Dataset(
        {name: (("bound", *dims.get(name, ())), with_bounds(values, len(tables))) for name, values in scores.items()},
        coords={"bound": ["score", "low", "high"], "cost_loss": list(COST_LOSS), "probability": list(PROBABILITIES)},
    )


def brier_difference(
    tables: Float[np.ndarray, "storm event count"],
    others: Float[np.ndarray, "storm event other"],
    *,
    generator: np.random.Generator,
    fair: bool,
) -> Float[np.ndarray, " bound"]:
    """Returns the Brier score less that of other forecasts of the same storms, which are drawn together.

    Where ensembles differ in size only `fair` scores tell which is better; of a single member there are none.
    """
    drawn, score = draw_with_all(len(tables), generator), fair_brier if fair else brier
    ours, theirs = (score(_shares(some, drawn)) for some in (tables, others))
    return with_bounds(ours - theirs, len(tables))


def _shares(
    tables: Float[np.ndarray, "storm event count"], drawn: Int[np.ndarray, "sample storm"]
) -> Float[np.ndarray, "sample event count"]:
    """Adds up the tables of the storms drawn, as shares of the area."""
    total = np.einsum("ns,sek->nek", drawn, tables)
    return np.asarray(total / total.sum((-2, -1), keepdims=True))


@lru_cache(maxsize=1)
def _points(grid: Grid) -> Float[np.ndarray, "point 3"]:
    latitude, longitude = np.meshgrid(grid.latitude, grid.longitude, indexing="ij")
    points = unit_vectors(latitude, longitude).reshape(-1, 3)
    points.setflags(write=False)  # all callers share them
    return points


def _within(tracks: xr.Dataset, window: tuple[np.datetime64, np.datetime64]) -> xr.Dataset:
    return rows(tracks, (tracks["time"].values >= window[0]) & (tracks["time"].values <= window[1]))


def _count_struck(
    tracks: xr.Dataset, points: Float[np.ndarray, "point 3"], radius_km: float
) -> Int[np.ndarray, " point"]:
    """Counts the members that pass within a radius of each point with any storm of theirs."""
    by = ("number", "storm") if "number" in tracks else ("storm",)
    (_, member), (_, track) = group(tracks, by[:1]), group(tracks, by)
    order = np.argsort(track, kind="stable")
    vectors = unit_vectors(tracks["latitude"].values, tracks["longitude"].values)[order]
    times, member, track = tracks["time"].values[order], member[order], track[order]
    count, struck = np.zeros(len(points), dtype=int), np.zeros(len(points), dtype=bool)
    for begin, end in pairwise(np.searchsorted(track, np.arange(track.max(initial=-1) + 2))):
        struck |= _struck(vectors[begin:end], times[begin:end], points, radius_km)
        if end == len(member) or member[end] != member[begin]:
            count, struck = count + struck, np.zeros_like(struck)
    return count


def _struck(
    vectors: Float[np.ndarray, "position 3"], times: Times, points: Float[np.ndarray, "point 3"], radius_km: float
) -> Bool[np.ndarray, " point"]:
    path = _path(vectors, times)
    middle = path.mean(0) / np.linalg.norm(path.mean(0))
    reach = np.arccos(np.clip(path @ middle, -1, 1)).max() + radius_km / MEAN_EARTH_RADIUS_KM
    near = np.flatnonzero(points @ middle >= np.cos(min(reach, np.pi)))  # most of the globe is out of reach
    struck = np.zeros(len(points), dtype=bool)
    struck[near] = (points[near] @ path.T).max(1) >= np.cos(radius_km / MEAN_EARTH_RADIUS_KM)
    return struck


def _path(vectors: Float[np.ndarray, "position 3"], times: Times) -> Float[np.ndarray, "step 3"]:
    """Interpolates positions along great circles, but not over gaps longer than a day."""
    length = MEAN_EARTH_RADIUS_KM * np.arccos(np.clip((vectors[1:] * vectors[:-1]).sum(1), -1, 1))
    pieces = np.where(np.diff(times) <= LONGEST_GAP, np.ceil(length / STEP_KM).astype(int), 1).clip(1)
    begin = np.repeat(np.arange(len(pieces)), pieces)
    fraction = (np.arange(len(begin)) - np.repeat(np.cumsum(pieces) - pieces, pieces)) / pieces[begin]
    between = vectors[begin] * (1 - fraction)[:, None] + vectors[begin + 1] * fraction[:, None]
    path = np.concatenate([between, vectors[-1:]])
    return np.asarray(path / np.linalg.norm(path, axis=1, keepdims=True))
