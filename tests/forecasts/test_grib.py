from pathlib import Path

import numpy as np
import pytest
import xarray as xr

eccodes = pytest.importorskip("eccodes", reason="the extra [grib] is not installed", exc_type=ImportError)
cfgrib = pytest.importorskip("cfgrib", reason="the extra [grib] is not installed", exc_type=ImportError)

from ladcast.data.sources.grib import read_headers  # noqa: E402
from ladcast.fields import PRECIPITATION, SST, VARIABLES  # noqa: E402
from ladcast.forecasts import ExportFormat, Selection  # noqa: E402
from ladcast.forecasts.export import export  # noqa: E402
from ladcast.forecasts.grib import GribWriter  # noqa: E402  # only where ecCodes is installed
from ladcast.forecasts.open import crop, open_forecast  # noqa: E402
from ladcast.times import HOUR  # noqa: E402

PLANE = ("latitude", "longitude")


def write(forecast: xr.Dataset, path: Path, *, stop_after: int | None = None, **options) -> GribWriter:
    """Exports a forecast, or leaves it as a kill would after some frames."""
    writer = GribWriter(forecast, path, **options)
    for _ in range(writer.start(), writer.frames if stop_after is None else stop_after):
        writer.append()
    if stop_after is None:
        writer.finish()
    return writer


def read(path: Path, short_name: str) -> xr.DataArray:
    """Reads one variable with the dims and the order of rows of a forecast."""
    keys = {"filter_by_keys": {"shortName": short_name}, "indexpath": ""}
    with xr.set_options(use_new_combine_kwarg_defaults=True):
        ds = xr.load_dataset(path, engine="cfgrib", backend_kwargs=keys, decode_timedelta=True)
    (field,) = ds.data_vars.values()
    names = {"step": "prediction_timedelta", "isobaricInhPa": "level"}
    renamed = field.rename({old: new for old, new in names.items() if old in field.dims}).sortby("latitude")
    return renamed.sortby("level") if "level" in renamed.dims else renamed


@pytest.mark.slow
@pytest.mark.parametrize(("packing", "bits"), [("ccsds", 12), ("simple", 16)])
def test_cfgrib_reads_coordinates_and_values_within_the_packing_error(
    packing, bits: int, forecast: xr.Dataset, tmp_path: Path
):
    forecast = forecast.isel(prediction_timedelta=[0, 2], number=[0, 2])  # cfgrib reads all messages for each variable
    write(forecast, tmp_path / "fc.grib2", bits=bits, packing=packing)
    short = {"10m_u_component_of_wind": "10u", "2m_temperature": "2t", PRECIPITATION: "tp"}
    for name, field in forecast.data_vars.items():
        expected = field * 1000 if name == PRECIPITATION else field
        stored = read(tmp_path / "fc.grib2", short.get(str(name), VARIABLES[str(name)].short)).transpose(*field.dims)
        for dim in field.dims:
            np.testing.assert_allclose(stored[dim].values.astype(float), field[dim].values.astype(float), atol=1e-6)
        step = (expected.max(PLANE) - expected.min(PLANE)) / (2**bits - 1)
        rounding = abs(expected).max() * 2.0**-23  # both ends are float32
        assert (abs(stored - expected).fillna(0) <= step + rounding).all()
        np.testing.assert_array_equal(np.isnan(stored.values), np.isnan(expected.values))
        valid = stored["valid_time"].transpose("time", "prediction_timedelta").values
        np.testing.assert_array_equal(valid, (field["time"] + field["prediction_timedelta"]).values)


@pytest.mark.slow
def test_the_ensemble_keys_of_each_message(forecast: xr.Dataset, tmp_path: Path):
    write(forecast.isel(number=[2]), tmp_path / "fc.grib2", ensemble_size=3)
    keys = {}
    with (tmp_path / "fc.grib2").open("rb") as file:
        while (handle := eccodes.codes_grib_new_from_file(file)) is not None:
            name = eccodes.codes_get(handle, "shortName")
            wanted = ("dataType", "perturbationNumber", "numberOfForecastsInEnsemble", "stepType", "stepRange", "units")
            keys[name] = {
                key: eccodes.codes_get(handle, key) for key in (*wanted, "discipline", "dataDate", "dataTime")
            }
            eccodes.codes_release(handle)
    assert keys["tp"] == {
        "dataType": "pf",
        "perturbationNumber": 2,
        "numberOfForecastsInEnsemble": 3,
        "stepType": "accum",
        "stepRange": "12-18",
        "units": "kg m**-2",
        "discipline": 0,
        "dataDate": 20111011,
        "dataTime": 1200,
    }
    assert str(keys["z"]["stepRange"]) == "18"
    assert keys["sst"]["discipline"] == 10
    assert set(keys) == {"z", "q", "10u", "2t", "sst", "tp"}


@pytest.mark.slow
@pytest.mark.parametrize("short_name", ["z", "q", "t", "u", "v", "w", "10u", "10v", "2t", "msl", "sst", "tp"])
def test_every_variable_is_known_by_its_wmo_numbers(short_name: str, forecast: xr.Dataset, tmp_path: Path):
    names = {"10u": "u10", "10v": "v10", "2t": "t2m", "tp": "tp6h"}
    (name,) = (name for name, about in VARIABLES.items() if about.short == names.get(short_name, short_name))
    like = forecast["geopotential" if VARIABLES[name].on_levels else "2m_temperature"]
    write(like.rename(name).to_dataset().isel(time=[0], prediction_timedelta=[0]), tmp_path / "fc.grib2")
    numbers = {
        "z": (0, 3, 4),
        "q": (0, 1, 0),
        "t": (0, 0, 0),
        "u": (0, 2, 2),
        "v": (0, 2, 3),
        "w": (0, 2, 8),
        "10u": (0, 2, 2),
        "10v": (0, 2, 3),
        "2t": (0, 0, 0),
        "msl": (0, 3, 0),
        "sst": (10, 3, 0),
        "tp": (0, 1, 52),
    }
    with (tmp_path / "fc.grib2").open("rb") as file:
        handle = eccodes.codes_grib_new_from_file(file)
    keys = ("discipline", "parameterCategory", "parameterNumber")
    assert tuple(eccodes.codes_get(handle, key) for key in keys) == numbers[short_name]
    assert eccodes.codes_get(handle, "shortName") == short_name
    assert eccodes.codes_get(handle, "numberOfMissing") == 0
    eccodes.codes_release(handle)


@pytest.mark.slow
def test_a_region_keeps_its_points(forecast: xr.Dataset, tmp_path: Path):
    part = crop(forecast, (-90.0, 0.0, -22.5, 45.0))
    write(part, tmp_path / "fc.grib2")
    stored = read(tmp_path / "fc.grib2", "2t")
    np.testing.assert_allclose(stored["longitude"] - 360, part["longitude"])
    np.testing.assert_allclose(stored.transpose(*part["2m_temperature"].dims), part["2m_temperature"], atol=1e-2)


def test_a_region_across_the_meridian_of_0_is_refused_because_cfgrib_would_mislabel_it(forecast: xr.Dataset, tmp_path):
    with pytest.raises(ValueError, match=r"-45 to 22\.5 deg"):
        write(crop(forecast, (-45.0, 0.0, 22.5, 45.0)), tmp_path / "fc.grib2")


@pytest.mark.slow
def test_a_field_that_is_all_missing_stays_so(forecast: xr.Dataset, tmp_path: Path):
    land = forecast[[SST]] * np.nan
    write(land, tmp_path / "fc.grib2")
    assert read(tmp_path / "fc.grib2", "sst").isnull().all()


@pytest.mark.slow
@pytest.mark.parametrize("stop_after", [1, 4])
def test_a_killed_export_goes_on_to_the_same_bytes(stop_after: int, forecast: xr.Dataset, tmp_path: Path):
    write(forecast, tmp_path / "whole.grib2")
    killed = write(forecast, tmp_path / "killed.grib2", stop_after=stop_after)
    killed.file.write(b"GRIB half a message")
    killed.file.close()
    write(forecast, tmp_path / "killed.grib2")
    assert (tmp_path / "whole.grib2").read_bytes() == (tmp_path / "killed.grib2").read_bytes()


def test_sums_from_before_the_start_are_left_out(forecast: xr.Dataset, tmp_path: Path, capsys):
    leads = np.array([0, 6, 12], "timedelta64[h]").astype("timedelta64[ns]")
    begins = forecast.isel(time=[0], number=[0])[["2m_temperature", PRECIPITATION]].assign_coords(
        prediction_timedelta=leads
    )
    begins.to_zarr(tmp_path / "fc.zarr")
    export(tmp_path / "fc.zarr", tmp_path / "fc.grib2", Selection(), ExportFormat())
    assert capsys.readouterr().err.count(f"leaves out such of {PRECIPITATION}") == 1
    rain = [message for message in read_headers(tmp_path / "fc.grib2") if message.name == "tp"]
    ends = [((m.window.start - m.initial) / HOUR, (m.window.end - m.initial) / HOUR) for m in rain]
    assert sorted(ends) == [(0, 6), (6, 12)]
    again = open_forecast(tmp_path / "fc.grib2")[PRECIPITATION]
    assert np.isnan(again.isel(prediction_timedelta=0)).all()
    np.testing.assert_allclose(again[:, 1:], begins[PRECIPITATION].isel(prediction_timedelta=[1, 2]), atol=1e-6)
    with pytest.raises(ValueError, match="no sums from before the start"):
        GribWriter(begins[[PRECIPITATION]].isel(prediction_timedelta=[0]), tmp_path / "none.grib2")


def test_uneven_latitudes_are_refused(forecast: xr.Dataset, tmp_path: Path):
    uneven = forecast.isel(latitude=[0, 1, 3])
    with pytest.raises(ValueError, match="evenly spaced values of latitude"):
        GribWriter(uneven, tmp_path / "fc.grib2")
    assert not list(tmp_path.iterdir())


def test_members_that_grib_cannot_number_are_refused_before_anything_is_written(forecast: xr.Dataset, tmp_path: Path):
    last = forecast.isel(number=[2, 2, 2]).assign_coords(number=[0, 254, 255])
    with pytest.raises(ValueError, match=r"from 0 to 254, in 8 bits; the forecast has the member 255\. Choose"):
        GribWriter(last, tmp_path / "fc.grib2")
    assert not list(tmp_path.iterdir())
    few = last[["2m_temperature"]].isel(number=[0, 1], time=[0], prediction_timedelta=[0])
    write(few, tmp_path / "fc.grib2", ensemble_size=300)
    np.testing.assert_array_equal(read(tmp_path / "fc.grib2", "2t")["number"], [0, 254])
