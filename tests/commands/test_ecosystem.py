"""Programs of others on what is written; a test is skipped where its program is not installed (docs/ecosystem.md)."""

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from data_pipelines.statistics import write_compact
from ladcast.cli import app, run
from ladcast.cyclones.formats import read_ensemble_tracks, write_tracks
from ladcast.forecasts.open import open_forecast
from ladcast.verification import fit_climatology
from worlds import Kept

PROGRAMS = {
    name: shutil.which(name, path=f"{Path(sys.executable).parent}:/usr/bin:/usr/local/bin")
    for name in ("compliance-checker", "cdo", "ncwa")
}


def needs(name: str) -> pytest.MarkDecorator:
    """Skips a test before its files are made."""
    return pytest.mark.skipif(PROGRAMS[name] is None, reason=f"{name} is not installed")


OTHERS = os.environ.get("LADCAST_OTHERS_PYTHON")
"""A Python that has what cannot stand beside ladcast: zarr 2 with an xarray of its time, earthkit-data."""
NO_OTHERS = "no Python with zarr 2 and earthkit-data (LADCAST_OTHERS_PYTHON; .ci/run makes one)"


def ask_others(program: str, path: Path) -> subprocess.CompletedProcess[str]:
    """Runs a program there, with a path as its argument."""
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run([str(OTHERS), "-c", program, path], capture_output=True, text=True, env=alone)


BUFR = Path(__file__).parents[1] / "cyclones/data/ecmwf_ensemble_tracks_20151118.bufr"


@pytest.fixture(scope="module")
def written(kept_once: Kept, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of everything that is written as netCDF, tracks as CSV, and GRIB."""
    folder = tmp_path_factory.mktemp("written")
    fields = str(kept_once.fields)
    run(app, ["export", fields, str(folder / "export.nc")])
    run(app, ["export", fields, str(folder / "flat.nc"), "--members", "1", "--names", "cdo"])
    run(app, ["products", "mean", fields, str(folder / "mean.nc")])
    run(app, ["products", "quantiles", fields, str(folder / "quantiles.nc"), "--level", "0.1", "0.9"])
    events = ["t850 > 0 degC", "msl < 100000 Pa"]
    run(app, ["products", "probability", fields, str(folder / "probability.nc"), "--event", *events])
    run(app, ["ask", fields, "t850 > 0 degC for 12 h in 0,20,90,70", "--output", str(folder / "ask.nc")])
    states = _states(open_forecast(kept_once.fields))
    write_compact(states, folder / "states.nc")
    climatology = fit_climatology(states, days=365, step=61)
    climatology["dayofyear"].attrs["long_name"] = "day of the year"
    write_compact(climatology, folder / "climatology.nc")
    run(app, ["score", fields, "--truth", str(folder / "states.nc"), "--output", str(folder / "scores.nc")])
    return folder


def _states(forecast: xr.Dataset) -> xr.Dataset:
    """Member 0 as the truth."""
    member = forecast.isel(time=0, number=0, drop=True)
    times = forecast["time"].values[0] + forecast["prediction_timedelta"].values
    return member.rename(prediction_timedelta="time").assign_coords(time=times).load()


@pytest.fixture(scope="module")
def tracks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the tracks of an ensemble."""
    pytest.importorskip("eccodes")
    folder = tmp_path_factory.mktemp("tracks")
    for suffix in ("nc", "csv"):
        write_tracks(read_ensemble_tracks(BUFR), folder / f"tracks.{suffix}")
    return folder


@pytest.mark.slow
@needs("compliance-checker")
def test_no_netcdf_has_errors_to_the_cf_checker(written: Path, tracks: Path):
    files = [*written.glob("*.nc"), tracks / "tracks.nc"]
    assert len(files) == 10
    done = subprocess.run([PROGRAMS["compliance-checker"], "-t", "cf:1.11", *files], capture_output=True, text=True)
    assert done.stdout.count("IOOS Compliance Checker Report") == 10, done.stderr
    assert not re.search(r"^\s*Errors\s*$", done.stdout, re.MULTILINE), done.stdout


@pytest.mark.slow
@needs("cdo")
def test_cdo_reads_one_member_and_products(written: Path):
    cdo = [PROGRAMS["cdo"], "-s", "-outputf,%.6g,1", "-fldmean", "-selname,msl", "-seltimestep,4"]
    shown = subprocess.run([*cdo, written / "flat.nc"], capture_output=True, text=True)
    field = xr.load_dataset(written / "flat.nc")["msl"].isel(time=3)
    mean = float(field.weighted(np.cos(np.deg2rad(field["latitude"]))).mean())
    assert float(shown.stdout) == pytest.approx(mean, rel=1e-3), shown.stderr
    for name in ("mean", "probability"):
        listed = subprocess.run([cdo[0], "-s", "showname", written / f"{name}.nc"], capture_output=True, text=True)
        assert set(listed.stdout.split()) == set(xr.open_dataset(written / f"{name}.nc").data_vars), listed.stderr


@pytest.mark.slow
@needs("ncwa")
def test_nco_averages_the_members(written: Path, tmp_path: Path):
    call = [PROGRAMS["ncwa"], "-a", "realization", "-v", "msl", written / "export.nc", tmp_path / "mean.nc"]
    subprocess.run(call, check=True)
    expected = xr.load_dataset(written / "export.nc")["msl"].mean("realization")
    np.testing.assert_allclose(xr.load_dataset(tmp_path / "mean.nc")["msl"], expected, rtol=1e-6)


@pytest.mark.skipif(find_spec("huracanpy") is None, reason="huracanpy is not installed")
@pytest.mark.parametrize("suffix", ["nc", "csv"])
def test_huracanpy_reads_tracks_without_options(tracks: Path, suffix: str):
    import huracanpy

    loaded = huracanpy.load(str(tracks / f"tracks.{suffix}"))
    ours = read_ensemble_tracks(BUFR)
    assert loaded["lat"].size == ours.sizes["point"]
    assert sorted(loaded["lat"].values.tolist()) == pytest.approx(sorted(ours["latitude"].values.tolist()))
    names = loaded["track_id" if suffix == "csv" else "trajectory"].values
    assert len(np.unique(names)) == len(set(zip(ours["storm"].values, ours["number"].values, strict=True)))


@pytest.mark.skipif(OTHERS is None, reason=NO_OTHERS)
def test_earthkit_reads_grib(kept_once: Kept, tmp_path: Path):
    """In an environment of its own: it wants a version of ecCodes with which cartopy ends the process."""
    run(app, ["export", str(kept_once.fields), str(tmp_path / "fc.grib2"), "--variables", "t"])
    read = "import earthkit.data, sys; ds = earthkit.data.from_source('file', sys.argv[1]).to_xarray()"
    shown = f"{read}; print(dict(ds.sizes), float(ds['t'].values.mean()))"
    done = ask_others(shown, tmp_path / "fc.grib2")
    temperature = open_forecast(kept_once.fields)["temperature"]
    sizes, mean = done.stdout.rsplit(" ", 1)
    assert "'step': 8" in sizes, done.stderr
    assert float(mean) == pytest.approx(float(temperature.mean()), abs=0.05)


def test_stores_follow_the_conventions_of_weatherbench_x(kept_once: Kept):
    """What its loaders want after one renaming: names and types of coordinates, fields in SI units."""
    ds = xr.open_zarr(kept_once.fields, decode_timedelta=True)
    renamed = ds.rename(time="init_time", prediction_timedelta="lead_time")
    assert renamed["init_time"].dtype == "datetime64[ns]"
    assert renamed["lead_time"].dtype == "timedelta64[ns]"
    assert {"init_time", "lead_time", "number", "latitude", "longitude"} <= set(renamed["temperature"].dims)
    assert "level" in renamed["temperature"].dims
    assert (np.diff(renamed["latitude"]) > 0).all()
    assert 0 <= renamed["longitude"].min() < renamed["longitude"].max() < 360


@pytest.mark.skipif(OTHERS is None, reason=NO_OTHERS)
def test_zarr_2_reads_stores_of_version_2(kept_once: Kept, tmp_path: Path):
    """In an environment of its own: zarr 2 and 3 cannot be installed together."""
    run(app, ["export", str(kept_once.fields), str(tmp_path / "v2.zarr"), "--zarr-format", "2"])
    read = "import sys, xarray, zarr; ds = xarray.open_zarr(sys.argv[1]); assert zarr.__version__[0] == '2'"
    done = ask_others(f"{read}; print(float(ds['temperature'].mean('level').sum()))", tmp_path / "v2.zarr")
    expected = open_forecast(kept_once.fields)["temperature"].mean("level").sum()
    assert float(done.stdout) == pytest.approx(float(expected), rel=1e-4), done.stderr


@pytest.mark.skipif(find_spec("rasterio") is None, reason="rasterio, which brings GDAL, is not installed")
def test_gdal_reads_grib(kept_once: Kept, tmp_path: Path):
    """In a process of its own, as GDAL brings its own PROJ beside cartopy's."""
    options = ["--variables", "t", "--levels", "500", "--members", "1", "--leads", "24"]
    run(app, ["export", str(kept_once.fields), str(tmp_path / "fc.grib2"), *options])
    read = "import rasterio, sys; file = rasterio.open(sys.argv[1]); field = file.read(1); tags = file.tags(1)"
    shown = f"{read}; print(file.count, tags['GRIB_ELEMENT'], tags['GRIB_FORECAST_SECONDS'], float(field[0, 0]))"
    done = subprocess.run([sys.executable, "-c", shown, tmp_path / "fc.grib2"], capture_output=True, text=True)
    count, element, seconds, corner = done.stdout.split()
    field = open_forecast(kept_once.fields)["temperature"].sel(level=500, number=1).isel(time=0, prediction_timedelta=3)
    # GDAL begins in the west, at 180 degrees, and turns kelvin into degrees Celsius.
    north_west = float(field.isel(latitude=-1).sel(longitude=180)) - 273.15
    assert [count, element, int(seconds.split("=")[0])] == ["1", "TMP", 86400], done.stderr
    assert float(corner) == pytest.approx(north_west, abs=0.01)


@pytest.mark.skipif(find_spec("rasterio") is None, reason="rasterio, which brings GDAL, is not installed")
def test_gdal_reads_zarr_2(kept_once: Kept, tmp_path: Path):
    run(app, ["export", str(kept_once.fields), str(tmp_path / "v2.zarr"), "--zarr-format", "2", "--variables", "t"])
    read = "import rasterio, sys; print(rasterio.open(sys.argv[1]).read(1).mean(dtype=float))"
    at = f'ZARR:"{tmp_path / "v2.zarr"}":/temperature:0:3:1:0'
    done = subprocess.run([sys.executable, "-c", read, at], capture_output=True, text=True)
    field = open_forecast(kept_once.fields)["temperature"].isel(time=0, prediction_timedelta=3, number=1, level=0)
    assert float(done.stdout) == pytest.approx(float(field.mean(dtype=float)), rel=1e-6), done.stderr
