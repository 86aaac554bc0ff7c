"""A small, plausible world with any channels, as a store that the stages read."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import yaml

from ladcast.fields import ERA5_CHANNELS, SST, VARIABLES, Channel, ChannelSet
from ladcast.grid import Grid

SMALL = ChannelSet(("geopotential", "temperature"), ("2m_temperature", SST), (500, 850))


def typical(channel: Channel) -> float:
    """Returns a plausible value; the geopotential is that of an isothermal atmosphere."""
    if channel.variable == "geopotential":
        return 9.80665 * 7000 * np.log(1013.25 / channel.level)
    return sum(channel.about.plausible) / 2


def make_world(channels: ChannelSet, grid: Grid, num_times: int) -> xr.Dataset:
    """Builds noisy fields in canonical layout, float32, with NaN over land in the SST."""
    random = np.random.default_rng(0)
    land = np.zeros(grid.shape, dtype=bool)
    land[2:5, 3:8] = True
    variables = {}
    for name in channels.variables:
        about = VARIABLES[name]
        levels = channels.levels if about.on_levels else (None,)
        mean = np.array([typical(Channel(name, level)) for level in levels])[:, None, None]
        scale = 0.02 * (about.plausible[1] - about.plausible[0])
        values = mean + scale * random.standard_normal((num_times, len(levels), *grid.shape))
        values = np.where(land, np.nan, values) if name == SST else values
        point = ("latitude", "longitude")
        variables[name] = (
            (("time", "level", *point), values.astype(np.float32))
            if about.on_levels
            else (("time", *point), values[:, 0].astype(np.float32))
        )
    variables["land_sea_mask"] = (("latitude", "longitude"), land.astype(np.float32))
    times = np.datetime64("2020-01-01", "ns") + np.arange(num_times) * np.timedelta64(6, "h")
    lat, lon = np.asarray(grid.latitude), np.asarray(grid.longitude)
    coordinates = {"time": times, "level": list(channels.levels), "latitude": lat, "longitude": lon}
    return xr.Dataset(variables, coords=coordinates, attrs={"source": "random numbers"})


@pytest.fixture(scope="session")
def channels() -> ChannelSet:
    return SMALL


@pytest.fixture(scope="session")
def grid() -> Grid:
    return Grid.parse("16x9")


@pytest.fixture(scope="session")
def world(channels: ChannelSet, grid: Grid) -> xr.Dataset:
    return make_world(channels, grid, num_times=101)


@pytest.fixture(scope="session")
def store(world: xr.Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("world") / "world.zarr"
    world.to_zarr(path)
    return path


@pytest.fixture(scope="session")
def channel_file(channels: ChannelSet, tmp_path_factory: pytest.TempPathFactory) -> Path:

    path = tmp_path_factory.mktemp("channels") / "small.yaml"
    path.write_text(yaml.safe_dump(channels.to_dict()))
    return path


@pytest.fixture(scope="session")
def full_store(grid: Grid, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with all channels of the standard set: 3 days."""
    path = tmp_path_factory.mktemp("full") / "full.zarr"
    make_world(ERA5_CHANNELS, grid, num_times=12).to_zarr(path)
    return path
