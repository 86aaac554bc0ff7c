import numpy as np
import pytest
import torch
import xarray as xr

from ladcast.data.packing import pack, unpack
from ladcast.data.store import open_store
from ladcast.fields import ERA5_CHANNELS, VARIABLES


def test_unpack_inverts_pack_exactly(world, channels, grid):
    fields = world.drop_vars("land_sea_mask")
    xr.testing.assert_equal(unpack(pack(fields, channels), channels, grid, world["time"].values), fields)


def test_pack_inverts_unpack_exactly(state, channels, grid, world):
    again = pack(unpack(state, channels, grid, world["time"].values), channels)
    torch.testing.assert_close(again, state, rtol=0, atol=0, equal_nan=True)


def test_channels_hold_what_they_are_named_after(world, state, channels):
    np.testing.assert_array_equal(state[:, channels.index("t500")], world["temperature"].sel(level=500))
    np.testing.assert_array_equal(state[:, channels.index("msl")], world["mean_sea_level_pressure"])


def test_pack_follows_the_levels_of_the_channels_not_of_the_dataset(world, state, channels):
    shuffled = world.isel(level=[2, 0, 1]).transpose("longitude", "time", "level", "latitude")
    torch.testing.assert_close(pack(shuffled, channels), state, rtol=0, atol=0, equal_nan=True)


def test_double_precision_becomes_single(world, channels):
    assert pack(world.astype(np.float64), channels).dtype == torch.float32


def test_unpack_writes_units_and_standard_names(state, channels, grid, world):
    ds = unpack(state, channels, grid, world["time"].values)
    for name in channels.variables:
        assert ds[name].attrs["units"] == VARIABLES[name].units
        assert ds[name].attrs["standard_name"] == VARIABLES[name].standard_name
    assert ds["level"].attrs["units"] == "hPa"


def test_unpack_refuses_another_shape(state, channels, grid, world):
    with pytest.raises(ValueError, match=r"\(time, channel, lat, lon\) = \(5, 12, 9, 16\), got \(5, 3, 9, 16\)"):
        unpack(state[:, :3], channels, grid, world["time"].values)


def test_real_fields_survive(shared):
    ds = open_store(shared / "nature_run/sample_t31_64x33_10d.nc", ERA5_CHANNELS).isel(time=[0, 7]).load()
    state = pack(ds, ERA5_CHANNELS)
    z500 = state[:, ERA5_CHANNELS.index("z500")].numpy()
    np.testing.assert_array_equal(z500, ds["geopotential"].sel(level=500).astype(np.float32))
    assert state.shape == (2, 84, 33, 64)
