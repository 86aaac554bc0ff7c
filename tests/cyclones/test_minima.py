"""Minima on the sphere: as a search by hand finds them, and between grid points where they truly lie."""

import numpy as np
import pytest
import torch

from ladcast.cyclones.geometry import distance_km
from ladcast.cyclones.minima import find_minima, refine_minima
from ladcast.grid import Grid


def by_hand(field: np.ndarray) -> set[tuple[int, int]]:
    """Strict minima of a field without equal values, rows on the poles left out."""
    rows, columns = field.shape
    return {
        (j, i)
        for j in range(1, rows - 1)
        for i in range(columns)
        if all(field[j, i] <= field[j + dj, (i + di) % columns] for dj in (-1, 0, 1) for di in (-1, 0, 1))
    }


def test_minima_are_those_that_a_search_by_hand_finds():
    grid = Grid.parse("24x13")
    fields = np.random.default_rng(0).random((3, *grid.shape)).astype(np.float32)
    points = find_minima(torch.from_numpy(fields), grid)
    for state, field in enumerate(fields):
        found = {
            (int(j), int(i)) for f, j, i in zip(points.state, points.row, points.column, strict=True) if f == state
        }
        assert {(j, i) for j, i in found if 0 < j < 12} == by_hand(field)


def test_a_band_of_rows_has_the_minima_of_these_rows():
    grid = Grid.parse("24x12")
    field = torch.rand(2, *grid.shape, generator=torch.Generator().manual_seed(0))
    everywhere, band = find_minima(field, grid), find_minima(field, grid, slice(3, 8))
    inside = (everywhere.row >= 3) & (everywhere.row < 8)
    for whole, part in zip(vars(everywhere.select(inside)).values(), vars(band).values(), strict=True):
        assert torch.equal(whole, part)


def test_a_row_on_the_pole_is_one_point():
    grid = Grid.parse("24x13")
    field = torch.ones(1, *grid.shape)
    field[0, -1] = 0.5
    points = find_minima(field, grid)
    assert (points.row.tolist(), points.column.tolist()) == ([12], [0])


def test_a_neighbour_beyond_the_pole_counts():
    grid = Grid.parse("24x12")
    field = torch.full((1, *grid.shape), 2.0)
    field[0, -1, 3], field[0, -1, 15] = 1.0, 0.5  # on opposite meridians, 15 degrees apart
    points = find_minima(field, grid)
    assert (points.row.tolist(), points.column.tolist()) == ([11], [15])


def test_a_flat_field_has_no_minimum_and_a_plateau_has_one():
    grid = Grid.parse("24x12")
    field = torch.ones(1, *grid.shape)
    assert len(find_minima(field, grid)) == 0
    field[0, 5, 3:5] = 0.0
    assert len(find_minima(field, grid)) == 1


@pytest.mark.parametrize("text", ["240x121", "120x61", "120x60"])
def test_the_paraboloid_finds_centres_between_grid_points(text: str):
    grid = Grid.parse(text)
    spacing_km = 111.2 * 360 / grid.shape[1]
    lat, lon = np.meshgrid(grid.latitude, grid.longitude, indexing="ij")
    errors = []
    for latitude, longitude in np.random.default_rng(0).uniform([-85, -180], [85, 180], (40, 2)):
        away = distance_km(lat, lon, latitude, longitude)
        field = torch.from_numpy(1e5 - 3e3 * np.exp(-((away / 700) ** 2))).float()[None]
        points = find_minima(field, grid)
        points = points.select(points.of(field).argmin()[None])
        found = [float(value) for value in refine_minima(field, grid, points)]
        errors.append(float(distance_km(latitude, longitude, *found[:2])))
        assert abs(found[2] - 97_000) < 120
    assert max(errors) < 0.3 * spacing_km
    assert np.mean(errors) < 0.08 * spacing_km
