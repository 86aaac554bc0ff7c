"""Circles around grid points: linear functions on the sphere have known values there, also over the poles."""

import numpy as np
import pytest
import torch

from ladcast.cyclones.geometry import KM_PER_DEGREE, destination, unit_vectors
from ladcast.cyclones.stencil import BEARINGS, Points, mirrored_rows, stencil
from ladcast.grid import Grid

GRIDS = ["120x61", "120x60", "120x61-south", "240x121"]


def every_point(grid: Grid) -> Points:
    rows, columns = grid.shape
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return Points(torch.zeros(rows * columns, dtype=torch.int64), row.flatten(), column.flatten())


def on_grid(grid: Grid) -> np.ndarray:
    return unit_vectors(*np.meshgrid(grid.latitude, grid.longitude, indexing="ij"))


@pytest.mark.parametrize("text", GRIDS)
def test_a_linear_function_has_its_values_on_the_circles(text: str):
    grid, radii = Grid.parse(text), (2.0, 5.5)
    slope = np.array([1.0, -2.0, 0.5])
    field = torch.from_numpy(on_grid(grid) @ slope).float()[None]
    points = every_point(grid)
    sampled = stencil(grid, radii).sample(field, points).numpy()
    latitude, longitude = (
        np.asarray(axis)[index.numpy()]
        for axis, index in ((grid.latitude, points.row), (grid.longitude, points.column))
    )
    lat, lon = destination(
        *np.broadcast_arrays(
            np.clip(latitude, -89.99, 89.99)[:, None, None],
            longitude[:, None, None],
            np.arange(BEARINGS) * 360 / BEARINGS,
            np.array(radii)[:, None] * KM_PER_DEGREE,
        )
    )
    np.testing.assert_allclose(sampled, unit_vectors(lat, lon) @ slope, atol=2e-3)


@pytest.mark.parametrize("text", GRIDS)
def test_a_circle_in_solid_rotation_has_the_vorticity_of_its_area(text: str):
    """u = U cos(latitude): the circulation around a cap of angular radius r is 2 U / a sin(latitude) times its area."""
    grid, radius = Grid.parse(text), np.deg2rad(4.0)
    lat = np.asarray(grid.latitude)[:, None]
    wind = np.stack([np.broadcast_to(np.cos(np.deg2rad(lat)), grid.shape), np.zeros(grid.shape)])
    outward, around = stencil(grid, (4.0,)).flow(torch.from_numpy(wind).float()[None], every_point(grid))
    expected = 2 * np.sin(np.deg2rad(lat)) * (1 - np.cos(radius)) / np.sin(radius)
    found = around.mean((1, 2)).reshape(grid.shape).numpy()
    away_from_poles = abs(lat[:, 0]) < 84  # nearer, directions turn within a cell: interpolated winds lose speed
    np.testing.assert_allclose(found[away_from_poles], (expected + 0 * found)[away_from_poles], atol=2e-3)
    assert abs(outward.mean((1, 2))).max() < 5e-3


def test_rows_beyond_a_pole_are_those_of_the_opposite_meridian():
    latitude, row, shift = mirrored_rows(Grid.parse("8x5"))
    assert latitude.tolist() == [-135.0, -90.0, -45.0, 0.0, 45.0, 90.0, 135.0]
    assert row.tolist() == [1, 0, 1, 2, 3, 4, 3]
    assert shift.tolist() == [4, 0, 0, 0, 0, 0, 4]
    latitude, row, _ = mirrored_rows(Grid.parse("8x4"))
    assert latitude[[0, -1]].tolist() == [-112.5, 112.5]
    assert row[[0, -1]].tolist() == [0, 3]
