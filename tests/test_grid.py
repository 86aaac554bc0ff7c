"""Grids: areas that add up to the sphere, poles, cropping and coarsening; places on them."""

import json

import numpy as np
import pytest
import xarray as xr

from ladcast.grid import CITIES, Box, Grid, Place, circles_globe, parse_region, points_of, row_weights

SIZES = ["240x121", "240x121-south", "64x32", "64x33", "16x9-south"]


@pytest.mark.parametrize("size", SIZES)
def test_the_weighted_mean_of_harmonics_is_that_of_the_sphere(size: str):
    """The mean of sin^2(latitude) over the sphere is 1/3, that of sin(latitude) is 0."""
    grid = Grid.parse(size)
    assert grid.area_weights.mean() == pytest.approx(1, abs=1e-12)
    assert (grid.area_weights > 0).all()
    sine = np.sin(np.deg2rad(grid.latitude))
    row_deg = 180 / grid.shape[0]
    assert (grid.area_weights * sine**2).mean() == pytest.approx(1 / 3, abs=2e-4 * row_deg**2)
    assert (grid.area_weights * sine).mean() == pytest.approx(0, abs=2e-4 * row_deg**2)


def test_bounds_are_midpoints_and_poles():
    np.testing.assert_allclose(Grid.regular(8, 5).latitude_bounds, [-90, -67.5, -22.5, 22.5, 67.5, 90])
    np.testing.assert_allclose(Grid.regular(8, 4).latitude_bounds, [-90, -45, 0, 45, 90])


def test_an_odd_number_of_rows_has_poles_and_an_even_one_has_none():
    assert Grid.parse("240x121").pole_rows == (True, True)
    assert Grid.parse("240x121-south").pole_rows == (False, True)
    assert Grid.parse("240x120").pole_rows == (False, False)


def test_the_grid_of_weatherbench_2():
    grid = Grid.parse("240x121")
    assert grid.shape == (121, 240)
    np.testing.assert_allclose(grid.latitude, np.arange(-90, 90.1, 1.5))
    np.testing.assert_allclose(grid.longitude, np.arange(0, 360, 1.5))


def test_without_the_south_pole_the_published_tokens_come_out():
    grid = Grid.parse("240x121-south")
    assert (grid.latitude[0], grid.latitude[-1]) == (-88.5, 90.0)
    tokens = grid.coarsen(8)
    assert tokens.shape == (15, 30)
    assert (tokens.latitude[0], tokens.latitude[-1]) == (-83.25, 84.75)
    assert (tokens.longitude[0], tokens.longitude[-1]) == (5.25, 353.25)


@pytest.mark.parametrize("factor", [2, 4])
def test_a_coarse_cell_has_the_area_of_the_cells_it_covers(factor: int):
    grid = Grid.regular(16, 8)
    fine = grid.area_weights.reshape(-1, factor).mean(axis=1)
    np.testing.assert_allclose(grid.coarsen(factor).area_weights, fine, rtol=1e-12)


def test_coarsening_twice_is_coarsening_once():
    grid = Grid.parse("64x33-south")
    assert grid.coarsen(2).coarsen(2).matches(grid.coarsen(4))
    assert grid.coarsen(1).matches(grid)


def test_grids_match_to_a_thousandth_of_a_degree():
    grid = Grid.regular(16, 9)
    near = Grid(grid.latitude, tuple(np.asarray(grid.longitude) + 1e-4))
    far = Grid(grid.latitude, tuple(np.asarray(grid.longitude) + 1e-2))
    assert grid.matches(near)
    assert near.matches(grid)
    assert not grid.matches(far)
    assert not grid.matches(Grid.regular(16, 8))


@pytest.mark.parametrize("size", SIZES)
def test_grids_travel_through_json(size: str):
    grid = Grid.parse(size)
    assert Grid.from_dict(json.loads(json.dumps(grid.to_dict()))) == grid


def test_a_grid_says_what_it_is():
    assert str(Grid.parse("240x121-south")) == "240 x 120 (latitude -88.5..90)"


@pytest.mark.parametrize(
    ("latitude", "longitude", "message"),
    [
        ((90, 0, -90), (0, 90, 180, 270), r"Latitudes must increase strictly.*got 3 values"),
        ((-100, 0, 100), (0, 90, 180, 270), "Latitudes must increase strictly"),
        ((0,), (0, 90, 180, 270), "Latitudes must increase strictly"),
        ((-90, 0, 90), (-180, -90, 0, 90), r"Longitudes must circle the globe evenly"),
        ((-90, 0, 90), (0, 10, 20, 30), r"Longitudes must circle the globe evenly"),
        ((-90, 0, 90), (270, 180, 90, 0), r"Longitudes must circle the globe evenly"),
        ((-90, 0, 90), (), r"Longitudes must circle the globe evenly"),
    ],
)
def test_a_grid_that_cannot_be_is_refused(latitude, longitude, message: str):
    with pytest.raises(ValueError, match=message):
        Grid(tuple(map(float, latitude)), tuple(map(float, longitude)))


@pytest.mark.parametrize("text", ["240", "240x", "axb", "240x121x3", "240 by 121", ""])
def test_a_size_that_is_none_shows_the_form(text: str):
    with pytest.raises(ValueError, match="LONxLAT such as 240x121"):
        Grid.parse(text)


@pytest.mark.parametrize("text", ["99999999x9999999", "43201x2", "2x43201", "1000000000000000000000x3-south"])
def test_a_size_that_no_memory_holds_is_refused_at_once(text: str):
    with pytest.raises(ValueError, match=f"a grid of at most 43200 points around or along, got '{text}'"):
        Grid.parse(text)


def test_only_the_south_pole_can_be_dropped():
    with pytest.raises(ValueError, match="'-south' after the size, got '-north'"):
        Grid.parse("240x121-north")
    with pytest.raises(ValueError, match="not the south pole: nothing to drop"):
        Grid.parse("240x120-south")


def test_patches_must_divide_the_grid():
    with pytest.raises(ValueError, match="121 x 240 does not divide into patches of 8 x 8"):
        Grid.parse("240x121").coarsen(8)


@pytest.mark.parametrize(
    ("latitude", "longitude"), [(91.0, 0.0), (-90.1, 0.0), (np.nan, 0.0), (0.0, 361.0), (0.0, -181.0)]
)
def test_impossible_places_are_refused(latitude: float, longitude: float):
    with pytest.raises(ValueError, match=r"Nowhere must lie within .* got"):
        Place("Nowhere", latitude, longitude)


def test_the_nearest_point_is_found_across_the_seam():
    grid = Grid.regular(32, 16)
    field = xr.Dataset(coords={"latitude": list(grid.latitude), "longitude": list(grid.longitude)})
    assert Place("west", 0.0, -4.0).nearest(field)[1] == 0
    assert Place("east", 0.0, 357.0).nearest(field)[1] == 0
    assert Place("far west", 0.0, -11.0).nearest(field)[1] == 31


def test_a_place_is_read_from_a_line_of_text():
    assert Place.parse("Oslo,59.9,10.8") == Place("Oslo", 59.9, 10.8)
    with pytest.raises(ValueError, match=r"Oslo,59\.9,10\.8, got 'Oslo,north,9'"):
        Place.parse("Oslo,north,9")


@pytest.mark.parametrize("name", ["Oslo", "oslo", " OSLO "])
def test_a_city_is_a_place(name: str):
    assert Place.parse(name) == Place("Oslo", 59.9, 10.8)


def test_every_city_is_a_place_and_their_names_are_sorted():
    rows = CITIES.read_text(encoding="utf-8").splitlines()
    assert [Place.parse(Place.parse(row).name) for row in rows] == [Place.parse(row) for row in rows]
    assert rows == sorted(rows)


def test_an_unknown_city_is_refused_with_those_alike():
    with pytest.raises(ValueError, match=r"Name,latitude,longitude .*got 'Reykjavic'. Did you mean Reykjavik\?"):
        Place.parse("Reykjavic")


BOX = Box((20.0, 30.0, 40.0), (-10.0, 0.0, 10.0))


def test_the_cells_of_a_box_are_those_of_its_grid():
    """Which lies across the meridian of 0, and whose rows end where the next ones would begin."""
    whole = Grid.regular(36, 19)
    rows, columns = BOX.within(whole)
    np.testing.assert_array_equal(np.array(whole.latitude)[rows], BOX.latitude)
    np.testing.assert_array_equal(np.array(whole.longitude)[columns], [350.0, 0.0, 10.0])
    share = BOX.area_weights / BOX.area_weights.sum()
    np.testing.assert_allclose(share, whole.area_weights[rows] / whole.area_weights[rows].sum())
    with pytest.raises(ValueError, match="which lacks some of them"):
        Box((20.0, 25.0), (0.0, 10.0)).within(whole)


def test_points_are_a_grid_where_they_circle_the_globe_and_else_a_box():
    ds = xr.Dataset(coords={"latitude": [-30.0, 0.0, 30.0], "longitude": [0.0, 90.0, 180.0, 270.0]})
    assert type(points_of(ds)) is Grid
    assert type(points_of(ds.isel(longitude=slice(3)))) is Box
    assert circles_globe(ds["longitude"].values[[2, 3, 0, 1]] - 360)
    with pytest.raises(ValueError, match="increase evenly"):
        points_of(ds.isel(longitude=[0, 1, 3]))


def test_rows_weigh_what_lies_around_them_and_one_at_a_pole_counts():
    ds = xr.Dataset(coords={"latitude": [-90.0, -30.0, 30.0, 90.0], "longitude": [0.0, 90.0, 180.0, 270.0]})
    cap, belt = 1 - np.sin(np.deg2rad(60)), np.sin(np.deg2rad(60))
    np.testing.assert_allclose(row_weights(ds), np.array([cap, belt, belt, cap]) * 2, rtol=1e-12)
    north = row_weights(ds.isel(latitude=slice(2, 4), longitude=[0]))
    np.testing.assert_allclose(north, np.array([belt, cap]) * 2, rtol=1e-12)
    assert north["latitude"].values.tolist() == [30, 90]
    belt = ds.assign_coords(latitude=[-30.0, 0.0, 30.0, 60.0])
    np.testing.assert_allclose(row_weights(belt), (cosine := np.cos(np.deg2rad(belt["latitude"]))) / cosine.mean())
    assert row_weights(ds.isel(latitude=[3])).values.tolist() == [1]


def test_a_region_of_no_width_is_refused():
    with pytest.raises(ValueError, match=r"0,0,0,10 is 0 degrees wide: .* For all longitudes write -180,0,180,10"):
        parse_region("0,0,0,10")
    assert parse_region("-180,0,180,10") == (-180, 0, 180, 10)
