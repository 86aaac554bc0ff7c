import json
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from ladcast.data.normalization import Normalizer, normalized_static, ocean_mask, pack, read_static, unpack
from ladcast.data.store import open_store
from ladcast.fields import ERA5_CHANNELS, VARIABLES, ChannelSet
from ladcast.grid import Grid
from ladcast.released import Assets


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


GRID = Grid.parse("16x9")


@pytest.fixture
def normalizer(state, channels):
    values = state.transpose(0, 1).flatten(1).double()
    finite = [plane[plane.isfinite()] for plane in values]
    mean = torch.stack([plane.mean() for plane in finite]).float()
    return Normalizer(channels, mean, torch.stack([plane.std() for plane in finite]).float())


def test_inverse_restores_the_state_and_its_land(state, channels, normalizer):
    restored = normalizer.inverse(normalizer(state), ocean_mask(state, channels))
    torch.testing.assert_close(restored, state, rtol=1e-6, atol=1e-7, equal_nan=True)


def test_scaled_channels_have_zero_mean_and_unit_spread(state, channels, normalizer):
    scaled = normalizer(state).transpose(0, 1).flatten(1)
    complete = [index for index in range(len(channels)) if index not in channels.masked_on_land]
    torch.testing.assert_close(scaled[complete].mean(1), torch.zeros(len(complete)), atol=1e-3, rtol=0)
    torch.testing.assert_close(scaled[complete].std(1), torch.ones(len(complete)), atol=1e-3, rtol=0)


def test_land_becomes_the_fill_and_nothing_else_does(state, channels, normalizer):
    (index,) = channels.masked_on_land
    sst = normalizer(state)[:, index]
    ocean = ocean_mask(state, channels)
    assert (sst[:, ~ocean] == -2).all()
    expected = (state[:, index] - normalizer.mean[index]) / normalizer.std[index]
    torch.testing.assert_close(sst[:, ocean], expected[:, ocean], rtol=0, atol=0)


def test_nan_outside_the_sst_is_refused_by_name(state, channels, normalizer):
    state[1, channels.index("t500"), 3, 4] = torch.nan
    with pytest.raises(ValueError, match=r"finite values in the state.*channels: t500\."):
        normalizer(state)


def test_an_sst_without_any_ocean_is_refused(state, channels, normalizer):
    """All land is what a failed read looks like."""
    state[1, channels.masked_on_land[0]] = torch.nan
    with pytest.raises(ValueError, match=r"finite values in the state.*channels: sst\."):
        normalizer(state)


@pytest.mark.parametrize("name", ["msl", "sst"])
def test_infinity_is_refused_by_name(state, channels, normalizer, name):
    state[0, channels.index(name), 0, 0] = torch.inf
    with pytest.raises(ValueError, match=rf"finite values in the state.*channels: {name}\."):
        normalizer(state)


def test_only_non_negative_channels_are_clipped(channels, normalizer, grid):
    low = normalizer.inverse(torch.full((len(channels), *grid.shape), -1e6))
    negative = [name for name, plane in zip(channels.names, low, strict=True) if (plane < 0).all()]
    assert set(channels.names) - set(negative) == {"q300", "q500", "q850"}
    assert (low[channels.index("q500")] == 0).all()


def test_without_an_ocean_the_sst_stays_finite(state, normalizer):
    assert normalizer.inverse(normalizer(state)).isfinite().all()


def test_neither_way_changes_its_argument(state, channels, normalizer):
    before = state.clone()
    scaled = normalizer(state)
    kept = scaled.clone()
    normalizer.inverse(scaled, ocean_mask(state, channels))
    torch.testing.assert_close(state, before, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(scaled, kept, rtol=0, atol=0)


def test_a_saved_normalizer_loads_exactly(tmp_path, channels, normalizer):
    normalizer.save(tmp_path / "normalizer.json")
    loaded = Normalizer.load(tmp_path / "normalizer.json", channels)
    torch.testing.assert_close(loaded.mean, normalizer.mean, rtol=0, atol=0)
    torch.testing.assert_close(loaded.std, normalizer.std, rtol=0, atol=0)
    row = json.loads((tmp_path / "normalizer.json").read_text())["channels"]["z500"]
    assert set(row) == {"mean", "std"}


def test_a_smaller_channel_set_takes_its_own_numbers(tmp_path, channels, normalizer):
    normalizer.save(tmp_path / "normalizer.json")
    fewer = ChannelSet(("temperature",), ("mean_sea_level_pressure",), (500,))
    loaded = Normalizer.load(tmp_path / "normalizer.json", fewer)
    expected = normalizer.mean[[channels.index("t500"), channels.index("msl")]]
    torch.testing.assert_close(loaded.mean, expected, rtol=0, atol=0)


def test_missing_statistics_are_named(tmp_path, normalizer):
    normalizer.save(tmp_path / "normalizer.json")
    more = ChannelSet(("vertical_velocity",), ("2m_temperature",), (500,))
    with pytest.raises(ValueError, match=r"normalizer.json.*missing: w500\."):
        Normalizer.load(tmp_path / "normalizer.json", more)


@pytest.mark.parametrize(("value", "message"), [(0.0, "a positive std"), (float("nan"), "a finite std")])
def test_an_unusable_std_is_refused_by_name(channels, value, message):
    std = torch.ones(len(channels))
    std[channels.index("q850")] = value
    with pytest.raises(ValueError, match=rf"{message}.*channels: q850\."):
        Normalizer(channels, torch.zeros(len(channels)), std)


def test_numbers_for_another_count_of_channels_are_refused(channels):
    with pytest.raises(ValueError, match="12 values of mean"):
        Normalizer(channels, torch.zeros(3), torch.ones(3))


def test_the_ocean_is_where_the_sst_never_lacks(state, channels):
    ocean = ocean_mask(state, channels)
    row, column = ocean.nonzero()[5].tolist()
    state[2, channels.masked_on_land[0], row, column] = torch.nan
    assert ocean.sum() - ocean_mask(state, channels).sum() == 1


def test_an_empty_sst_is_refused_and_a_set_without_sst_is_all_ocean(state, channels):
    with pytest.raises(ValueError, match="NaN everywhere"):
        ocean_mask(torch.full_like(state, torch.nan), channels)
    dry = ChannelSet(("temperature",), (), (500,))
    assert ocean_mask(state[:, :1], dry).all()


@pytest.mark.slow
def test_released_statistics_fit_the_standard_channels_and_real_weather(shared: Path):
    normalizer = Normalizer.load(Assets().statistics, ERA5_CHANNELS)
    assert normalizer.mean[ERA5_CHANNELS.index("z500")] == 54080.28125
    assert normalizer.std[ERA5_CHANNELS.index("tp6h")] == pytest.approx(0.0016621261602267623)
    with xr.open_dataset(shared / "kit/gfs/gfs_240x121_wb2names_2times.nc") as ds:
        state = pack(
            open_store(ds, ERA5_CHANNELS, Grid.parse("240x121-south"), regular=False, complete=False), ERA5_CHANNELS
        )
    scaled = (state - normalizer.mean[:, None, None]) / normalizer.std[:, None, None]
    poor = {"w50", *(f"q{level}" for level in (50, 100, 150, 200, 250))}  # missing in GFS, or nothing but a guess
    known = [name for name in ERA5_CHANNELS.names if name not in poor]
    for name in known:
        plane = scaled[:, ERA5_CHANNELS.index(name)]
        finite = plane[plane.isfinite()]
        assert abs(finite.mean()) < 0.8, name
        assert 0.4 < finite.std() < 2, name


def test_statistics_that_are_no_json_are_named(tmp_path: Path):
    (tmp_path / "statistics.json").write_text('{"geopotential": ')
    with pytest.raises(ValueError, match=r"statistics\.json cannot be read as JSON"):
        Normalizer.load(tmp_path / "statistics.json", ERA5_CHANNELS)


def test_released_statistics_without_a_channel_are_refused(tmp_path: Path):
    content = json.loads(Assets().statistics.read_text())
    del content["geopotential"]["std"]["850"], content["geopotential"]["mean"]["850"]
    (tmp_path / "statistics.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"missing: z850\."):
        Normalizer.load(tmp_path / "statistics.json", ERA5_CHANNELS)


@pytest.fixture
def static_fields() -> xr.Dataset:
    rng = np.random.default_rng(0)
    shape = ("latitude", "longitude")
    return xr.Dataset(
        {"mask": (shape, rng.random(GRID.shape)), "height": (shape, 1e3 * rng.random(GRID.shape))},
        coords={"latitude": list(GRID.latitude), "longitude": list(GRID.longitude)},
    )


def test_each_field_has_zero_mean_and_unit_spread(static_fields: xr.Dataset):
    static = normalized_static(static_fields, ("height", "mask"), GRID, "here")
    assert static.shape == (2, *GRID.shape)
    torch.testing.assert_close(static.mean((1, 2)), torch.zeros(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(static.std((1, 2)), torch.ones(2), atol=1e-6, rtol=0)


def test_the_order_of_the_source_does_not_matter(static_fields: xr.Dataset):
    expected = normalized_static(static_fields, ("mask",), GRID, "here")
    turned = static_fields.transpose().isel(latitude=slice(None, None, -1)).roll(longitude=5, roll_coords=True)
    westward = turned.assign_coords(longitude=(turned["longitude"] + 180) % 360 - 180)
    torch.testing.assert_close(normalized_static(westward, ("mask",), GRID, "here"), expected, rtol=0, atol=0)


def test_normalised_without_the_row_that_the_grid_leaves_out(static_fields: xr.Dataset):
    cropped = normalized_static(static_fields, ("height",), GRID.without_south_pole(), "here")[0]
    rows = torch.from_numpy(static_fields["height"].values[1:])
    torch.testing.assert_close(cropped, ((rows - rows.mean()) / rows.std()).float())


def test_what_cannot_be_used_is_named(static_fields: xr.Dataset, tmp_path: Path):
    with pytest.raises(ValueError, match=r"here: expected the static fields \['mask', 'slope'\], \['slope'\] are"):
        normalized_static(static_fields, ("mask", "slope"), GRID, "here")
    with pytest.raises(ValueError, match=r"which \['mask'\] do not"):
        normalized_static(static_fields.assign(mask=static_fields["mask"] * 0), ("mask",), GRID, "here")
    with pytest.raises(FileNotFoundError, match=r"No static fields at .*nowhere\.nc"):
        read_static(tmp_path / "nowhere.nc", ("mask",), GRID)


def test_the_released_static_fields_are_those_of_the_kit(shared: Path):
    assets = Assets()
    kit = shared / "kit/static/ladcast_static_240x121.nc"
    grid = Grid.parse(assets.grid)
    ours, theirs = (read_static(path, assets.static_fields, grid) for path in (assets.static, kit))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    assert ours.shape == (5, 120, 240)
