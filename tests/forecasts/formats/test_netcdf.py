import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from ladcast.forecasts.formats.base import FrameWriter
from ladcast.forecasts.formats.netcdf import NetcdfWriter
from ladcast.forecasts.formats.zarr import ZarrWriter


def write(writer: FrameWriter) -> Path:
    for _ in range(writer.start(), writer.frames):
        writer.append()
    return writer.finish()


def test_the_file_holds_the_forecast(forecast: xr.Dataset, tmp_path: Path):
    path = write(NetcdfWriter(forecast, tmp_path / "fc.nc", names="weatherbench2"))
    stored = xr.load_dataset(path, decode_timedelta=True, decode_coords="all")
    for name, field in forecast.data_vars.items():
        added = ["valid_time", "prediction_timedelta_bounds"]
        xr.testing.assert_equal(stored[name].drop_vars(added, errors="ignore"), field)
    assert [entry.name for entry in tmp_path.iterdir()] == ["fc.nc"]


def test_a_killed_export_starts_afresh(forecast: xr.Dataset, tmp_path: Path):
    killed = NetcdfWriter(forecast, tmp_path / "fc.nc")
    killed.start()
    killed.append()
    del killed
    again = NetcdfWriter(forecast, tmp_path / "fc.nc")
    assert again.start() == 0
    for _ in range(again.frames):
        again.append()
    stored = xr.load_dataset(again.finish(), decode_timedelta=True)
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


def test_a_zarr_store_passes_it_as_netcdf(forecast: xr.Dataset, tmp_path: Path):
    store = write(ZarrWriter(forecast, tmp_path / "fc.zarr", names="cf"))
    ds = xr.open_zarr(store, decode_cf=False, chunks=None)
    ds.to_netcdf(
        tmp_path / "from_zarr.nc", encoding={"latitude": {"_FillValue": None}, "longitude": {"_FillValue": None}}
    )
    report = check_cf(tmp_path / "from_zarr.nc")
    assert "Errors" not in report, report
