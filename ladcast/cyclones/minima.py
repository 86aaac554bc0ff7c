"""Minima of a field on the sphere: which grid points they are, and where between the points they lie."""

from __future__ import annotations

import torch
from jaxtyping import Float
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


def _with_neighbours(
    field: Float[Tensor, "state lat lon"], grid: Grid, first: int, stop: int
) -> Float[Tensor, "state rows lon"]:
    """Returns the rows from `first` to `stop` with one more on each side, taken from beyond the pole where need be."""
    _, row, shift = mirrored_rows(grid)
    south = field[:, row[first]].roll(-int(shift[first]), -1)[:, None]
    north = field[:, row[stop + 1]].roll(-int(shift[stop + 1]), -1)[:, None]
    return torch.cat([south, field[:, first:stop], north], dim=1)


def _vertex(
    before: Float[Tensor, " point"], after: Float[Tensor, " point"]
) -> tuple[Float[Tensor, " point"], Float[Tensor, " point"]]:
    """Returns the place (in steps) and the depth of the vertex of a parabola through 0 and its neighbours' rises."""
    curvature = (before + after).clamp_min(1e-9)
    step = ((before - after) / (2 * curvature)).clamp(-0.5, 0.5)
    return step, curvature * step.square() / 2
