"""A small, plausible world with any channels, as a store that the stages read."""

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
import yaml

from ladcast.data.normalization import Normalizer, pack
from ladcast.fields import ERA5_CHANNELS, SST, VARIABLES, Channel, ChannelSet
from ladcast.forecasting.checkpoints import save_codec
from ladcast.forecasting.codec import LatentCodec
from ladcast.grid import Grid
from ladcast.models.autoencoder import Autoencoder, AutoencoderConfig

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
        scale = 500.0 if name == "geopotential" else 0.02 * (about.plausible[1] - about.plausible[0])
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


@pytest.fixture(scope="session")
def autoencoder(world: xr.Dataset, channels: ChannelSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder of a small autoencoder with random weights, on the grid without the south pole."""
    torch.manual_seed(0)
    grid = Grid.parse("16x9-south")
    config = AutoencoderConfig(
        channels=len(channels),
        static_channels=1,
        latent_channels=4,
        widths=(8, 8),
        blocks=(1, 1),
        kinds=("residual", "residual"),
        kernels=((), ()),
        pole_rows=grid.pole_rows,
    )
    state = pack(world, channels).numpy()
    mean, std = (torch.from_numpy(f(state, axis=(0, 2, 3))) for f in (np.nanmean, np.nanstd))
    normalizer = Normalizer(channels, mean, std)
    codec = LatentCodec(Autoencoder(config), normalizer, grid, static=torch.randn(1, *grid.shape))
    folder = tmp_path_factory.mktemp("model") / "autoencoder"
    save_codec(codec, folder, {})
    return folder


@pytest.fixture(scope="session")
def hourly(grid: Grid) -> xr.Dataset:
    """Two days of hourly states with WeatherBench 2 names and hourly precipitation, from north to south."""
    channels = ChannelSet(("u_component_of_wind", "v_component_of_wind"), ("2m_temperature",), (500, 850))
    world = make_world(channels, grid, num_times=48)
    rain = np.random.default_rng(1).gamma(0.2, 1e-3, (48, *grid.shape)).astype(np.float32)
    times = world["time"].values[0] + np.arange(48) * np.timedelta64(1, "h")
    world = world.assign(total_precipitation=(("time", "latitude", "longitude"), rain, {"units": "m"}))
    return world.assign_coords(time=times).isel(latitude=slice(None, None, -1))
