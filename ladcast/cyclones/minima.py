"""Minima of a field on the sphere: which grid points they are, and where between the points they lie."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ladcast.cyclones.stencil import Points, mirrored_rows
from ladcast.grid import Grid

Columns = tuple[Float[Tensor, " point"], Float[Tensor, " point"], Float[Tensor, " point"]]


def find_minima(field: Float[Tensor, "state lat lon"], grid: Grid, rows: slice = slice(None)) -> Points:
    """Finds the grid points of `rows` that no neighbour is below, across the date line and the poles.

    Of neighbours with equal values at most one counts, and a row on a pole counts as one point. NaN is no minimum.
    """
    first, stop, _ = rows.indices(grid.shape[0])
    strip = _with_neighbours(field, grid, first, stop)
    inner = strip[:, 1:-1]
    lowest = inner.isfinite()
    for north in (0, 1, 2):
        for east in (-1, 0, 1):
            if (north, east) == (1, 0):
                continue
            neighbour = strip[:, north : north + stop - first].roll(-east, -1)
            lowest &= inner < neighbour if (north, east) < (1, 0) else inner <= neighbour
    for on_pole, pole, beside in zip(grid.pole_rows, (0, grid.shape[0] - 1), (1, grid.shape[0] - 2), strict=True):
        if on_pole and first <= pole < stop:
            lowest[:, pole - first] = False
            lowest[:, pole - first, 0] = field[:, pole, 0] < field[:, beside].amin(1)
    state, row, column = lowest.nonzero(as_tuple=True)
    return Points(state, row + first, column)


def refine_minima(field: Float[Tensor, "state lat lon"], grid: Grid, points: Points) -> Columns:
    """Returns latitude, longitude (degrees, -180 to 180) and value of the minimum of a paraboloid through each point.

    The paraboloid is fitted by least squares to nine points about as far apart east to west as south to north, so also
    where meridians converge. A minimum lies at most one of these steps away; on a pole, and where the fit has no
    minimum, the point itself is returned.
    """
    lat, lon = (torch.tensor(axis, device=field.device) for axis in (grid.latitude, grid.longitude))
    south_to_north = torch.from_numpy(np.gradient(np.asarray(grid.latitude))).to(field.device)
    stride = _stride(grid).to(field.device)
    east, north, drop = _paraboloid(_nine(field, grid, points, stride))
    on_pole = (lat[points.row].abs() > 90 - 1e-3) | (lat[points.row] + north * south_to_north[points.row]).abs().gt(90)
    east, north, drop = (torch.where(on_pole, 0, value) for value in (east, north, drop))
    latitude = lat[points.row] + north * south_to_north[points.row]
    longitude = lon[points.column] + east * stride[points.row] * 360 / grid.shape[1]
    return latitude, (longitude + 180) % 360 - 180, points.of(field) - drop


def _with_neighbours(
    field: Float[Tensor, "state lat lon"], grid: Grid, first: int, stop: int
) -> Float[Tensor, "state rows lon"]:
    """Returns the rows from `first` to `stop` with one more on each side, taken from beyond the pole where need be."""
    _, row, shift = mirrored_rows(grid)
    south = field[:, row[first]].roll(-int(shift[first]), -1)[:, None]
    north = field[:, row[stop + 1]].roll(-int(shift[stop + 1]), -1)[:, None]
    return torch.cat([south, field[:, first:stop], north], dim=1)


def _stride(grid: Grid) -> Tensor:
    """Returns, per row, how many columns make the east-west step as long as the south-north one."""
    rows, columns = grid.shape
    ratio = (180 / rows) / (360 / columns * np.cos(np.deg2rad(grid.latitude)).clip(1e-6))
    return torch.from_numpy(ratio.round().clip(1, columns // 8).astype(np.int64))


def _nine(
    field: Float[Tensor, "state lat lon"], grid: Grid, points: Points, stride: Tensor
) -> Float[Tensor, "point 3 3"]:
    _, rows, shifts = (torch.as_tensor(axis, device=field.device) for axis in mirrored_rows(grid))
    beside = torch.arange(-1, 2, device=field.device)
    extended = points.row[:, None] + 1 + beside
    row, shift = rows[extended][:, :, None], shifts[extended][:, :, None]
    column = (points.column[:, None, None] + stride[points.row][:, None, None] * beside + shift) % grid.shape[1]
    return field[points.state[:, None, None], row, column]


def _paraboloid(nine: Float[Tensor, "point 3 3"]) -> Columns:
    """Returns the minimum's place (steps east, steps north) and how far below the centre it lies.

    Least squares of c + gx x + gy y + a x^2 + b y^2 + d x y over x, y in {-1, 0, 1}, in closed form.
    """
    nine = nine.double() - nine[:, 1:2, 1:2]
    x = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64, device=nine.device)
    by_x, by_y = nine.sum(1), nine.sum(2)
    gx, gy = by_x @ x / 6, by_y @ x / 6
    a, b = by_x @ (x**2 - 2 / 3) / 2, by_y @ (x**2 - 2 / 3) / 2
    d = torch.einsum("pyx,y,x->p", nine, x, x) / 4
    determinant = 4 * a * b - d**2
    convex: Bool[Tensor, " point"] = (determinant > 0) & (a > 0)
    safe = torch.where(convex, determinant, 1)
    east = torch.where(convex, (d * gy - 2 * b * gx) / safe, 0).clamp(-1, 1)
    north = torch.where(convex, (d * gx - 2 * a * gy) / safe, 0).clamp(-1, 1)
    drop = -(gx * east + gy * north + a * east**2 + b * north**2 + d * east * north)
    return east, north, drop.clamp_min(0)
