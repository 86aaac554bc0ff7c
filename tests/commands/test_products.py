"""The commands `ladcast products`: the same from latents and from fields."""

import csv
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from ladcast.cli import app, run
from ladcast.forecasts import ExportFormat, Selection
from ladcast.forecasts.export import export, make, write_mean, write_points, write_probabilities, write_quantiles
from ladcast.forecasts.open import open_forecast
from ladcast.forecasts.products import mean_and_spread

COMMANDS = {
    "mean": ["mean", "--variables", "z", "t2m", "--levels", "500"],
    "quantiles": ["quantiles", "--variables", "msl", "--level", "0.1", "0.9", "--members", "0", "2"],
    "probability": ["probability", "--event", "t2m > 0 degC", "10m_wind_speed >= 20 kt", "--region=-10,35,30,70"],
}


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_products_of_latents_are_those_of_fields(command, suffix, kept, tmp_path: Path):
    made = {}
    for source in (kept.latents, kept.fields):
        output = tmp_path / f"{source.stem}{suffix}"
        run(app, ["products", command[0], str(source), str(output), *command[1:]])
        made[source] = xr.open_dataset(output, decode_timedelta=True)
        assert made[source].sizes["time" if suffix == ".nc" else "prediction_timedelta"] == 4
    xr.testing.assert_identical(made[kept.latents].load(), made[kept.fields].load())
    assert len(list(tmp_path.iterdir())) == 2


def test_netcdf_has_cf_names_and_one_axis_of_valid_times(kept, tmp_path: Path):
    write_mean(kept.fields, tmp_path / "mean.nc", Selection(("t2m", "z"), (500,)))
    made = xr.load_dataset(tmp_path / "mean.nc", decode_timedelta=True)
    forecast = open_forecast(kept.fields)
    assert set(made.data_vars) == {"t2m_mean", "t2m_spread", "z_mean", "z_spread"}
    assert made["z_mean"].dims == ("time", "level", "latitude", "longitude")
    assert made["z_mean"].attrs["cell_methods"] == "time: point realization: mean"
    assert made.attrs["Conventions"] == "CF-1.11"
    leads = forecast["prediction_timedelta"].values
    np.testing.assert_array_equal(made["time"], forecast["time"].values[0] + leads)
    np.testing.assert_array_equal(made["forecast_period"].values, leads)
    expected = forecast["2m_temperature"].isel(time=0).mean("number")
    np.testing.assert_allclose(made["t2m_mean"], expected.transpose("prediction_timedelta", ...), rtol=1e-6)


@pytest.mark.slow
def test_frame_by_frame_is_all_at_once(kept):
    selection = Selection(("t2m", "geopotential"), (500,))
    whole = mean_and_spread(open_forecast(kept.fields)[["2m_temperature", "geopotential"]].sel(level=[500]))
    xr.testing.assert_identical(make(mean_and_spread, kept.latents, selection), whole.load())


def test_points_are_a_table(kept, tmp_path: Path):
    selection = Selection(("z", "t2m"), (500, 850), (6, 24), (0, 2))
    run_points = ["Oslo,59.9,10.8", "Date line,0,180"]
    write_points(kept.latents, tmp_path / "p.csv", selection, places=run_points, method="nearest")
    with (tmp_path / "p.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 2 * 2
    row = next(row for row in rows if (row["place"], row["lead_hours"], row["member"]) == ("Date line", "24", "2"))
    forecast = open_forecast(kept.fields).sel(latitude=0, longitude=180, number=2, method="nearest")
    at_day_one = forecast.sel(prediction_timedelta=np.timedelta64(24, "h"))
    assert float(row["t2m [K]"]) == pytest.approx(at_day_one["2m_temperature"].item(), rel=1e-6)
    assert float(row["z850 [m2 s-2]"]) == pytest.approx(at_day_one["geopotential"].sel(level=850).item(), rel=1e-6)
    assert row["valid_time"] == str(forecast["time"].values[0] + np.timedelta64(24, "h"))[:16]


WRONG = {
    "suffix": (lambda source, out: write_mean(source, out / "x.grib", Selection(("t2m",))), r"\.nc or \.zarr"),
    "csv": (
        lambda source, out: write_points(source, out / "x.nc", Selection(), places=["a,1,2"], method="nearest"),
        "csv",
    ),
    "place": (
        lambda source, out: write_points(source, out / "x.csv", Selection(), places=[], method="nearest"),
        "--place",
    ),
    "event": (lambda source, out: write_probabilities(source, out / "x.nc", Selection(), events=[]), "--event"),
    "quantile": (
        lambda source, out: write_quantiles(source, out / "x.nc", Selection(("t2m",)), fractions=[50.0]),
        "within",
    ),
}


@pytest.mark.parametrize(("command", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_request_says_what_is_expected(command, message, kept, tmp_path: Path):
    with pytest.raises(ValueError, match=message):
        command(kept.latents, tmp_path)
    assert not list(tmp_path.iterdir())


def test_products_are_no_forecasts_and_claim_no_conventions(kept, tmp_path: Path):
    mean = write_mean(kept.fields, tmp_path / "mean.zarr", Selection(("t2m",)))
    made = xr.open_zarr(mean, decode_timedelta=True)
    assert "Conventions" not in made.attrs
    assert made["2m_temperature_mean"].attrs["units"] == "K"
    with pytest.raises(ValueError, match="lacks the dimensions number of an ensemble forecast"):
        write_mean(mean, tmp_path / "again.zarr", Selection())
    with pytest.raises(ValueError, match="lacks the dimensions number"):
        export(mean, tmp_path / "again.nc", Selection(), ExportFormat())
    with pytest.raises(ValueError, match="needs 2 members, got 1"):
        write_mean(kept.fields, tmp_path / "one.zarr", Selection(("t2m",), members=(1, 1)))
