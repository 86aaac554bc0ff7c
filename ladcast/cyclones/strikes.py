"""Strike probability: the share of members that pass within 120 km of a place, and how good it is.

All scores follow from one table: where how many members said strike, and whether there was one. Tables of storms add
up, and storms are resampled for intervals.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import xarray as xr
from jaxtyping import Bool, Float

from ladcast.cyclones.errors import draw_storms, storm_interval
from ladcast.cyclones.points import distance_km, unit_vectors
from ladcast.cyclones.table import after_start, group, rows, storms, with_members
from ladcast.grid import Grid
from ladcast.times import HOUR
from ladcast.units import MEAN_EARTH_RADIUS_KM
from ladcast.verification.statistics.base import ratio
from ladcast.verification.statistics.events import COST_LOSS, base_rate, brier, economic_value, reliability

STRIKE_RADIUS_KM = 120.0
STEP_KM = 30.0
"""Tracks are interpolated to points at most this far apart: a strike radius of 120 km is then 1 km short at worst."""
LONGEST_GAP = 24 * HOUR
DOMAIN_KM = 2000.0


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
        tracks = rows(tracks, (tracks["time"].values >= window[0]) & (tracks["time"].values <= window[1]))
    latitude, longitude = np.meshgrid(grid.latitude, grid.longitude, indexing="ij")
    points = unit_vectors(latitude, longitude).reshape(-1, 3)
    _, member = group(tracks, ("number",) if "number" in tracks else ("storm",))
    _, path = group(tracks, ("number", "storm") if "number" in tracks else ("storm",))
    count = np.zeros(len(points))
    for one in range(int(member.max(initial=-1)) + 1):
        paths = np.unique(path[member == one])
        count += np.any([_struck(rows(tracks, path == number), points, radius_km) for number in paths], axis=0)
    return xr.DataArray(
        (count / with_members(tracks)).reshape(grid.shape),
        coords={"latitude": list(grid.latitude), "longitude": list(grid.longitude)},
        dims=("latitude", "longitude"),
        name="strike_probability",
        attrs={"long_name": f"share of members passing within {radius_km:g} km", "units": "1"},
    )


def weights_around(grid: Grid, latitude: float, longitude: float) -> npt.NDArray[np.float64]:
    """Returns cell areas within `DOMAIN_KM` of a position and 0 beyond: where strikes of a storm are verified.

    Taken around the initial position, the domain depends neither on the forecast nor on what the storm did.
    """
    lat, lon = np.meshgrid(grid.latitude, grid.longitude, indexing="ij")
    inside = distance_km(lat, lon, latitude, longitude) <= DOMAIN_KM
    return np.where(inside, grid.area_weights[:, None], 0.0)


def strike_tables(tracks: xr.Dataset, best: xr.Dataset, grid: Grid) -> Float[np.ndarray, "storm event count"]:
    """Adds up the area where so many members said strike (count), and there was none or one (event), for each storm.

    A storm is verified within `DOMAIN_KM` of its best-track position at the initial time, which neither the forecast
    nor the further way of the storm decides, after the initial time and until the last lead time of the forecast. A
    forecast from before the first position of its storm is left out. The tables of
    `ladcast.verification.statistics.events` are these over their sums.
    """
    tracks = after_start(tracks)
    members = with_members(tracks)
    names = storms(tracks)
    tables = np.zeros((len(names), 2, members + 1))
    first, forecast = group(tracks, ("storm", "start"))
    for index, row in enumerate(first):
        storm, init_time = str(tracks["storm"].values[row]), tracks["start"].values[row]
        observed = rows(best, best["storm"].values == storm)
        at = np.flatnonzero(observed["time"].values == init_time)
        if not at.size:
            continue
        last = tracks["time"].values[tracks["start"].values == init_time].max()
        window = (init_time + np.timedelta64(1, "ns"), last)
        said = strike_probability(rows(tracks, forecast == index), grid, window=window)
        alone = observed.assign_attrs(members=1)
        struck = strike_probability(alone, grid, window=window).values > 0
        position = (float(observed[name].values[at[0]]) for name in ("latitude", "longitude"))
        # one histogram for both: what the members said, and whether it came
        cell = struck * (members + 1) + np.rint(said.values * members).astype(int)
        area = np.bincount(cell.ravel(), weights_around(grid, *position).ravel(), 2 * (members + 1))
        tables[names.index(storm)] += area.reshape(2, members + 1)
    return tables[tables.any((1, 2))]


def strike_scores(tables: Float[np.ndarray, "storm event count"], *, generator: np.random.Generator) -> xr.Dataset:
    """Scores the strike probabilities of all storms together, with intervals from resampling storms.

    Returns:
        `brier`, `brier_skill` over the base rate, `reliability`, `base_rate` and `economic_value` (by cost over loss),
        with the dimension bound: the score, and the lower and upper bound of its central 90 %.
    """
    every = np.ones((1, len(tables)))
    drawn = np.concatenate([every, draw_storms(len(tables), generator)])
    total = np.einsum("ns,sek->nek", drawn, tables)
    shares = total / total.sum((-2, -1), keepdims=True)
    rate = base_rate(shares)
    scores = {"brier": brier(shares), "reliability": reliability(shares), "base_rate": rate}
    scores["brier_skill"] = 1 - ratio(scores["brier"], rate * (1 - rate))
    bounded = {
        name: np.concatenate([values[:1], storm_interval(values[1:], len(tables))])
        for name, values in (scores | {"economic_value": economic_value(shares)}).items()
    }
    dims = {"economic_value": ("bound", "cost_loss")}
    return xr.Dataset(
        {name: (dims.get(name, ("bound",)), values) for name, values in bounded.items()},
        coords={"bound": ["score", "low", "high"], "cost_loss": list(COST_LOSS)},
    )


def _struck(track: xr.Dataset, points: Float[np.ndarray, "point 3"], radius_km: float) -> Bool[np.ndarray, " point"]:
    path = _path(track)
    middle = path.mean(0) / np.linalg.norm(path.mean(0))
    reach = np.arccos(np.clip(path @ middle, -1, 1)).max() + radius_km / MEAN_EARTH_RADIUS_KM
    near = np.flatnonzero(points @ middle >= np.cos(min(reach, np.pi)))  # most of the globe is out of reach
    struck = np.zeros(len(points), dtype=bool)
    struck[near] = (points[near] @ path.T).max(1) >= np.cos(radius_km / MEAN_EARTH_RADIUS_KM)
    return struck


def _path(track: xr.Dataset) -> Float[np.ndarray, "step 3"]:
    """Interpolates positions along great circles, but not over gaps longer than a day."""
    vectors, times = unit_vectors(track["latitude"].values, track["longitude"].values), track["time"].values
    length = MEAN_EARTH_RADIUS_KM * np.arccos(np.clip((vectors[1:] * vectors[:-1]).sum(1), -1, 1))
    pieces = np.where(np.diff(times) <= LONGEST_GAP, np.ceil(length / STEP_KM).astype(int), 1).clip(1)
    begin = np.repeat(np.arange(len(pieces)), pieces)
    fraction = (np.arange(len(begin)) - np.repeat(np.cumsum(pieces) - pieces, pieces)) / pieces[begin]
    between = vectors[begin] * (1 - fraction)[:, None] + vectors[begin + 1] * fraction[:, None]
    path = np.concatenate([between, vectors[-1:]])
    return np.asarray(path / np.linalg.norm(path, axis=1, keepdims=True))
