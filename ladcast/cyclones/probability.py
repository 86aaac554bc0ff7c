"""Strike probability: the share of members that pass within 120 km of a place, and how good it is.

All scores follow from one table: how often each number of members said strike, and how often there was one. Tables of
storms add up, and are resampled for intervals.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import xarray as xr
from jaxtyping import Bool, Float

from ladcast.constants import MEAN_EARTH_RADIUS_KM
from ladcast.cyclones.bootstrap import draw_storms, interval
from ladcast.cyclones.errors import ratio
from ladcast.cyclones.geometry import distance_km, unit_vectors
from ladcast.cyclones.table import group, rows, with_members
from ladcast.grid import Grid
from ladcast.times import HOUR

STRIKE_RADIUS_KM = 120.0
STEP_KM = 30.0
"""Tracks are interpolated to points at most this far apart: a strike radius of 120 km is then 1 km short at worst."""
LONGEST_GAP = 24 * HOUR
StrikeTable = Float[np.ndarray, "*storm category outcome"]


def strike_probability(
    tracks: xr.Dataset,
    grid: Grid,
    *,
    window: tuple[np.datetime64, np.datetime64] | None = None,
    radius_km: float = STRIKE_RADIUS_KM,
) -> xr.DataArray:
    """Returns the share of all members (those that lost the storm included) that pass within `radius_km` of each point.

    `tracks` hold one storm and one start; `window` limits the valid times, both ends included.

    Raises:
        ValueError: there are several storms or starts.
    """
    for name in ("storm", "start"):
        if name in tracks and len(found := np.unique(tracks[name].values.astype("U"))) > 1:
            raise ValueError(
                f"Strike probabilities need one {name}, got {len(found)}: {', '.join(found[:3])}. Select one."
            )
    if window is not None:
        tracks = rows(tracks, (tracks["time"].values >= window[0]) & (tracks["time"].values <= window[1]))
    latitude, longitude = np.meshgrid(grid.latitude, grid.longitude, indexing="ij")
    points = unit_vectors(latitude, longitude).reshape(-1, 3)
    _, member = group(tracks, ("number",) if "number" in tracks else ("storm",))
    count = np.zeros(len(points))
    for one in range(int(member.max(initial=-1)) + 1):
        count += _struck(rows(tracks, member == one), points, radius_km)
    return xr.DataArray(
        (count / with_members(tracks)).reshape(grid.shape),
        coords={"latitude": list(grid.latitude), "longitude": list(grid.longitude)},
        dims=("latitude", "longitude"),
        name="strike_probability",
        attrs={"long_name": f"share of members passing within {radius_km:g} km", "units": "1"},
    )


def weights_around(grid: Grid, latitude: float, longitude: float, radius_km: float = 2000.0) -> npt.NDArray[np.float64]:
    """Returns cell areas within `radius_km` of a position and 0 beyond: where strikes of a storm are verified.

    Taken around the initial position, the domain depends neither on the forecast nor on what the storm did.
    """
    lat, lon = np.meshgrid(grid.latitude, grid.longitude, indexing="ij")
    inside = distance_km(lat, lon, latitude, longitude) <= radius_km
    weights: npt.NDArray[np.float64] = np.where(inside, grid.area_weights[:, None], 0.0)
    return weights


def strike_table(
    probability: Float[np.ndarray, "lat lon"],
    struck: Bool[np.ndarray, "lat lon"],
    *,
    members: int,
    weights: Float[np.ndarray, "lat lon"],
) -> Float[np.ndarray, "category outcome"]:
    """Sums the weights of points by the number of members that said strike (0 to M) and by what happened (no, yes)."""
    category = np.rint(probability * members).astype(int)
    cell = category * 2 + struck
    return np.bincount(cell.ravel(), weights.ravel(), 2 * (members + 1)).reshape(members + 1, 2)


def brier(table: StrikeTable) -> Float[np.ndarray, "*storm"]:
    """Returns the weighted mean of (probability - outcome)^2."""
    probability = np.linspace(0, 1, table.shape[-2])
    squared = np.stack([probability**2, (1 - probability) ** 2], axis=-1)
    return np.asarray((table * squared).sum((-2, -1)) / table.sum((-2, -1)))


def brier_skill(table: StrikeTable) -> Float[np.ndarray, "*storm"]:
    """Returns 1 - Brier score / that of the sample's own base rate; NaN where nothing or everything was struck."""
    rate = table[..., 1].sum(-1) / table.sum((-2, -1))
    reference = np.asarray(rate * (1 - rate))
    return np.asarray(1 - ratio(brier(table), reference))


def reliability(table: Float[np.ndarray, "category outcome"], *, bins: int = 10) -> xr.Dataset:
    """Returns, for bins of probability, the mean probability, the observed frequency and the share of all weight."""
    members = len(table) - 1
    probability = np.linspace(0, 1, members + 1)
    bin_of = np.minimum((probability * bins).astype(int), bins - 1)
    weight = np.bincount(bin_of, table.sum(1), bins)
    forecast = ratio(np.bincount(bin_of, table.sum(1) * probability, bins), weight)
    observed = ratio(np.bincount(bin_of, table[:, 1], bins), weight)
    columns = {"probability": forecast, "frequency": observed, "share": weight / weight.sum()}
    return xr.Dataset({name: ("bin", values) for name, values in columns.items()})


def economic_value(table: StrikeTable, cost_loss: Float[np.ndarray, " ratio"]) -> Float[np.ndarray, "*storm ratio"]:
    """Returns the relative value to users who protect at cost C against a loss L, at each one's best probability.

    V = (E_climate - E_forecast) / (E_climate - E_perfect), 1 for a perfect forecast and 0 for the base rate (Richardson
    2000, doi:10.1002/qj.49712656313). NaN where nothing or everything was struck.
    """
    share = table / table.sum((-2, -1), keepdims=True)
    rate = share[..., 1].sum(-1)[..., None]
    # Acting from k members on: sums over the categories k and above, for every k.
    acted = np.flip(np.cumsum(np.flip(share, -2), axis=-2), -2)
    false, hits = acted[..., 0, None], acted[..., 1, None]
    expense = (false + hits) * cost_loss + (rate[..., None] - hits)
    climate = np.minimum(cost_loss, rate)
    least = np.minimum(expense.min(-2), rate)  # never to act is a choice too
    gain, possible = climate - least, climate - rate * cost_loss
    return ratio(gain, possible)


def resampled(
    score: Callable[[StrikeTable], npt.NDArray[np.float64]],
    tables: Float[np.ndarray, "storm category outcome"],
    generator: np.random.Generator,
) -> Float[np.ndarray, "bound ..."]:
    """Returns the score of all storms together, and the bounds of its central 90 % when storms are resampled."""
    drawn = draw_storms(len(tables), generator)
    bounds = interval(score(np.einsum("ns,sko->nko", drawn, tables)), len(tables))
    return np.concatenate([np.asarray(score(tables.sum(0)))[None], bounds])


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
