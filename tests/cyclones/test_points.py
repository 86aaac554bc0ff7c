"""Circles around grid points: linear functions on the sphere have known values there, also over the poles."""

import numpy as np
import pytest
import torch
import xarray as xr

from ladcast.cyclones.detection import Detection, TrackingFields, detect
from ladcast.cyclones.points import (
    BEARINGS,
    KM_PER_DEGREE,
    Points,
    bearing_deg,
    destination,
    distance_km,
    extrapolate,
    find_minima,
    mirrored_rows,
    positions,
    refine_minima,
    stencil,
    unit_vectors,
)
from ladcast.grid import Grid
from ladcast.units import MEAN_EARTH_RADIUS_KM

QUARTER = np.pi / 2 * MEAN_EARTH_RADIUS_KM


@pytest.fixture
def anywhere() -> np.ndarray:
    return np.random.default_rng(0).uniform([-89, -180, -89, -180], [89, 180, 89, 180], (200, 4)).T


def test_known_distances():
    assert distance_km(0.0, 0.0, 90.0, 123.0) == pytest.approx(QUARTER)
    assert distance_km(0.0, 179.0, 0.0, -179.0) == pytest.approx(QUARTER / 45)
    assert distance_km(12.0, 34.0, -12.0, -146.0) == pytest.approx(2 * QUARTER)
    assert distance_km(45.0, 7.0, 45.0, 7.0 + 1e-9) == pytest.approx(7.86e-8, rel=1e-2)  # no cancellation


def test_positions_undo_unit_vectors(anywhere):
    latitude, longitude, *_ = anywhere
    back = positions(3.0 * unit_vectors(latitude, longitude))
    np.testing.assert_allclose(back, (latitude, longitude))


def test_going_by_bearing_and_distance_arrives(anywhere):
    here, there = anywhere[:2], anywhere[2:]
    latitude, longitude = destination(*here, bearing_deg(*here, *there), distance_km(*here, *there))
    assert distance_km(latitude, longitude, *there).max() < 1e-4


def test_the_bearing_is_clockwise_from_north():
    np.testing.assert_allclose(
        bearing_deg(0.0, 179.0, np.array([1.0, 0.0, -1.0, 0.0]), np.array([179.0, -180.0, 179.0, 178.0])),
        [0.0, 90.0, 180.0, 270.0],
    )


def test_extrapolation_keeps_to_the_great_circle_and_the_speed(anywhere):
    before, now = unit_vectors(*anywhere[:2]), unit_vectors(*anywhere[2:])
    steps = np.full(len(now), 0.7)
    after = extrapolate(before, now, steps)
    angle, further = (np.arccos((now * other).sum(-1)) for other in (before, after))
    np.testing.assert_allclose(np.cos(further), np.cos(0.7 * angle), atol=1e-9)
    np.testing.assert_allclose((after * np.cross(before, now)).sum(-1), 0, atol=1e-12)


def test_what_does_not_move_stays():
    here = unit_vectors(np.array([12.0]), np.array([34.0]))
    np.testing.assert_allclose(extrapolate(here, here, np.ones(1)), here)


GRIDS = ["120x61", "120x60", "120x61-south", "240x121"]


def every_point(grid: Grid) -> Points:
    rows, columns = grid.shape
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return Points(torch.zeros(rows * columns, dtype=torch.int64), row.flatten(), column.flatten())


def on_grid(grid: Grid) -> np.ndarray:
    return unit_vectors(*np.meshgrid(grid.latitude, grid.longitude, indexing="ij"))


@pytest.mark.slow
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


@pytest.mark.parametrize("text", ["120x61", "120x60"])
def test_centres_lie_between_grid_points_where_they_truly_lie(text: str):
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


@pytest.mark.parametrize("text", ["24x13", "24x12"])
def test_a_centre_stays_in_the_cell_of_its_point_and_lies_no_higher(text: str):
    grid = Grid.parse(text)
    field = torch.rand(20, *grid.shape, generator=torch.Generator().manual_seed(0))
    points = find_minima(field, grid)
    latitude, longitude, value = refine_minima(field, grid, points)
    north = latitude - torch.tensor(grid.latitude)[points.row]
    east = (longitude - torch.tensor(grid.longitude)[points.column] + 180) % 360 - 180
    assert (north.abs() <= (grid.latitude[1] - grid.latitude[0]) / 2 + 1e-9).all()
    assert (east.abs() <= 180 / grid.shape[1] + 1e-9).all()
    assert latitude.abs().max() <= 90
    assert (value <= points.of(field)).all()
    assert (value >= points.of(field) - 0.25).all()  # at most an eighth of the rise on each axis


@pytest.mark.slow
@pytest.mark.parametrize(("stride", "gain"), [(10, 0.8), (6, 0.85)])
def test_centres_on_a_coarse_grid_are_nearer_to_those_of_the_fine_field_than_its_points(
    shared, stride: int, gain: float
):
    """ERA5 at 0.25 degrees, thinned to 2.5 and 1.5 degrees from several first meridians: centres gain a quarter."""
    with xr.open_dataset(shared / "kit/era5/era5_msl_0p25deg_20251201T00.nc", engine="netcdf4") as ds:
        fine = ds["msl"].squeeze().sortby("latitude").astype("float32")
    grid = Grid.parse(f"{1440 // stride}x{720 // stride + 1}")
    rows = []
    for first in range(0, stride, 3):
        coarse = torch.from_numpy(np.roll(fine.values, -first, axis=1)[::stride, ::stride].copy())[None]
        lows = detect(TrackingFields(grid, coarse), Detection())
        points = find_minima(coarse, grid)
        at = np.array(grid.latitude)[points.row], np.array(grid.longitude)[points.column]
        own = distance_km(lows.latitude[:, None], lows.longitude[:, None], *at).argmin(1)
        for latitude, longitude, point in zip(lows.latitude, lows.longitude, own, strict=True):
            true = lowest_within(fine, at[0][point], at[1][point] + first / 4, radius_deg=stride / 4)
            refined = distance_km(latitude, longitude + first / 4, *true)
            rows.append((abs(latitude), refined, distance_km(at[0][point], at[1][point] + first / 4, *true)))
    latitude, refined, of_grid = np.array(rows, dtype=float).T
    for name, inside in {"all": latitude >= 0, "50-70 deg": (latitude > 50) & (latitude < 70)}.items():
        mean, before = refined[inside].mean(), of_grid[inside].mean()
        print(f"{stride / 4} deg, {name}: centres {mean:.0f} km, grid minima {before:.0f} km, {inside.sum()} lows")
        assert mean < gain * before


def lowest_within(field: xr.DataArray, latitude: float, longitude: float, *, radius_deg: float) -> tuple[float, float]:
    near = field.isel(latitude=np.flatnonzero(abs(field["latitude"].values - latitude) <= radius_deg))
    lat, lon = np.meshgrid(near["latitude"].values, near["longitude"].values, indexing="ij")
    inside = distance_km(lat, lon, latitude, longitude) <= radius_deg * KM_PER_DEGREE
    lowest = np.where(inside, near.values, np.inf).argmin()
    return float(lat.flat[lowest]), float(lon.flat[lowest])
