"""A small, plausible world that the tests of the data room take apart."""

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr

from ladcast.data.normalization import pack
from ladcast.fields import ChannelSet
from ladcast.grid import Grid

CHANNELS = ChannelSet(
    upper_air=("geopotential", "temperature", "specific_humidity"),
    surface=("2m_temperature", "mean_sea_level_pressure", "sea_surface_temperature"),
    levels=(300, 500, 850),
)
MEANS = {
    "geopotential": [90e3, 55e3, 14e3],
    "temperature": [230.0, 255.0, 278.0],
    "specific_humidity": [1e-4, 8e-4, 5e-3],
    "2m_temperature": 287.0,
    "mean_sea_level_pressure": 101_100.0,
    "sea_surface_temperature": 290.0,
}


def make_world(grid: Grid, num_times: int = 5) -> xr.Dataset:
    """Builds fields of the right size with some noise, land in the SST, in canonical layout, float32."""
    generator = np.random.default_rng(0)
    lat, lon = np.asarray(grid.latitude), np.asarray(grid.longitude)
    land = (np.cos(np.deg2rad(lon)) > 0.6)[None, :] & (abs(lat) < 60)[:, None]
    variables = {}
    for name in CHANNELS.variables:
        mean = np.asarray(MEANS[name])
        shape = (num_times, *mean.shape, *grid.shape)
        noise = 0.01 * generator.standard_normal(shape) + 0.01 * np.cos(np.deg2rad(lat))[:, None]
        values = mean[..., None, None] * (1 + noise)
        if name == "sea_surface_temperature":
            values = np.where(land, np.nan, values)
        dims = ("time", *(("level",) if mean.ndim else ()), "latitude", "longitude")
        variables[name] = (dims, values.astype(np.float32))
    variables["land_sea_mask"] = (("latitude", "longitude"), land.astype(np.float32))
    times = np.datetime64("2020-01-01", "ns") + np.arange(num_times) * np.timedelta64(6, "h")
    coordinates = {"time": times, "level": list(CHANNELS.levels), "latitude": lat, "longitude": lon}
    return xr.Dataset(variables, coords=coordinates)


@pytest.fixture
def channels() -> ChannelSet:
    return CHANNELS


@pytest.fixture
def grid() -> Grid:
    return Grid.parse("16x9")


@pytest.fixture
def world(grid: Grid) -> xr.Dataset:
    return make_world(grid)


@pytest.fixture
def make() -> Callable[..., xr.Dataset]:
    return make_world


@pytest.fixture
def state(world: xr.Dataset, channels: ChannelSet):
    return pack(world, channels)
