"""Grid points of a field: which are minima, where between the points these lie, and what lies on circles around them.

All of it holds everywhere on the sphere, also across the date line and the poles.

Where the circles lie among the grid points depends on the row alone, so indices and weights are computed once per row.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ladcast.grid import Grid
from ladcast.units import MEAN_EARTH_RADIUS_KM
from ladcast.verification.statistics.base import FloatArray

KM_PER_DEGREE = float(np.pi) * MEAN_EARTH_RADIUS_KM / 180

Degrees = npt.NDArray[Any] | float


def unit_vectors(latitude: Degrees, longitude: Degrees) -> Float[np.ndarray, "*point 3"]:
    """Returns points on the unit sphere: the only coordinates in which positions may be averaged."""
    lat, lon = np.deg2rad(np.asarray(latitude, dtype=float)), np.deg2rad(np.asarray(longitude, dtype=float))
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat) + 0 * lon], axis=-1)


def positions(vectors: Float[np.ndarray, "*point 3"]) -> tuple[FloatArray, FloatArray]:
    """Returns latitude and longitude (-180 to 180) of vectors of any length."""
    x, y, z = np.moveaxis(np.asarray(vectors, dtype=float), -1, 0)
    return np.rad2deg(np.arctan2(z, np.hypot(x, y))), np.rad2deg(np.arctan2(y, x))


def distance_km(latitude: Degrees, longitude: Degrees, other_latitude: Degrees, other_longitude: Degrees) -> FloatArray:
    """Returns great-circle distances in km, exact to the last digits also for near and opposite points."""
    here, there = unit_vectors(latitude, longitude), unit_vectors(other_latitude, other_longitude)
    here, there = np.broadcast_arrays(here, there)
    angle = np.arctan2(np.linalg.norm(np.cross(here, there), axis=-1), (here * there).sum(-1))
    return np.asarray(MEAN_EARTH_RADIUS_KM * angle)


def bearing_deg(latitude: Degrees, longitude: Degrees, other_latitude: Degrees, other_longitude: Degrees) -> FloatArray:
    """Returns the direction from one point to another, clockwise from north."""
    lat, other = np.deg2rad(np.asarray(latitude)), np.deg2rad(np.asarray(other_latitude))
    east = np.deg2rad(np.asarray(other_longitude) - np.asarray(longitude))
    x = np.cos(lat) * np.sin(other) - np.sin(lat) * np.cos(other) * np.cos(east)
    return np.asarray(np.rad2deg(np.arctan2(np.sin(east) * np.cos(other), x)) % 360)


def destination(
    latitude: Degrees, longitude: Degrees, bearing: Degrees, distance: Degrees
) -> tuple[FloatArray, FloatArray]:
    """Returns the point that lies `distance` km away in the direction `bearing` (degrees clockwise from north)."""
    lat, lon = np.deg2rad(np.asarray(latitude, dtype=float)), np.deg2rad(np.asarray(longitude, dtype=float))
    east = np.stack([-np.sin(lon), np.cos(lon), 0 * lat], axis=-1)
    north = np.stack([-np.sin(lat) * np.cos(lon), -np.sin(lat) * np.sin(lon), np.cos(lat)], axis=-1)
    heading = np.deg2rad(np.asarray(bearing, dtype=float))
    arc = np.asarray(distance, dtype=float) / MEAN_EARTH_RADIUS_KM
    direction = np.cos(heading)[..., None] * north + np.sin(heading)[..., None] * east
    here = unit_vectors(np.rad2deg(lat), np.rad2deg(lon))
    return positions(np.cos(arc)[..., None] * here + np.sin(arc)[..., None] * direction)


def extrapolate(
    before: Float[np.ndarray, "*point 3"], now: Float[np.ndarray, "*point 3"], steps: Degrees
) -> Float[np.ndarray, "*point 3"]:
    """Goes on along the great circle from `before` through `now`, by `steps` times their distance."""
    axis = np.cross(before, now)
    sine = np.linalg.norm(axis, axis=-1)
    angle = np.arctan2(sine, (before * now).sum(-1)) * np.asarray(steps)
    ahead = np.cross(axis, now) / np.maximum(sine, 1e-12)[..., None]
    return np.asarray(np.cos(angle)[..., None] * now + np.sin(angle)[..., None] * ahead)


BEARINGS = 16
NEAR_POLE_DEG = 89.99
"""Directions are undefined on a pole itself: its circles are drawn from a hair beside it."""


@dataclass(frozen=True)
class Points:
    """Grid points of states, by their indices: one entry per point in each tensor."""

    state: Int[Tensor, " point"]
    row: Int[Tensor, " point"]
    column: Int[Tensor, " point"]

    def __len__(self) -> int:
        return len(self.state)

    def select(self, kept: Tensor) -> Points:
        """Returns the points that a mask or an index selects."""
        return Points(self.state[kept], self.row[kept], self.column[kept])

    def of(self, field: Float[Tensor, "state lat lon"]) -> Float[Tensor, " point"]:
        """Returns the field at the points."""
        return field[self.state, self.row, self.column]


@dataclass(frozen=True)
class Stencil:
    """For each row of a grid, the four corners and bilinear weights of every point on circles around it.

    `corner` is the index of a corner in a state whose columns stand there twice, so that no column lies beyond an end;
    columns count from the centre's. `outward` is the direction away from the centre at each point of a circle, in
    radians clockwise from north.
    """

    corner: Int[Tensor, "lat ring bearing corner"]
    weight: Float[Tensor, "lat ring bearing corner"]
    outward: Float[Tensor, "lat ring bearing"]

    def sample(self, field: Float[Tensor, "state lat lon"], points: Points) -> Float[Tensor, "point ring bearing"]:
        """Interpolates the field on the circles around each point."""
        _, rows, columns = field.shape
        origin = points.state * (rows * 2 * columns) + points.column
        corners = torch.cat([field, field], dim=-1).take(self.corner[points.row] + origin[:, None, None, None])
        return (corners * self.weight[points.row]).sum(-1)

    def flow(
        self, wind: Float[Tensor, "state 2 lat lon"], points: Points
    ) -> tuple[Float[Tensor, "point ring bearing"], Float[Tensor, "point ring bearing"]]:
        """Interpolates wind (u, v) on the circles: its parts away from the centre and counterclockwise."""
        u, v = (self.sample(wind[:, component], points) for component in range(2))
        sine, cosine = self.outward.sin()[points.row], self.outward.cos()[points.row]
        return u * sine + v * cosine, v * sine - u * cosine


@lru_cache(maxsize=16)
def stencil(grid: Grid, radii_deg: tuple[float, ...], device: str = "cpu") -> Stencil:
    """Builds circles of `radii_deg` (great-circle degrees) around every row: 16 points each, clockwise from north."""
    latitude = np.clip(np.asarray(grid.latitude), -NEAR_POLE_DEG, NEAR_POLE_DEG)[:, None, None]
    bearing = np.arange(BEARINGS) * 360 / BEARINGS
    radius_km = np.asarray(radii_deg)[:, None] * KM_PER_DEGREE
    lat, lon = destination(*np.broadcast_arrays(latitude, 0.0, bearing, radius_km))
    row, column, weight = _corners(grid, lat, lon)
    outward = np.deg2rad(bearing_deg(lat, lon, latitude, 0.0) + 180)
    return Stencil(
        torch.from_numpy(row * 2 * grid.shape[1] + column % grid.shape[1]).to(device),
        torch.from_numpy(weight).float().to(device),
        torch.from_numpy(outward).float().to(device),
    )


def mirrored_rows(grid: Grid) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Extends the rows by one beyond each pole: latitude, row, and columns to shift (to the opposite meridian)."""
    lat, (rows, columns) = np.asarray(grid.latitude), grid.shape
    south, north = (int(on_pole) for on_pole in grid.pole_rows)  # a row on the pole has no mirror image: take the next
    latitude = np.concatenate([[-180 - lat[south]], lat, [180 - lat[-1 - north]]])
    row = np.concatenate([[south], np.arange(rows), [rows - 1 - north]])
    shift = np.zeros(rows + 2, dtype=np.int64)
    shift[[0, -1]] = columns // 2
    return latitude, row, shift


def _corners(
    grid: Grid, lat: npt.NDArray[np.float64], lon: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    latitude, rows, shift = mirrored_rows(grid)
    below = np.clip(np.searchsorted(latitude, lat, side="right") - 1, 0, latitude.size - 2)
    north = (lat - latitude[below]) / (latitude[below + 1] - latitude[below])
    steps = lon * grid.shape[1] / 360
    west = np.floor(steps).astype(np.int64)
    east = steps - west
    row = np.stack([rows[below], rows[below], rows[below + 1], rows[below + 1]], axis=-1)
    column = np.stack([west, west + 1, west, west + 1], axis=-1)
    column += np.stack([shift[below], shift[below], shift[below + 1], shift[below + 1]], axis=-1)
    weight = [(1 - north) * (1 - east), (1 - north) * east, north * (1 - east), north * east]
    return row, column, np.stack(weight, axis=-1)


def find_minima(field: Float[Tensor, "state lat lon"], grid: Grid, rows: slice = slice(None)) -> Points:
    """Finds the grid points of `rows` that no neighbour is below, across the date line and the poles.

    Of neighbours with equal values at most one counts, and a row on a pole counts as one point. NaN is no minimum.
    """
    first, stop, _ = rows.indices(grid.shape[0])
    # one more row on each side, taken from beyond the pole where need be
    _, row, shift = mirrored_rows(grid)
    south, north = (field[:, row[k]].roll(-int(shift[k]), -1)[:, None] for k in (first, stop + 1))
    strip = torch.cat([south, field[:, first:stop], north], dim=1)
    inner = strip[:, 1:-1]
    lowest = inner.isfinite()
    for northward, eastward in product((0, 1, 2), (-1, 0, 1)):
        neighbour = strip[:, northward : northward + stop - first].roll(-eastward, -1)
        # Of (1, 0), the point itself: a finite value is <= itself, so that this comparison changes nothing.
        lowest &= inner < neighbour if (northward, eastward) < (1, 0) else inner <= neighbour
    for on_pole, pole, beside in zip(grid.pole_rows, (0, grid.shape[0] - 1), (1, grid.shape[0] - 2), strict=True):
        if on_pole and first <= pole < stop:
            lowest[:, pole - first] = False
            lowest[:, pole - first, 0] = field[:, pole, 0] < field[:, beside].amin(1)
    state, rows_down, column = lowest.nonzero(as_tuple=True)
    return Points(state, rows_down + first, column)


def refine_minima(
    field: Float[Tensor, "state lat lon"], grid: Grid, points: Points
) -> tuple[Float[Tensor, " point"], Float[Tensor, " point"], Float[Tensor, " point"]]:
    """Returns latitude, longitude (degrees, -180 to 180) and value of the minimum near each grid minimum.

    A parabola through a point and its two neighbours is fitted in each direction. As the neighbours lie no lower, its
    vertex is at most half a cell away, and the centre stays in the cell of its own point. On a pole the point itself is
    returned.
    """
    latitude, longitude = (torch.tensor(axis, device=field.device) for axis in (grid.latitude, grid.longitude))
    _, rows, shifts = (torch.as_tensor(axis, device=field.device) for axis in mirrored_rows(grid))
    centre = points.of(field).double()

    def neighbour(north: int, east: int) -> Float[Tensor, " point"]:
        row = points.row + 1 + north
        return field[points.state, rows[row], (points.column + east + shifts[row]) % grid.shape[1]].double() - centre

    north, south_north_drop = _vertex(neighbour(-1, 0), neighbour(1, 0))
    east, west_east_drop = _vertex(neighbour(0, -1), neighbour(0, 1))
    on_pole = latitude[points.row].abs() > 90 - 1e-3
    north, east, drop = (torch.where(on_pole, 0, value) for value in (north, east, south_north_drop + west_east_drop))
    refined = latitude[points.row] + north * (latitude[1] - latitude[0])
    across = longitude[points.column] + east * 360 / grid.shape[1]
    return refined, (across + 180) % 360 - 180, centre - drop


def _vertex(
    before: Float[Tensor, " point"], after: Float[Tensor, " point"]
) -> tuple[Float[Tensor, " point"], Float[Tensor, " point"]]:
    """Returns the place (in steps) and the depth of the vertex of a parabola through 0 and its neighbours' rises."""
    curvature = (before + after).clamp_min(1e-9)
    step = ((before - after) / (2 * curvature)).clamp(-0.5, 0.5)
    return step, curvature * step.square() / 2
