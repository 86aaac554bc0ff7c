"""WeatherBench 2 and ARCO-ERA5, read from small copies of their layout."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr

from ladcast.data.sources import cloud
from ladcast.data.sources.cloud import ARCO_STORE, STORES, ArcoEra5, WeatherBench2
from ladcast.data.sources.initial_state import SOURCES, make_source
from ladcast.data.store import open_store
from ladcast.fields import PRECIPITATION, ChannelSet

HOUR = np.timedelta64(1, "h")
WITH_RAIN = ChannelSet(("temperature",), ("2m_temperature", PRECIPITATION), (500,))


def as_weatherbench(world: xr.Dataset) -> xr.Dataset:
    return world.transpose("time", "level", "longitude", "latitude")


@pytest.fixture
def hourly(make, grid) -> xr.Dataset:
    world = make(grid, 30)
    times = np.datetime64("2020-01-01", "ns") + np.arange(30) * HOUR
    rain = np.random.default_rng(1).random((30, 9, 16)).astype(np.float32) * 1e-3
    world = world.assign_coords(time=times)
    return world.assign(total_precipitation=(("time", "latitude", "longitude"), rain))


def test_six_hourly_weatherbench_is_the_store(tmp_path, world, channels):
    as_weatherbench(world).to_zarr(tmp_path / STORES["6h-240x121"], zarr_format=2, consolidated=True)
    times = world["time"].values[1:3]
    ds = open_store(WeatherBench2("6h-240x121", tmp_path).open(times, channels), channels)
    xr.testing.assert_equal(ds.load(), world.sel(time=times))


def test_hourly_weatherbench_sums_precipitation(tmp_path, hourly):
    as_weatherbench(hourly).to_zarr(tmp_path / STORES["1h-240x121"], zarr_format=2)
    times = hourly["time"].values[[6, 12, 18]]
    ds = open_store(WeatherBench2("1h-240x121", tmp_path).open(times, WITH_RAIN), WITH_RAIN)
    expected = hourly["total_precipitation"].rolling(time=6).sum().sel(time=times)
    np.testing.assert_allclose(ds[PRECIPITATION].values, expected.values, rtol=1e-5)
    assert ds[PRECIPITATION].attrs["derived"] == "sum of 6 hourly totals"


def test_the_first_hours_of_a_store_have_no_sum(tmp_path, hourly):
    as_weatherbench(hourly).to_zarr(tmp_path / STORES["1h-240x121"])
    source = WeatherBench2("1h-240x121", tmp_path)
    with pytest.raises(ValueError, match=r"total_precipitation_6hr': expected no NaN, got 100.0% NaN at 2020-01-01T03"):
        open_store(source.open(hourly["time"].values[[3]], WITH_RAIN), WITH_RAIN).load()


def test_times_that_are_not_there_are_listed(tmp_path, world, channels):
    as_weatherbench(world).to_zarr(tmp_path / STORES["6h-64x32"])
    asked = np.array(["2020-01-01T06", "2020-01-09T00"], "datetime64[ns]")
    with pytest.raises(ValueError, match=r"lacks 2020-01-09T00; it holds 2020-01-01T00 to 2020-01-02T00"):
        WeatherBench2("6h-64x32", tmp_path).open(asked, channels)


def test_arco_beyond_what_is_written_is_refused_not_nan(tmp_path, hourly):
    """Its time axis runs to 2050 and reads as NaN there; the attributes say how far it is written."""
    raw = hourly.assign_attrs(
        valid_time_start="2019-12-31", valid_time_stop="2019-12-31", valid_time_stop_era5t="2020-01-01"
    )
    raw.isel(latitude=slice(None, None, -1)).to_zarr(tmp_path / ARCO_STORE)
    source = ArcoEra5(tmp_path)
    times = hourly["time"].values
    assert open_store(source.open(times[[6, 12]], WITH_RAIN), WITH_RAIN).sizes["time"] == 2
    with pytest.raises(ValueError, match=r"ARCO-ERA5: expected 2020-01-02T00, lacks 2020-01-02T00"):
        source.open(times[[24]], WITH_RAIN)


def test_a_copy_that_is_not_there(tmp_path, channels):
    with pytest.raises(FileNotFoundError, match="expected a copy of the Zarr store"):
        ArcoEra5(tmp_path).open(np.array(["2020-01-01"], "datetime64[ns]"), channels)


class TestBucket:
    def test_the_same_path_reads_through_an_object_store(self, tmp_path, monkeypatch, world, channels):
        obstore = pytest.importorskip("obstore.store")
        as_weatherbench(world).to_zarr(tmp_path / STORES["6h-240x121"], zarr_format=2, consolidated=True)
        asked = []

        def local(url: str):
            asked.append(url)
            return obstore.LocalStore(str(tmp_path / url.rpartition("/")[2]))

        monkeypatch.setattr(cloud, "object_store", local)
        times = world["time"].values
        ds = open_store(WeatherBench2().open(times, channels), channels)
        xr.testing.assert_equal(ds.load(), world)
        assert asked == [f"gs://weatherbench2/datasets/era5/{STORES['6h-240x121']}"]

    def test_the_gate_opens_a_bucket_by_its_address(self, tmp_path, monkeypatch, world, channels):
        obstore = pytest.importorskip("obstore.store")
        world.to_zarr(tmp_path / "a.zarr", zarr_format=2, consolidated=True)
        monkeypatch.setattr(cloud, "object_store", lambda url: obstore.LocalStore(str(tmp_path / url.split("/")[-1])))
        for address in ("gs://bucket/a.zarr", Path("gs://bucket/a.zarr")):
            xr.testing.assert_equal(open_store(address, channels).load(), world)

    def test_a_bucket_that_cannot_be_read_says_how_to_work_offline(self, monkeypatch):
        obstore = pytest.importorskip("obstore.store")
        monkeypatch.setattr(cloud, "object_store", lambda url: obstore.MemoryStore())
        with pytest.raises(ConnectionError, match=r"gs://bucket/a.zarr.*over the network.*offline, copy the store"):
            cloud.open_zarr("gs://bucket", "a.zarr")

    def test_access_is_anonymous_with_bounded_retries(self, monkeypatch):
        made = {}
        stores = SimpleNamespace(GCSStore=lambda bucket, **options: made.update(bucket=bucket, **options))
        monkeypatch.setitem(sys.modules, "obstore", SimpleNamespace(store=stores))
        monkeypatch.setitem(sys.modules, "obstore.store", stores)
        cloud.object_store("gs://weatherbench2/datasets/era5/a.zarr")
        assert (made["bucket"], made["prefix"]) == ("weatherbench2", "datasets/era5/a.zarr")
        assert made["skip_signature"] is True
        assert made["retry_config"]["retry_timeout"].total_seconds() <= 60

    def test_the_real_client_accepts_these_options(self):
        pytest.importorskip("obstore")
        assert "GCSStore" in repr(cloud.object_store("gs://weatherbench2/datasets/era5/a.zarr"))
        assert "HTTPStore" in repr(cloud.object_store("https://noaa-gfs-bdp-pds.s3.amazonaws.com"))


def test_every_source_is_registered_by_its_name():
    for name in SOURCES:
        options = {"root": "."} if name == "local" else {}
        assert make_source(name, **options).name == name
    with pytest.raises(ValueError, match=r"Unknown source 'era6'. Known sources: weatherbench2, arco-era5"):
        make_source("era6")
    with pytest.raises(ValueError, match=r"Source 'gfs' does not take these options: .*store"):
        make_source("gfs", store="x")
