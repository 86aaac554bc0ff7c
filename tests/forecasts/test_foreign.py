"""Forecasts as other producers lay them out are read as ours, by every command; none is taken for an analysis."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import ladcast
from ladcast.data.audit import validate_store
from ladcast.data.store import open_store
from ladcast.forecasts import ExportFormat, Selection
from ladcast.forecasts.ask import ask
from ladcast.forecasts.export import export, write_mean, write_probabilities
from ladcast.forecasts.grib import GribWriter
from ladcast.forecasts.open import open_forecast, open_part, open_system, open_tracked
from ladcast.units import GRAVITY
from worlds import Kept

SHORT = {
    "temperature": "t",
    "mean_sea_level_pressure": "msl",
    "sea_surface_temperature": "sst",
    "2m_temperature": "t2m",
}


@pytest.fixture(scope="module")
def ours(kept_once: Kept) -> xr.Dataset:
    """Two initial times, 3 members, 8 lead times."""
    one = open_forecast(kept_once.fields).load().drop_encoding()
    later = one.assign_coords(time=one["time"] + np.timedelta64(12, "h"))
    return xr.concat([one, later + 0.25], "time", data_vars="all")


def northern_first(ds: xr.Dataset) -> xr.Dataset:
    """Rows from north to south, columns from -180, levels from the top down in another order."""
    west = ds.assign_coords(longitude=(ds["longitude"] + 180) % 360 - 180).sortby("longitude")
    return west.isel(latitude=slice(None, None, -1), level=slice(None, None, -1))


def as_cfgrib(ds: xr.Dataset) -> xr.Dataset:
    """Of several initial times, as `cfgrib.open_dataset(...).to_netcdf` writes it."""
    named = ds.rename(prediction_timedelta="step", level="isobaricInhPa", **short_names(ds))
    return named.assign_coords(valid_time=named["time"] + named["step"]).transpose("number", "time", "step", ...)


def short_names(ds: xr.Dataset) -> dict[str, str]:
    return {name: short for name, short in SHORT.items() if name in ds}


LAYOUTS: dict[str, Callable[[xr.Dataset], xr.Dataset]] = {
    "ours": lambda ds: ds,
    "north to south, from -180": northern_first,
    "cfgrib, several initial times": lambda ds: as_cfgrib(northern_first(ds)),
    "cfgrib, one initial time": lambda ds: as_cfgrib(northern_first(ds)).isel(time=0),
    "cfgrib, one member": lambda ds: as_cfgrib(ds).isel(number=1),
    "cfgrib, one member and initial time": lambda ds: as_cfgrib(ds).isel(number=1, time=0),
    "no members": lambda ds: as_cfgrib(ds).isel(number=1, time=0).drop_vars("number"),
    "the CDS": lambda ds: northern_first(ds).rename(
        time="forecast_reference_time",
        prediction_timedelta="forecast_period",
        level="pressure_level",
        **short_names(ds),
    ),
    "WeatherBench-X": lambda ds: ds.rename(time="init_time", prediction_timedelta="lead_time", number="sample"),
    "a region": lambda ds: ds.isel(latitude=slice(3, 7), longitude=slice(2, 9)),
}


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_other_layouts_are_read_as_ours(layout: str, ours: xr.Dataset, tmp_path: Path):
    LAYOUTS[layout](ours).to_netcdf(tmp_path / "fc.nc")
    read = open_system([tmp_path / "fc.nc"])
    expected = ours.isel(latitude=slice(3, 7), longitude=slice(2, 9)) if layout == "a region" else ours
    expected = expected.isel(time=[0]) if "initial time" in layout and "several" not in layout else expected
    expected = expected.isel(time=[0]) if layout == "no members" else expected
    expected = expected.isel(number=[1]) if "member" in layout else expected
    assert read["time"].values.tolist() == expected["time"].values.tolist()
    for name in ("temperature", "mean_sea_level_pressure", "sea_surface_temperature"):
        field = read[name] if "number" in read[name].dims else read[name].expand_dims(number=[1])
        wanted = expected[name].transpose(*field.dims)
        levels = {"level": wanted["level"]} if "level" in wanted.dims else {}
        np.testing.assert_array_equal(field.sel(levels), wanted)


def truth_of(forecast: xr.Dataset) -> xr.Dataset:
    """Member 0 of the first initial time as the truth of its valid times."""
    member = forecast.isel(time=0, number=0, drop=True)
    times = forecast["time"].values[0] + forecast["prediction_timedelta"].values
    return member.rename(prediction_timedelta="time").assign_coords(time=times)


@pytest.mark.slow
def test_every_command_takes_an_ensemble_of_others(ours: xr.Dataset, tmp_path: Path):
    as_cfgrib(northern_first(ours)).isel(time=0).to_netcdf(tmp_path / "ifs.nc")
    truth = truth_of(ours)
    scored = ladcast.score(tmp_path / "ifs.nc", truth)
    xr.testing.assert_allclose(scored, ladcast.score(ours.isel(time=[0]), truth))
    assert ladcast.plot(tmp_path / "ifs.nc", "stamps", field="t850", lead_days=1).axes
    assert "mean_sea_level_pressure" in open_tracked(tmp_path / "ifs.nc")
    export(tmp_path / "ifs.nc", tmp_path / "ours.zarr", Selection(members=(2,)), ExportFormat())
    again = open_forecast(tmp_path / "ours.zarr")["temperature"]
    np.testing.assert_array_equal(again.sel(level=500), ours["temperature"].sel(level=500, number=[2]).isel(time=[0]))


@pytest.mark.slow
def test_a_forecast_without_members_is_member_0_of_every_command(ours: xr.Dataset, tmp_path: Path):
    LAYOUTS["no members"](northern_first(ours)).to_netcdf(source := tmp_path / "hres.nc")
    expected = ours.isel(time=[0], number=[1]).assign_coords(number=[0])
    part = open_part(source)
    assert part["number"].values.tolist() == [0]
    assert part["temperature"].chunks is not None  # nothing is read yet
    warm = expected["temperature"].sel(level=850, drop=True) > 250
    asked = ask(source, "t850 > 250 K")["probability"]
    ahead = warm.sel(prediction_timedelta=asked["prediction_timedelta"])
    np.testing.assert_array_equal(asked, ahead.isel(number=0))
    shares = xr.open_dataset(
        write_probabilities(source, tmp_path / "p.nc", Selection(), events=["t850 > 250 K"]), decode_timedelta=True
    )
    np.testing.assert_array_equal(shares["t850_above_250_K"].squeeze(), warm.squeeze())
    for output in ("ours.zarr", "ours.nc", "ours.grib2"):
        export(source, tmp_path / output, Selection(("t",), levels=(500,)), ExportFormat())
        again = open_forecast(tmp_path / output)["temperature"]
        np.testing.assert_allclose(again, expected["temperature"].sel(level=[500]).transpose(*again.dims), rtol=1e-5)
    with pytest.raises(ValueError, match="needs 2 members, got 1"):
        write_mean(source, tmp_path / "mean.nc", Selection())


def test_a_zonal_mean_runs_northward(ours: xr.Dataset, tmp_path: Path):
    mean = ours.mean("longitude", keep_attrs=True)
    mean.isel(latitude=slice(None, None, -1)).to_netcdf(tmp_path / "mean.nc")
    xr.testing.assert_equal(open_forecast(tmp_path / "mean.nc").load(), mean)


@pytest.mark.slow
def test_a_region_of_ours_is_scored(kept_once: Kept, ours: xr.Dataset, tmp_path: Path):
    export(kept_once.fields, tmp_path / "part.nc", Selection(region="-30,-50,60,50"), ExportFormat())
    whole, truth = open_forecast(tmp_path / "part.nc"), truth_of(ours)
    scored = ladcast.score(tmp_path / "part.nc", truth)
    points = {"latitude": whole["latitude"], "longitude": whole["longitude"] % 360}
    error = ours["mean_sea_level_pressure"].isel(time=0).mean("number") - truth["mean_sea_level_pressure"].rename(
        time="prediction_timedelta"
    ).assign_coords(prediction_timedelta=ours["prediction_timedelta"])
    weight = np.cos(np.deg2rad(whole["latitude"]))
    expected = np.sqrt((error.sel(points).drop_vars("longitude") ** 2).weighted(weight).mean(("latitude", "longitude")))
    found = scored["rmse"].sel(system="ladcast", region="globe", season="all", channel="msl").squeeze()
    np.testing.assert_allclose(found, expected, rtol=0.02)  # the weights are areas of rows, not cosines


@pytest.mark.slow
@pytest.mark.parametrize("dim", ["number", "prediction_timedelta"])
def test_a_folder_with_a_file_for_each_member_or_lead_time(dim: str, ours: xr.Dataset, tmp_path: Path):
    for index in reversed(range(ours.sizes[dim])):
        as_cfgrib(ours.isel({dim: [index]})).to_netcdf(tmp_path / f"{9 - index}.nc")
    for opened in (open_forecast(tmp_path), open_system(sorted(tmp_path.iterdir()))):
        np.testing.assert_array_equal(opened["temperature"], ours["temperature"])
    as_cfgrib(ours.isel({dim: [0]})).to_netcdf(tmp_path / "twice.nc")
    with pytest.raises(ValueError, match="differ in more than one of them, or in none"):
        open_forecast(tmp_path)


CROSSED: dict[str, Callable[[xr.Dataset], list[xr.Dataset]]] = {
    "variables": lambda ds: [ds[["temperature"]], ds[["mean_sea_level_pressure"]]],
    "times and members": lambda ds: [ds.isel(time=[i], number=[j]) for i in range(2) for j in range(2)],
}


@pytest.mark.slow
@pytest.mark.parametrize("parts", CROSSED.values(), ids=CROSSED)
def test_files_that_cannot_be_joined_say_in_what_they_may_differ(parts, ours: xr.Dataset, tmp_path: Path):
    for index, part in enumerate(parts(ours)):
        part.to_netcdf(tmp_path / f"{index}.nc")
    refusal = r"0\.nc and others cannot be joined: expected files that differ in one of initial time.*combine_by_coords"
    with pytest.raises(ValueError, match=refusal):
        open_forecast(tmp_path)


def write_grib(forecast: xr.Dataset, path: Path) -> Path:
    writer = GribWriter(forecast, path, bits=24)
    writer.start()
    for _ in range(writer.frames):
        writer.append()
    return writer.finish()


@pytest.mark.slow
def test_grib_files_of_the_same_forecast_are_refused(forecast: xr.Dataset, tmp_path: Path):
    pytest.importorskip("eccodes")
    one = forecast[["geopotential", "total_precipitation_6hr"]].isel(time=[0], prediction_timedelta=[0, 1])
    (folder := tmp_path / "both").mkdir()
    first = write_grib(one, folder / "a.grib2")
    for name, place in {"geopotential": "member 0, 500 hPa", "total_precipitation_6hr": "member 0"}.items():
        write_grib(one[[name]] + 1, folder / "b.grib2")
        found = rf"a\.grib2: '(z|tp)' of 6 h from 2011-10-11T00, {place}, is there twice, also in .*/b\.grib2\. Give"
        for files in (folder, [first, folder / "b.grib2"]):
            with pytest.raises(ValueError, match=found):
                open_system(files) if isinstance(files, list) else open_forecast(files)
        (folder / "b.grib2").unlink()
    other = write_grib(one + 1, tmp_path / "other.grib2").read_bytes()
    own = first.read_bytes()
    (tmp_path / "again.grib2").write_bytes(own + own)  # as GFS writes some fields
    xr.testing.assert_equal(open_forecast(tmp_path / "again.grib2").load(), open_forecast(first).load())
    (tmp_path / "again.grib2").write_bytes(own + other)
    with pytest.raises(ValueError, match=r"is there twice, also in .*again\.grib2"):
        open_forecast(tmp_path / "again.grib2")


@pytest.mark.slow
def test_grib_as_ecmwf_delivers_it(forecast: xr.Dataset, tmp_path: Path):
    """A file for each step; heights in the place of geopotential, sums of rain since the initial time."""
    eccodes = pytest.importorskip("eccodes")
    sums = forecast.assign(total_precipitation_6hr=forecast["total_precipitation_6hr"].cumsum("prediction_timedelta"))
    write_grib(sums, tmp_path / "all.grib2")
    (folder := tmp_path / "delivered").mkdir()
    with (tmp_path / "all.grib2").open("rb") as file:
        while (handle := eccodes.codes_grib_new_from_file(file)) is not None:
            values, name = eccodes.codes_get_values(handle), eccodes.codes_get(handle, "shortName")
            if name == "z":
                eccodes.codes_set(handle, "shortName", "gh")
                eccodes.codes_set_values(handle, values / GRAVITY)
            elif name == "tp":
                eccodes.codes_set(handle, "startStep", 0)
            with (folder / f"{eccodes.codes_get(handle, 'endStep')}h.grib2").open("ab") as out:
                eccodes.codes_write(handle, out)
            eccodes.codes_release(handle)
    (folder / "6h.grib2.idx").write_text("beside it")
    read = open_forecast(folder)
    for name, off in {"geopotential": 0.1, "2m_temperature": 1e-3, "total_precipitation_6hr": 1e-7}.items():
        np.testing.assert_allclose(read[name], forecast[name], atol=off)
    np.testing.assert_array_equal(open_system(sorted(folder.glob("*.grib2")))["geopotential"], read["geopotential"])


ANALYSES = {"cfgrib": ("time", "step"), "the CDS": ("forecast_reference_time", "forecast_period")}


@pytest.mark.slow
@pytest.mark.parametrize("layout", ANALYSES)
def test_no_lead_time_of_a_forecast_passes_for_an_analysis(layout: str, ours: xr.Dataset, tmp_path: Path):
    start, lead = ANALYSES[layout]
    one = ours.isel(time=0, number=0, prediction_timedelta=3).drop_vars("number")
    named = one.rename(time=start, prediction_timedelta=lead)
    named.assign_coords(valid_time=one["time"].values + one["prediction_timedelta"].values).to_netcdf(
        tmp_path / "step.nc"
    )
    refusal = "expected analyses, got a forecast (24 h)"
    with pytest.raises(ValueError, match=re.escape(refusal)):
        open_store(tmp_path / "step.nc")
    assert any(refusal in problem.fault for problem in validate_store(tmp_path / "step.nc").problems)
    as_cdo = ours.isel(time=[0], number=[0])
    as_cdo.to_netcdf(tmp_path / "fc.nc")
    export(tmp_path / "fc.nc", tmp_path / "flat.nc", Selection(), ExportFormat(names="cdo"))
    with pytest.raises(ValueError, match=r"got a forecast \(48 hours\)"):
        open_store(tmp_path / "flat.nc")
    analysis = named.assign_coords({lead: np.timedelta64(0, "ns"), "valid_time": one["time"].values})
    analysis.to_netcdf(tmp_path / "analysis.nc")
    assert open_store(tmp_path / "analysis.nc", regular=False)["time"].values == one["time"].values


@pytest.mark.slow
@pytest.mark.parametrize("step", [np.timedelta64("NaT", "ns"), "instant", 0.0, np.nan])
def test_analyses_whose_lead_time_says_nothing_are_analyses(step: object, ours: xr.Dataset, tmp_path: Path):
    one = ours.isel(number=0, prediction_timedelta=0).drop_vars(["number", "prediction_timedelta"])
    # A file for each command: netCDF 4.10 with HDF5 2.2 crashes where one with text is opened a third time.
    state, tracked, other = (tmp_path / f"{name}.nc" for name in ("state", "tracked", "other"))
    for path in (state, tracked, other):
        one.assign_coords(step=step).to_netcdf(path)
    read = open_store(state, regular=False)
    np.testing.assert_array_equal(read["temperature"], one["temperature"].transpose(*read["temperature"].dims))
    assert open_tracked(tracked).sizes["time"] == 2
    with pytest.raises(ValueError, match="but is no forecast"):
        open_forecast(other)


@pytest.mark.parametrize("lead", ["prediction_timedelta", "forecast_period"])
def test_the_start_of_an_ensemble_alone_is_a_forecast(lead: str, ours: xr.Dataset):
    """What `isel(prediction_timedelta=0)` of a store leaves, of which cfgrib's `step` 0 is an analysis."""
    start = ours.assign_coords(prediction_timedelta=ours["prediction_timedelta"] - np.timedelta64(6, "h"))
    part = start.isel(prediction_timedelta=0).rename(prediction_timedelta=lead)
    xr.testing.assert_equal(open_forecast(part), start.isel(prediction_timedelta=[0]))
    assert "prediction_timedelta" not in open_forecast(as_cfgrib(start).isel(step=0)).dims
