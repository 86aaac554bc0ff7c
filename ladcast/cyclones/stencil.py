"""Samples fields on circles around grid points, everywhere on the sphere: also across the date line and the poles.

Where the circles lie among the grid points depends on the row alone, so indices and weights are computed once per row.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ladcast.cyclones.geometry import KM_PER_DEGREE, bearing_deg, destination
from ladcast.grid import Grid

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
