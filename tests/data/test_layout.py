import numpy as np
import pytest
import xarray as xr

from ladcast.data.layout import canonical_layout
from ladcast.grid import Grid, grid_of


def disarranged(world: xr.Dataset) -> xr.Dataset:
    """The same world as others lay it out: transposed, north first, from -180 degrees, levels reversed."""
    west = (world["longitude"].values + 180) % 360 - 180
    other = world.assign_coords(longitude=west).sortby("longitude")
    other = other.isel(latitude=slice(None, None, -1), level=slice(None, None, -1))
    return other.transpose("time", "level", "longitude", "latitude")


def test_every_arrangement_becomes_the_same(world, channels):
    xr.testing.assert_equal(canonical_layout(disarranged(world), channels, "x").load(), world)


@pytest.mark.parametrize(
    "selection",
    [
        {"time": 2},
        {"time": [3, 1]},
        {"time": slice(1, 4), "level": 1},
        {"level": [2, 0], "longitude": slice(3, 9)},
        {"latitude": 4, "longitude": [0, 5]},
        {"time": -1, "latitude": slice(None, None, -1)},
        {"time": 0, "level": 0, "latitude": 0, "longitude": 0},
    ],
)
def test_a_lazy_selection_is_the_selection(world, channels, selection):
    lazy = canonical_layout(disarranged(world), channels, "x")
    for name in ("temperature", "sea_surface_temperature"):
        own = {dim: index for dim, index in selection.items() if dim in lazy[name].dims}
        xr.testing.assert_equal(lazy[name].isel(own).load(), world[name].isel(own))


def test_grid_of_reads_the_coordinates(world, grid):
    assert grid_of(world).matches(grid)


def test_a_single_time_without_dimension(world, channels):
    lazy = canonical_layout(world.isel(time=1), channels, "x")
    xr.testing.assert_equal(lazy.load(), world.isel(time=[1]))


def test_a_gaussian_grid_counts_as_global(channels, make):
    gaussian = np.degrees(np.arcsin(np.polynomial.legendre.leggauss(8)[0]))
    grid = Grid(tuple(gaussian.tolist()), Grid.parse("16x8").longitude)
    assert grid_of(canonical_layout(make(grid), channels, "x")).matches(grid)


def drop_columns(world: xr.Dataset) -> xr.Dataset:
    return world.isel(longitude=slice(0, 10))


def repeat_column(world: xr.Dataset) -> xr.Dataset:
    first = world.isel(longitude=[0]).assign_coords(longitude=[360.0])
    return xr.concat([world.drop_vars("land_sea_mask"), first.drop_vars("land_sea_mask")], dim="longitude")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (drop_columns, r"evenly spaced longitudes around the globe.*gap of 157.5 deg"),
        (repeat_column, r"'longitude' has 0 deg twice"),
        (lambda world: world.isel(latitude=slice(2, None)), r"global grid, got latitudes -45..90"),
        (
            lambda world: world.isel(latitude=[0, 2, 1, 3, 4, 5, 6, 7, 8]),
            r"'latitude' is expected to increase",
        ),
        (
            lambda world: world.isel(latitude=[0, 1, 1, 2, 3, 4, 5, 6, 7, 8]),
            r"'latitude' is expected to increase",
        ),
        (lambda world: world.expand_dims(number=2), r"got \('number',.*ds.isel\(number=0\)"),
        (lambda world: world.drop_vars("latitude"), r"expected a coordinate 'latitude'"),
    ],
)
def test_a_broken_layout_is_refused(world, channels, spoil, message):
    with pytest.raises(ValueError, match=message):
        canonical_layout(spoil(world), channels, "store")
