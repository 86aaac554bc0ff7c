import subprocess
import sys

import numpy as np
import pytest
import xarray as xr

from ladcast.data.sources.base import need
from ladcast.data.sources.files import open_files
from ladcast.data.store import open_store


def test_a_tree_of_files_by_variable_and_time_is_the_world(tmp_path, world, channels):
    for name in world.data_vars:
        for half, part in enumerate(
            (world[[name]].isel(time=slice(0, 2)), world[[name]].isel(time=slice(2, 5)))
            if "time" in world[name].dims
            else (world[[name]],)
        ):
            target = tmp_path / str(half)
            target.mkdir(exist_ok=True)
            part.to_zarr(target / f"{name}.zarr") if name == "temperature" else part.to_netcdf(target / f"{name}.nc")
    xr.testing.assert_equal(open_store(tmp_path, channels).load(), world)


def test_one_file_per_level_and_a_pattern(tmp_path, world, channels):
    for level in channels.levels:
        world[list(channels.upper_air)].sel(level=level).to_netcdf(tmp_path / f"pl_{level}.nc")
    world[list(channels.surface)].to_netcdf(tmp_path / "sfc.nc")
    world.to_netcdf(tmp_path / "other.zip")
    together = open_store(tmp_path / "*.nc", channels)
    xr.testing.assert_equal(together.load(), world.drop_vars("land_sea_mask"))
    with pytest.raises(FileNotFoundError, match="no file fits this pattern"):
        open_files(tmp_path / "*.grib")


def test_grib_and_netcdf_side_by_side(tmp_path, write_grib, state_fields, make, grid):
    write_grib(tmp_path / "a.grib2", state_fields(["t"], (500,)))
    make(grid, 1)[["2m_temperature"]].to_netcdf(tmp_path / "b.nc")
    ds = open_files(tmp_path)
    assert set(ds) == {"temperature", "2m_temperature"}
    assert open_store(ds).sizes == {"time": 1, "level": 1, "latitude": 9, "longitude": 16}


def test_files_that_do_not_fit_are_refused(tmp_path, world, make):
    from ladcast.grid import Grid

    world[["2m_temperature"]].to_netcdf(tmp_path / "a.nc")
    make(Grid.parse("8x5"))[["mean_sea_level_pressure"]].to_netcdf(tmp_path / "b.nc")
    with pytest.raises(ValueError, match=r"expected files on one grid, got 9 and 5 values of 'latitude'"):
        open_files(tmp_path)
    world[["2m_temperature"]].isel(time=0, drop=True).to_netcdf(tmp_path / "b.nc")
    with pytest.raises(ValueError, match="a file with 2m_temperature has no 'time'"):
        open_files(tmp_path)
    world[["2m_temperature"]].isel(time=[4]).to_netcdf(tmp_path / "b.nc")
    with pytest.raises(ValueError, match="'2m_temperature' is given more than once at time 2020-01-02T00"):
        open_files(tmp_path)


def test_a_member_of_a_netcdf_ensemble(tmp_path, world, channels):
    ensemble = xr.concat([world.drop_vars("land_sea_mask"), world.drop_vars("land_sea_mask") * 1.001], "number")
    ensemble.assign_coords(number=[0, 7]).to_netcdf(tmp_path / "a.nc")
    with pytest.raises(ValueError, match=r"an ensemble of 2 members along 'number'. Choose one with member=0"):
        open_store(tmp_path / "a.nc", channels)
    ds = open_store(tmp_path / "a.nc", channels, member=7)
    np.testing.assert_allclose(ds["temperature"].values, world["temperature"].values * 1.001, rtol=1e-6)
    world.to_netcdf(tmp_path / "b.nc")
    with pytest.raises(ValueError, match="expected member 7, got a single state without members"):
        open_store(tmp_path / "b.nc", channels, member=7)


def test_the_two_versions_along_expver_are_joined(tmp_path, world, channels):
    """The CDS delivered ERA5 and its preliminary version so until 2024: NaN where the other has values."""
    early = world["time"] < world["time"][3]
    states = world.drop_vars("land_sea_mask")
    both = xr.concat([states.where(early), states.where(~early)], "expver").assign_coords(expver=[1, 5])
    both.to_netcdf(tmp_path / "a.nc")
    xr.testing.assert_allclose(open_store(tmp_path / "a.nc", channels).load(), states)


def test_a_missing_library_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "cfgrib", None)
    with pytest.raises(ImportError, match=r"Reading GRIB needs 'cfgrib'.*pip install 'ladcast\[grib\]'"):
        need("cfgrib", "Reading GRIB", "grib")


def test_importing_and_reading_netcdf_loads_no_optional_library(tmp_path, world):
    """ecCodes brings another PROJ than cartopy's: loading it unasked has crashed interpreters at exit."""
    world.to_netcdf(tmp_path / "a.nc")
    program = (
        "import sys, ladcast.data.sources.registry; from ladcast.data.store import open_store; "
        f"open_store({str(tmp_path / 'a.nc')!r}); print(*sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"cfgrib", "eccodes", "gribapi", "obstore", "cdsapi", "ecmwf"} & set(answer.stdout.split())
