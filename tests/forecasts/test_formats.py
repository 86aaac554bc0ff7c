import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

from ladcast.cf import with_metadata
from ladcast.forecasts.formats import FrameWriter, NetcdfWriter, ZarrWriter, layout_hash


def test_a_fingerprint_follows_what_a_forecast_is(forecast: xr.Dataset):
    assert layout_hash(forecast) == layout_hash(forecast.copy())
    others = [
        forecast.assign_attrs(source="another model"),
        forecast.isel(number=[0, 1]),
        forecast.assign_coords(number=[1, 2, 3]),
        forecast.drop_vars("geopotential"),
    ]
    assert len({layout_hash(other) for other in [forecast, *others]}) == 5


@pytest.mark.slow
def test_an_existing_output_is_kept(forecast: xr.Dataset, tmp_path: Path):
    (tmp_path / "fc.zarr").mkdir()
    with pytest.raises(FileExistsError, match="--overwrite"):
        ZarrWriter(forecast, tmp_path / "fc.zarr").start()
    writer = ZarrWriter(forecast, tmp_path / "fc.zarr", overwrite=True)
    assert writer.start() == 0
    writer.append()
    assert not list((tmp_path / "fc.zarr").iterdir())
    again = ZarrWriter(forecast, tmp_path / "fc.zarr", overwrite=True)
    assert again.start() == 1
    while again.done < again.frames:
        again.append()
    again.finish()
    xr.testing.assert_equal(xr.open_zarr(tmp_path / "fc.zarr")["number"], forecast["number"])


def test_an_unfinished_forecast_of_that_name_is_kept(forecast: xr.Dataset, tmp_path: Path):
    (tmp_path / "fc.zarr.partial/store").mkdir(parents=True)
    with pytest.raises(FileExistsError, match="holds store, which is not of this kind of work"):
        ZarrWriter(forecast, tmp_path / "fc.zarr", overwrite=True).start()
    assert (tmp_path / "fc.zarr.partial/store").exists()


@pytest.mark.slow
@pytest.mark.parametrize("kind", [ZarrWriter, NetcdfWriter])
def test_dimensions_of_another_order_are_put_in_ours(kind, forecast: xr.Dataset, tmp_path: Path):
    outputs = []
    for name, ds in {"ours": forecast, "theirs": forecast.transpose("number", "prediction_timedelta", ...)}.items():
        writer = kind(ds, tmp_path / f"{name}{'.nc' if kind is NetcdfWriter else '.zarr'}")
        writer.start()
        while writer.done < writer.frames:
            writer.append()
        outputs.append(xr.open_dataset(writer.finish(), decode_timedelta=True).load())
    xr.testing.assert_equal(*outputs)


def test_an_unfinished_export_of_something_else_is_kept(forecast: xr.Dataset, tmp_path: Path):
    first = ZarrWriter(forecast, tmp_path / "fc.zarr")
    first.start()
    first.append()
    with pytest.raises(FileExistsError, match="zarr_format was 3, now 2"):
        ZarrWriter(forecast, tmp_path / "fc.zarr", zarr_format=2).start()
    with pytest.raises(FileExistsError, match="forecast was "):
        ZarrWriter(forecast.isel(number=[0]), tmp_path / "fc.zarr").start()


def test_an_unwritable_output_is_named(forecast: xr.Dataset, tmp_path: Path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OSError, match="Choose another output"):
        ZarrWriter(forecast, tmp_path / "file" / "fc.zarr").start()


def test_what_is_no_forecast_is_refused(forecast: xr.Dataset, tmp_path: Path):
    with pytest.raises(ValueError, match="prediction_timedelta and number"):
        ZarrWriter(forecast.mean("number"), tmp_path / "fc.zarr")


def write(writer: FrameWriter, *, stop_after: int | None = None) -> Path:
    """Exports a forecast, or leaves it as a kill would after some frames."""
    for _ in range(writer.start(), writer.frames if stop_after is None else stop_after):
        writer.append()
    return writer.finish() if stop_after is None else writer.content


def read(path: Path) -> xr.Dataset:
    return xr.open_zarr(path, chunks=None, decode_timedelta=True).load()


def test_values_and_dimensions_stay(forecast: xr.Dataset):
    described = with_metadata(forecast)
    for name, field in forecast.data_vars.items():
        assert described[name].dims == field.dims
        np.testing.assert_array_equal(described[name].values, field.values)


def test_valid_times_and_bounds_of_the_accumulation(forecast: xr.Dataset):
    described = with_metadata(forecast)
    assert described["valid_time"].values[1, 2] == np.datetime64("2011-10-12T06")
    np.testing.assert_array_equal(described["prediction_timedelta_bounds"], [[0, 6], [6, 12], [12, 18]])
    assert described["prediction_timedelta"].attrs["bounds"] == "prediction_timedelta_bounds"
    assert "bounds" not in with_metadata(forecast[["geopotential"]])["prediction_timedelta"].attrs


def test_cf_names_begin_with_a_letter_and_refer_to_each_other(forecast: xr.Dataset):
    described = with_metadata(forecast, "cf")
    assert {"z", "q", "u10", "t2m", "sst", "tp6h"} == set(described.data_vars)
    assert described["tp6h"].attrs["cell_methods"] == "forecast_period: sum"
    assert described["forecast_period"].attrs["bounds"] in described.variables
    assert described["z"].dims[:3] == ("forecast_reference_time", "forecast_period", "realization")


def test_the_file_holds_the_forecast(forecast: xr.Dataset, tmp_path: Path):
    path = write(NetcdfWriter(forecast, tmp_path / "fc.nc", names="weatherbench2"))
    stored = xr.load_dataset(path, decode_timedelta=True, decode_coords="all")
    for name, field in forecast.data_vars.items():
        added = ["valid_time", "prediction_timedelta_bounds"]
        xr.testing.assert_equal(stored[name].drop_vars(added, errors="ignore"), field)
    assert [entry.name for entry in tmp_path.iterdir()] == ["fc.nc"]


def test_one_member_lies_on_one_axis_of_valid_times(forecast: xr.Dataset, tmp_path: Path):
    one = forecast.isel(time=[1], number=[1])
    stored = xr.load_dataset(write(NetcdfWriter(one, tmp_path / "fc.nc", names="cdo")), decode_timedelta=True)
    assert stored["z"].dims == ("time", "level", "latitude", "longitude")
    np.testing.assert_array_equal(stored["time"], one["time"].values + one["prediction_timedelta"].values)
    np.testing.assert_array_equal(stored["z"], one["geopotential"].values[0, :, 0])
    assert stored["forecast_reference_time"].values == one["time"].values[0]
    assert stored["realization"] == one["number"].values[0]
    assert stored["tp6h"].attrs["cell_methods"] == "time: sum"
    with pytest.raises(ValueError, match=r"one initial time for one time axis, got 2\. Choose one"):
        NetcdfWriter(forecast, tmp_path / "all.nc", names="cdo")
    with pytest.raises(ValueError, match=r"one member \(--members\) for one time axis"):
        NetcdfWriter(forecast.isel(time=[0]), tmp_path / "all.nc", names="cdo")


def test_a_killed_file_starts_afresh(forecast: xr.Dataset, tmp_path: Path):
    write(NetcdfWriter(forecast, tmp_path / "fc.nc"), stop_after=1)
    again = NetcdfWriter(forecast, tmp_path / "fc.nc")
    assert again.start() == 0
    stored = xr.load_dataset(write(again), decode_timedelta=True)
    np.testing.assert_array_equal(stored["z"].values, forecast["geopotential"].values)


def check_cf(path: Path) -> str:
    """Returns the report of the IOOS compliance checker, or skips where it is not installed."""
    checker = Path(sys.executable).with_name("compliance-checker")
    if not checker.is_file():
        pytest.skip("compliance-checker is not installed (pip install compliance-checker)")
    done = subprocess.run([checker, "-t", "cf:1.11", path], capture_output=True, text=True, timeout=120)
    assert "IOOS Compliance Checker Report" in done.stdout, done.stderr
    return done.stdout


def test_the_file_passes_the_cf_checker_without_errors(forecast: xr.Dataset, tmp_path: Path):
    report = check_cf(write(NetcdfWriter(forecast, tmp_path / "fc.nc")))
    assert "Errors" not in report, report


def test_the_checker_finds_wrong_units(forecast: xr.Dataset, tmp_path: Path):
    path = write(NetcdfWriter(forecast, tmp_path / "fc.nc"))
    ds = xr.load_dataset(path, decode_cf=False)
    ds["t2m"].attrs["units"] = "Pa"
    ds.to_netcdf(tmp_path / "wrong.nc")
    assert 'Units "Pa" for variable t2m' in check_cf(tmp_path / "wrong.nc")


@pytest.mark.slow
def test_a_zarr_store_passes_it_as_netcdf(forecast: xr.Dataset, tmp_path: Path):
    store = write(ZarrWriter(forecast, tmp_path / "fc.zarr", names="cf"))
    ds = xr.open_zarr(store, decode_cf=False, chunks=None)
    ds.to_netcdf(
        tmp_path / "from_zarr.nc", encoding={"latitude": {"_FillValue": None}, "longitude": {"_FillValue": None}}
    )
    report = check_cf(tmp_path / "from_zarr.nc")
    assert "Errors" not in report, report


@pytest.mark.slow
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_the_store_holds_the_forecast(zarr_format, forecast: xr.Dataset, tmp_path: Path):
    path = write(ZarrWriter(forecast, tmp_path / "fc.zarr", zarr_format=zarr_format))
    stored = read(path)
    for name, field in forecast.data_vars.items():
        np.testing.assert_array_equal(stored[name].values, field.values)
        assert stored[name].dims == field.dims
    xr.testing.assert_equal(stored["time"].drop_vars("time").drop_attrs(), forecast["time"].drop_vars("time"))
    assert zarr.open_group(path).metadata.zarr_format == zarr_format
    assert zarr.open_group(path).metadata.consolidated_metadata is not None


@pytest.mark.slow
def test_the_levels_of_a_frame_share_a_shard(forecast: xr.Dataset, tmp_path: Path):
    path = write(ZarrWriter(forecast, tmp_path / "fc.zarr"))
    array = zarr.open_group(path)["geopotential"]
    assert array.chunks == (1, 1, 3, 1, 8, 16)
    assert array.shards == (1, 1, 3, 2, 8, 16)


@pytest.mark.slow
@pytest.mark.parametrize("stop_after", [0, 1, 5])
def test_a_killed_export_goes_on_to_the_same_store(stop_after: int, forecast: xr.Dataset, tmp_path: Path):
    write(ZarrWriter(forecast, tmp_path / "whole.zarr"))
    write(ZarrWriter(forecast, tmp_path / "killed.zarr"), stop_after=stop_after)
    assert not (tmp_path / "killed.zarr").exists()
    resumed = ZarrWriter(forecast, tmp_path / "killed.zarr")
    assert resumed.start() == stop_after
    write(resumed)
    xr.testing.assert_identical(read(tmp_path / "whole.zarr"), read(tmp_path / "killed.zarr"))
