import json
import subprocess
import sys

import numpy as np
import pytest
import xarray as xr

from ladcast.data.sources.base import need
from ladcast.data.sources.files import open_files
from ladcast.data.store import open_store


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The data type:FutureWarning")  # which has no Zarr specification yet
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_text_along_time_does_not_hinder(tmp_path, world, channels, zarr_format):
    """Such as `expver`, by which the CDS tells preliminary data apart."""
    versions = xr.Dataset({"expver": ("time", np.array(["0001", "0001", "0001", "0001", "0005"], "<U4"))})
    world.merge(versions).to_zarr(tmp_path / "a.zarr", zarr_format=zarr_format)
    assert open_files(tmp_path / "a.zarr")["expver"].values.tolist() == versions["expver"].values.tolist()
    xr.testing.assert_equal(open_store(tmp_path / "a.zarr", channels).load(), world)


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
    with pytest.raises(
        ValueError, match=r"an ensemble of 2 members along 'number'. Cut one out \(`ds.sel\(number=0\)`"
    ):
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
        need("cfgrib", "Reading GRIB", "ladcast[grib]")


@pytest.mark.slow
def test_importing_and_reading_netcdf_loads_no_optional_library(tmp_path, world):
    """ecCodes brings another PROJ than cartopy's: loading it unasked has crashed interpreters at exit."""
    world.to_netcdf(tmp_path / "a.nc")
    program = (
        "import sys, ladcast.data.sources.initial_state; from ladcast.data.store import open_store; "
        f"open_store({str(tmp_path / 'a.nc')!r}); print(*sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"cfgrib", "eccodes", "gribapi", "obstore", "cdsapi", "ecmwf"} & set(answer.stdout.split())


def test_what_is_no_data_is_passed_over_in_a_folder(tmp_path, world, channels):
    world.to_netcdf(tmp_path / "a.nc")
    for name in ("._a.grib2", ".hidden.nc", "b.ncx4", "a.grib2.idx", "notes.txt"):
        (tmp_path / name).write_bytes(b"\0\5\x16\7")
    xr.testing.assert_equal(open_store(tmp_path, channels).load(), world)
    assert open_files(tmp_path / "*.nc").equals(open_files(tmp_path / "a.nc"))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"PK\3\4", "a zip archive: unpack it"),
        (b"\x1f\x8b\x08", "compressed"),
        (b"<html>", "a page of the web"),
        (b"", "empty"),
    ],
)
def test_a_file_that_is_something_else_is_named_for_what_it_is(tmp_path, content, reason):
    (tmp_path / "a.nc").write_bytes(content)
    with pytest.raises(ValueError, match=rf"a\.nc: expected a Zarr store .*it is {reason}"):
        open_files(tmp_path / "a.nc")


def test_files_whose_coordinates_are_rounded_otherwise_are_on_one_grid(tmp_path, world, channels):
    degrees = {dim: np.rad2deg(np.deg2rad(world[dim].values).astype("f4")) for dim in ("latitude", "longitude")}
    upper = list(channels.upper_air)
    world[upper].to_netcdf(tmp_path / "upper.nc")
    world.drop_vars([*upper, "level"]).assign_coords(degrees).to_netcdf(tmp_path / "surface.nc")
    ds = open_store(tmp_path, channels).load()
    np.testing.assert_allclose(ds["latitude"], world["latitude"], atol=1e-3)
    np.testing.assert_array_equal(ds["2m_temperature"].values, world["2m_temperature"].values)
    assert ds.sizes == world.sizes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda about: [about], r"a\.zarr: expected a Zarr store .*which this is not"),
        (lambda about: about | {"fill_value": "x"}, r"a\.zarr: expected a Zarr store"),
        (lambda about: about | {"codecs": [{"name": "odd"}]}, r"a\.zarr: expected a Zarr store"),
        (
            lambda about: about | {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [0, 3, 9, 16]}}},
            r"a\.zarr: 'temperature': expected values that can be read, got .*zero",
        ),
    ],
)
def test_damaged_metadata_of_zarr_are_refused_with_the_store(tmp_path, world, channels, spoil, message):
    world.to_zarr(tmp_path / "a.zarr", consolidated=False, zarr_format=3)
    path = tmp_path / "a.zarr/temperature/zarr.json"
    path.write_text(json.dumps(spoil(json.loads(path.read_text()))))
    with pytest.raises(ValueError, match=message):
        open_store(tmp_path / "a.zarr", channels)["temperature"].load()


def test_a_chunk_that_was_cut_is_refused_with_its_variable(tmp_path, world, channels):
    world.to_zarr(tmp_path / "a.zarr", consolidated=False, zarr_format=3)
    chunk = next(path for path in sorted((tmp_path / "a.zarr/temperature/c").rglob("*")) if path.is_file())
    chunk.write_bytes(chunk.read_bytes()[:50])
    with pytest.raises(ValueError, match=r"a\.zarr: 'temperature': expected values that can be read"):
        open_store(tmp_path / "a.zarr", channels).load()


def test_a_forecast_with_two_axes_of_time_says_what_to_select(tmp_path, world, channels):
    steps = np.array([0, 6], "timedelta64[h]").astype("timedelta64[ns]")
    both = world.drop_vars("land_sea_mask").expand_dims(step=steps, axis=1)
    both = both.assign_coords(valid_time=(("time", "step"), world["time"].values[:, None] + steps))
    with pytest.raises(ValueError, match=r"got \('time', 'step', .*ds.isel\(step=0\)"):
        open_store(both, channels)
    graphcast = world.assign_coords(time=world["time"] - world["time"][0])
    with pytest.raises(ValueError, match=r"got time differences\. Put the dates in their place"):
        open_store(graphcast, channels)
