import json
import time

import numpy as np
import pytest
import xarray as xr
import zarr

from ladcast.data import store
from ladcast.data.lazy import LazyField
from ladcast.data.store import (
    check_ends,
    declared_gaps,
    open_store,
    open_where_present,
    present_channels,
    read_times,
    select_period,
)
from ladcast.fields import ERA5_CHANNELS, SST, ChannelSet
from ladcast.grid import Grid


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    [
        {"zarr_format": 2, "consolidated": True},
        {"zarr_format": 2, "consolidated": False},
        {"zarr_format": 3, "consolidated": True},
        {"zarr_format": 3, "consolidated": False},
    ],
)
def test_every_kind_of_zarr_store_reads_back(tmp_path, world, channels, how):
    world.transpose("time", "level", "longitude", "latitude").to_zarr(tmp_path / "a.zarr", **how)
    xr.testing.assert_equal(open_store(tmp_path / "a.zarr", channels).load(), world)


def test_netcdf_files_and_datasets_read_back(tmp_path, world, channels):
    world.to_netcdf(tmp_path / "a.nc")
    xr.testing.assert_equal(open_store(tmp_path / "a.nc", channels).load(), world)
    xr.testing.assert_equal(open_store(world, channels).load(), world)


def test_only_what_is_asked_for_comes_out(world, channels):
    fewer = ChannelSet(("temperature",), ("2m_temperature",), (850,))
    ds = open_store(world.assign(extra=world["2m_temperature"] * 2), fewer)
    assert set(ds) == {"temperature", "2m_temperature", "land_sea_mask"}
    assert ds["level"].values.tolist() == [850]


class CountingStore(zarr.storage.LocalStore):
    """Counts the chunks that are read."""

    chunks_read = 0

    async def get(self, key, *args, **kwargs):
        CountingStore.chunks_read += "/c/" in key
        return await super().get(key, *args, **kwargs)


def test_a_long_store_opens_at_once_and_reads_single_frames(tmp_path):
    channels = ChannelSet(("temperature",), ("2m_temperature",), (500, 850))
    num_times, grid = 46_000, Grid.parse("240x121")
    shape = (num_times, 2, 240, 121)
    root = zarr.create_group(tmp_path / "long.zarr", zarr_format=3)
    # Chunks that were never written read as the fill value, so 46,000 frames of 1.5 degrees take no space.
    dims = ("time", "level", "longitude", "latitude")
    surface = (*shape[:1], *shape[2:])
    root.create_array(
        "temperature", shape=shape, chunks=(1, *shape[1:]), dtype="f4", fill_value=250, dimension_names=dims
    )
    root.create_array(
        "2m_temperature",
        shape=surface,
        chunks=(1, 240, 121),
        dtype="f4",
        fill_value=280,
        dimension_names=(dims[0], *dims[2:]),
    )
    written = 250 + np.arange(121)[:, None] / 4 * np.ones((2, 1, 240))
    root["temperature"][20_000] = written.swapaxes(1, 2)
    root["2m_temperature"][20_000] = 30 + written[0].T
    coordinates = {"level": [500, 850], "longitude": grid.longitude, "latitude": grid.latitude}
    for name, values in coordinates.items():
        root.create_array(name, data=np.asarray(values), dimension_names=(name,))
    hours = root.create_array("time", data=np.arange(num_times) * 6, dimension_names=("time",))
    hours.attrs["units"] = "hours since 1979-01-01"

    CountingStore.chunks_read = 0
    raw = xr.open_zarr(CountingStore(tmp_path / "long.zarr"), chunks=None, consolidated=False)
    started = time.process_time()
    ds = open_store(raw, channels)
    assert time.process_time() - started < 1.0
    before = CountingStore.chunks_read
    frame = ds.isel(time=20_000).load()
    assert CountingStore.chunks_read - before == 2
    assert (frame["temperature"] == written).all()


def test_a_grid_without_the_south_pole_drops_its_row(world, channels):
    ds = open_store(world, channels, Grid.parse("16x9-south"))
    xr.testing.assert_equal(ds.load(), world.isel(latitude=slice(1, None)))


def test_rounded_coordinates_become_exact(world, channels, grid):
    rounded = world.assign_coords(longitude=world["longitude"].values + 1e-5)
    assert tuple(open_store(rounded, channels, grid)["longitude"].values) == grid.longitude


def test_another_grid_is_refused_with_both_sizes(world, channels):
    with pytest.raises(ValueError, match=r"expected the grid 8 x 5 .*got 16 x 9 .*--source"):
        open_store(world, channels, Grid.parse("8x5"))


def test_a_path_to_nothing_and_to_something_else(tmp_path, channels):
    with pytest.raises(FileNotFoundError, match=r"a\.zarr does not exist"):
        open_store(tmp_path / "a.zarr", channels)
    with pytest.raises(ValueError, match="is a folder but no Zarr group"):
        open_store(tmp_path, channels)
    (tmp_path / "a.nc").write_text("not a netCDF file")
    with pytest.raises(ValueError, match=r"a\.nc: expected a Zarr store or a netCDF file"):
        open_store(tmp_path / "a.nc", channels)


def test_an_unfinished_store_is_refused(tmp_path, world, channels):
    world.to_zarr(tmp_path / "a.zarr")
    (tmp_path / "manifest.json").write_text(json.dumps({"status": "running"}))
    with pytest.raises(ValueError, match=r"a\.zarr is unfinished.*status 'running'"):
        open_store(tmp_path / "a.zarr", channels)
    (tmp_path / "a.zarr" / "manifest.json").write_text(json.dumps({"status": "complete"}))
    assert open_store(tmp_path / "a.zarr", channels).sizes["time"] == 5


def test_manifests_are_optional(tmp_path):
    assert declared_gaps(tmp_path / "a.zarr") == set()


class TestGapsInTime:
    @pytest.fixture
    def with_gap(self, tmp_path, make, grid):
        make(grid, 9).isel(time=[0, 1, 2, 3, 6, 7, 8]).to_zarr(tmp_path / "a.zarr")
        return tmp_path / "a.zarr"

    def test_an_undeclared_gap_is_listed(self, with_gap, channels):
        with pytest.raises(ValueError, match=r"step of 6 h.*2020-01-01T18 -> 2020-01-02T12"):
            open_store(with_gap, channels)

    def test_a_declared_gap_passes(self, with_gap, channels):
        gaps = [["2020-01-01T18:00", "2020-01-02T12:00"]]
        (with_gap / "manifest.json").write_text(json.dumps({"status": "complete", "gaps": gaps}))
        assert open_store(with_gap, channels).sizes["time"] == 7

    def test_unrelated_times_pass_where_they_are_start_states(self, with_gap, channels):
        assert open_store(with_gap, channels, regular=False).sizes["time"] == 7


def spoiled(world: xr.Dataset, name: str, change) -> xr.Dataset:
    return world.assign({name: change(world[name])})


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("temperature", lambda t: t - 273.15, r"'temperature' at 300 hPa.*looks like degC: add 273.15"),
        ("2m_temperature", lambda t: t - 273.15, r"'2m_temperature'.*looks like degC: add 273.15"),
        ("mean_sea_level_pressure", lambda p: p / 100, r"looks like hPa: multiply by 100"),
        ("geopotential", lambda z: z / 9.80665, r"'geopotential' at 300 hPa.*multiply by 9.80665"),
        (SST, lambda t: t - 273.15, r"'sea_surface_temperature'.*looks like degC: add 273.15"),
        (SST, lambda t: t * np.nan, r"'sea_surface_temperature'.*NaN everywhere"),
        (SST, lambda t: t.fillna(290.0), r"NaN over land, got values everywhere.*sst.where"),
        (SST, lambda t: t.where(t["time"] < t["time"][-1], t.roll(longitude=4)), r"a mask that changes"),
        ("specific_humidity", lambda q: q * 1000, r"looks like g kg-1: multiply by 0.001"),
    ],
)
def test_values_that_cannot_be_are_refused(world, channels, name, change, message):
    with pytest.raises(ValueError, match=message):
        check_ends(open_store(spoiled(world, name, change), channels), channels, "x")


def test_nan_is_refused_with_its_share_unless_gaps_are_accepted(world, channels):
    holed = spoiled(world, "temperature", lambda t: t.where((t["level"] != 500) | (t["latitude"] > -50)))
    with pytest.raises(ValueError, match=r"'temperature' at 500 hPa: expected no NaN, got 22.2% NaN at 2020-01-01T00"):
        open_store(holed, channels).load()
    assert open_store(holed, channels, complete=False).load().sizes["time"] == 5


def test_exactly_what_is_read_is_judged(world, channels):
    """A chunk that was lost reads as 0: neither are other times refused for it, nor does it pass in the middle."""
    lost = spoiled(world, "temperature", lambda t: t.where(t["time"] != t["time"][2], 0.0))
    ds = open_store(lost, channels)
    xr.testing.assert_equal(ds.isel(time=[0, 1, 3, 4]).load(), world.isel(time=[0, 1, 3, 4]))
    with pytest.raises(ValueError, match=r"'temperature' at 300 hPa: .*one number everywhere, 0, at 2020-01-01T12"):
        ds.isel(time=2).load()
    with pytest.raises(ValueError, match=r"values within 130..350 K, got 0 at -90 deg N, 0 deg E .*\(1 of 1 points\)"):
        ds["temperature"][2, 0, 0, 0].load()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.inf, r"got inf at -67.5 deg N, 67.5 deg E at 2020-01-01T06 \(1 of 144 points\). Half precision ends"),
        (-32767.0, r"values within 130..350 K, got -32767 at -67.5 deg N, 67.5 deg E"),
        (np.nan, r"expected no NaN, got 0.7% NaN at 2020-01-01T06"),
    ],
)
def test_a_single_point_is_found_with_its_place(world, channels, value, message):
    world["temperature"][1, 1, 1, 3] = value
    with pytest.raises(ValueError, match=rf"'temperature' at 500 hPa: .*{message}"):
        open_store(world, channels).load()


def test_coordinates_that_rounding_put_west_of_0_are_0(world, channels, grid):
    west = world.assign_coords(longitude=world["longitude"].values - 1e-5)
    xr.testing.assert_equal(open_store(west, channels, grid).load(), world)
    odd = world["longitude"].values.copy()
    odd[3] = np.nan
    with pytest.raises(ValueError, match=r"'longitude' is expected in finite degrees, got 1 of 16"):
        open_store(world.assign_coords(longitude=odd), channels)


def test_attributes_of_netcdf_become_plain_numbers(tmp_path, world, channels):
    """Every file of the new Climate Data Store has NumPy's numbers there, which no JSON takes."""
    world["temperature"].attrs = {"GRIB_paramId": np.int64(130), "flags": np.array([1, 2]), "units": "K"}
    world.attrs["edition"] = np.int32(1)
    world.to_netcdf(tmp_path / "a.nc")
    ds = open_store(tmp_path / "a.nc", channels)
    assert json.loads(json.dumps(ds["temperature"].attrs)) == {"GRIB_paramId": 130, "flags": [1, 2], "units": "K"}
    assert json.dumps(ds.attrs)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda ds: ds.drop_vars(["temperature", SST]),
            r"missing: temperature, sea_surface_temperature\. There are",
        ),
        (
            lambda ds: ds.rename({SST: "tp"}),
            r"missing: sea_surface_temperature.*'tp' is there: an accumulation",
        ),
        (lambda ds: ds.isel(level=[0, 2]), r"'level' lacks \[500\] hPa, there are 300, 850"),
        (
            lambda ds: ds.assign_coords(level=ds["level"] * 100),
            r"'level' lacks.*look like Pa: multiply by 0.01",
        ),
        (lambda ds: ds.drop_vars("level"), r"expected a coordinate 'level' in hPa"),
        (lambda ds: ds.drop_vars("time"), r"expected a coordinate 'time'"),
        (lambda ds: ds.isel(time=[0, 2, 1, 3]), r"'time' goes back after 2020-01-01T12"),
        (lambda ds: ds.isel(time=[0, 1, 1, 2]), r"'time' repeats 2020-01-01T06"),
        (lambda ds: ds.isel(time=[]), r"expected valid times, got 0"),
        (lambda ds: ds.assign_coords(time=range(5)), r"'time' is expected as datetime64, got int64"),
        (
            lambda ds: ds.assign_coords(
                time=xr.date_range("2020-01-01", periods=5, calendar="360_day", use_cftime=True)
            ),
            r"'time' is expected as datetime64, got those of the calendar '360_day'",
        ),
        (lambda ds: ds.assign_coords(time=[np.datetime64(f"999{n}") for n in range(5)]), r"years 1678..2261, got 9994"),
        (lambda ds: ds.assign(temperature=ds["temperature"].astype(str)), r"expected numbers in 'temperature', got <U"),
        (lambda ds: ds.astype(complex), r"expected numbers in '\w+', got complex128"),
        (lambda ds: ds.assign_coords(time=ds["time"] + np.timedelta64(28, "ms")), r"on the second, got .* 0.028 s off"),
    ],
)
def test_missing_content_is_refused(world, channels, spoil, message):
    with pytest.raises(ValueError, match=message):
        open_store(spoil(world), channels)


@pytest.mark.slow
def test_the_gfs_file_of_the_kit(shared):
    path = shared / "kit/gfs/gfs_240x121_wb2names_2times.nc"
    with pytest.raises(ValueError, match=r"'vertical_velocity' at 50 hPa: expected no NaN, got 100.0% NaN"):
        open_store(path, ERA5_CHANNELS)["vertical_velocity"].load()
    ds = open_store(path, ERA5_CHANNELS, Grid.parse("240x121"), complete=False)
    plain = xr.open_dataset(path)
    xr.testing.assert_equal(
        ds.load(), plain[list(ds)].drop_vars("init_time").transpose(*ds.dims, missing_dims="ignore")
    )


def test_era5_of_the_new_climate_data_store(shared):
    only_msl = ChannelSet((), ("mean_sea_level_pressure",))
    path = shared / "kit/era5/era5_msl_2p5deg_6h_2025-12.nc"
    ds = open_store(path, only_msl, Grid.parse("144x73"))
    plain = xr.open_dataset(path)["msl"]
    point = ds["mean_sea_level_pressure"].sel(latitude=-10, longitude=200).isel(time=7)
    assert float(point) == float(plain.sel(latitude=-10, longitude=200).isel(valid_time=7))


def test_a_level_of_10_hpa_beside_the_wind_at_10_m(world):
    """Both would be `u10`: by default the standard levels are taken."""
    world = world.assign_coords(level=[10, 500, 850]).rename({"2m_temperature": "10m_u_component_of_wind"})
    assert present_channels(world, "x").levels == (500, 850)
    assert present_channels(world.drop_vars("10m_u_component_of_wind"), "x").levels == (10, 500, 850)


def test_levels_are_whole_numbers_of_hpa(world, channels):
    assert present_channels(world.assign_coords(level=[300.0, 500.0, 850.0]), "x").levels == channels.levels
    with pytest.raises(ValueError, match=r"x: expected levels of whole hPa, got 0.5"):
        present_channels(world.assign_coords(level=[0.5, 500.0, 850.0]), "x")


def test_a_manifest_beside_a_file(tmp_path, world, channels):
    world.to_netcdf(tmp_path / "a.nc")
    (tmp_path / "a.nc.manifest.json").write_text(json.dumps({"status": "running"}))
    with pytest.raises(ValueError, match=r"a\.nc is unfinished"):
        open_store(tmp_path / "a.nc", channels)


def test_times_of_a_file_without_any(tmp_path, world):
    world[["land_sea_mask"]].to_netcdf(tmp_path / "a.nc")
    with pytest.raises(ValueError, match=r"a\.nc: expected a coordinate 'time'"):
        read_times(tmp_path / "a.nc")


@pytest.fixture
def numbered() -> xr.Dataset:
    times = np.datetime64("2020-01-01", "ns") + np.arange(203) * np.timedelta64(6, "h")
    return xr.Dataset({"number": ("time", np.arange(203))}, coords={"time": times})


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (None, None, range(203)),
        ("2020-01-02", None, range(4, 203)),
        (None, "2020-01-02", range(5)),
        ("2020-01-01T18", "2020-01-02T06", range(3, 6)),
        ("1990-01-01", "2020-01-01T05", range(1)),
    ],
)
def test_a_period_has_both_its_ends(numbered: xr.Dataset, start: str | None, end: str | None, expected: range):
    assert select_period(numbered, start, end)["number"].values.tolist() == list(expected)


def test_a_period_without_frames_is_refused_with_what_is_there(numbered: xr.Dataset):
    with pytest.raises(ValueError, match=r"No states from 2021-01-01 to None: .* 2020-01-01T00 to 2020-02-20T12"):
        select_period(numbered, "2021-01-01", None)


def test_times_without_a_variable_are_passed_over(shared):
    """ERA-40 as its users have it: analyses at 12 UTC, and at 18 UTC only what a forecast adds up."""
    ds = open_where_present(shared / "kit/era40/era40_sfc_2p5deg_200207.nc", "mean_sea_level_pressure")
    assert ds.sizes["time"] == 31
    assert set(ds["time"].dt.hour.values) == {12}
    assert ds["mean_sea_level_pressure"].isel(time=[0, -1]).notnull().all()


@pytest.mark.slow
def test_a_variable_is_read_once_to_see_where_it_is_and_to_be_used(shared, monkeypatch):
    reads: list[int] = []
    read = LazyField._read
    monkeypatch.setattr(LazyField, "_read", lambda field, key: (reads.append(len(key)), read(field, key))[1])
    path = shared / "kit/era40/era40_sfc_2p5deg_200207.nc"
    open_where_present(path, "mean_sea_level_pressure")["mean_sea_level_pressure"].load()
    once = len(reads)
    monkeypatch.setattr(store, "MOST_KEPT_BYTES", 0)
    again = open_where_present(path, "mean_sea_level_pressure")["mean_sea_level_pressure"].load()
    assert len(reads) > 2 * once
    assert again.sizes["time"] == 31
