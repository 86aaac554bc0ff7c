"""Weekly means, and fifths of a climatology, have known answers."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from ladcast.cf import QUINTILES_OF
from ladcast.cli import app, run
from ladcast.data.derive import frames_of_week
from ladcast.fields import PRECIPITATION
from ladcast.forecasts import WHOLE as SELECTED
from ladcast.forecasts.open import open_forecast, open_part
from ladcast.forecasts.weekly import (
    QUINTILES,
    make_quintiles,
    parse_week,
    quest_files,
    quintile_probabilities,
    weekly_means,
    write_quest,
)
from ladcast.grid import Grid
from ladcast.plots.ensemble import draw_quintiles
from ladcast.times import DAY, HOUR
from ladcast.verification.match import match_truth

GRID = Grid.parse("16x9-south")
T2M, MSL = "2m_temperature", "mean_sea_level_pressure"
MEMBERS, DAYS = 10, 32
POINT = {"latitude": np.array(GRID.latitude), "longitude": np.array(GRID.longitude)}


@pytest.fixture(scope="module")
def forecast() -> xr.Dataset:
    """Temperature and rain say the lead time in days; member m of the pressure is m + 0.5 hPa above 1000 hPa."""
    leads = np.arange(0, DAYS * 24 + 1, 6) * HOUR.astype("timedelta64[ns]")
    shape = (1, len(leads), MEMBERS, *GRID.shape)
    dims = ("time", "prediction_timedelta", "number", "latitude", "longitude")
    days = np.broadcast_to((leads / DAY)[:, None, None, None], shape[1:])[None]
    member = np.broadcast_to(np.arange(MEMBERS)[:, None, None], shape)
    fields = {T2M: days + 273.15, PRECIPITATION: days / 1000, MSL: 1e5 + 100 * (member + 0.5)}
    units = {T2M: "K", PRECIPITATION: "m", MSL: "Pa"}
    return xr.Dataset(
        {name: (dims, values.astype(np.float32), {"units": units[name]}) for name, values in fields.items()},
        {
            "time": np.array(["2020-01-02"], "datetime64[ns]"),
            "prediction_timedelta": leads,
            "number": np.arange(MEMBERS),
            **POINT,
        },
        {"source": "a test", "unreal": "numbers"},
    )


@pytest.fixture(scope="module")
def weekly(forecast: xr.Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weekly")
    forecast.to_zarr(folder / "forecast.zarr")
    words = [str(folder / "forecast.zarr"), str(folder / "weekly.zarr"), "--weeks", "19-25", "26-32"]
    run(app, ["products", "weekly", *words])
    return folder / "weekly.zarr"


@pytest.fixture(scope="module")
def climatology(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pressure: fifths of 1000 to 1010 hPa. It never rains: all bounds are 0. Of temperature nothing is known."""
    path = tmp_path_factory.mktemp("climate") / "climatology.nc"
    dims, days = ("dayofyear", "quantile", "latitude", "longitude"), np.array([1, 183])
    levels = np.array([0.1, *QUINTILES])
    bounds = np.broadcast_to((1e5 + 1000 * levels)[:, None, None], (2, 5, *GRID.shape))
    of_weeks = {"cell_methods": "time: mean"}
    fields = {f"{MSL}_quantile": (dims, bounds, of_weeks), f"{PRECIPITATION}_quantile": (dims, 0 * bounds, of_weeks)}
    xr.Dataset(fields, {"dayofyear": days, "quantile": levels, **POINT}).to_netcdf(path)
    return path


def test_a_week_counts_instants_from_its_begin_and_sums_to_its_end(forecast: xr.Dataset) -> None:
    means = weekly_means(forecast, [parse_week("1-7"), parse_week("26-32")])
    for week, begin in enumerate((0, 25)):
        instants, sums = begin + np.arange(28) / 4, begin + np.arange(1, 29) / 4
        np.testing.assert_allclose(means[T2M].isel(prediction_timedelta=week) - 273.15, instants.mean(), rtol=1e-4)
        np.testing.assert_allclose(means[PRECIPITATION].isel(prediction_timedelta=week), sums.mean() / 1000, rtol=1e-5)
    np.testing.assert_array_equal(means["prediction_timedelta"] / DAY, [7, 32])


@pytest.mark.slow
@pytest.mark.parametrize("dims", [("number", "time"), ("latitude", "longitude")])
def test_the_order_of_dimensions_does_not_matter(forecast: xr.Dataset, dims: tuple[str, str]) -> None:
    """Others have members or points before the lead times, of which here are as many as members."""
    part = forecast[[T2M, MSL]].isel(number=[*range(5)])
    transposed = part.transpose(*dims, ...)
    xr.testing.assert_identical(weekly_means(open_part(transposed)), weekly_means(part))


def test_without_a_choice_all_whole_weeks_are_meant(forecast: xr.Dataset) -> None:
    np.testing.assert_array_equal(weekly_means(forecast)["prediction_timedelta"] / DAY, [7, 14, 21, 28])


@pytest.mark.parametrize("step", [6, 12, 24])
def test_a_week_of_any_step_is_whole_or_not_there(step: int) -> None:
    leads = np.arange(0, 24 * 10, step) * HOUR
    assert len(frames_of_week(leads, 7 * DAY)) * step == 7 * 24
    assert not len(frames_of_week(leads[leads != 5 * DAY], 7 * DAY))
    assert not len(frames_of_week(leads[1:], 7 * DAY))
    assert bool(len(frames_of_week(leads, 7 * DAY, accumulated_hours=6))) == (step == 6)


def test_frames_that_lack_are_said(forecast: xr.Dataset) -> None:
    with pytest.raises(ValueError, match=r"evenly over the week that ends 39 days ahead.*to 768 h. .*--weeks"):
        weekly_means(forecast, [parse_week("33-39")])
    with pytest.raises(ValueError, match="'2m_temperature' evenly over the week that ends 7 days"):
        weekly_means(forecast.isel(prediction_timedelta=slice(1, None)))
    with pytest.raises(ValueError, match="week that ends 7 days"):
        weekly_means(forecast.isel(prediction_timedelta=slice(0, 5)))


@pytest.mark.parametrize("text", ["19-24", "19", "0-6", "a-b", "-1-5"])
def test_a_week_has_seven_days(text: str) -> None:
    with pytest.raises(ValueError, match="first and last day such as 1-7 or 19-25"):
        parse_week(text)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_weekly_means_are_a_forecast(weekly: Path, suffix: str, tmp_path: Path) -> None:
    """netCDF has the names of CF, the bounds say the weeks, and both open as a forecast whose weeks are still known."""
    output = tmp_path / f"again{suffix}"
    words = ["products", "weekly", str(weekly.with_name("forecast.zarr")), str(output), "--weeks", "19-25"]
    assert run(app, words) is None
    raw = xr.open_dataset(output, decode_timedelta=False, engine="netcdf4" if suffix == ".nc" else "zarr")
    lead = "forecast_period" if suffix == ".nc" else "prediction_timedelta"
    assert raw[raw[lead].attrs["bounds"]].values.tolist() == [[18 * 24, 25 * 24]]
    opened = open_forecast(output)
    assert opened.sizes["number"] == MEMBERS
    assert opened.attrs["unreal"] == "numbers"
    assert all(": mean" in opened[name].attrs["cell_methods"] for name in opened.data_vars)


@pytest.mark.slow
def test_one_member_in_each_tenth_is_two_in_each_fifth_and_where_it_never_rains_all_are_in_the_last(
    weekly: Path, climatology: Path, tmp_path: Path
) -> None:
    run(app, ["products", "quintiles", str(weekly), str(tmp_path / "q.zarr"), "--climatology", str(climatology)])
    made = xr.open_zarr(tmp_path / "q.zarr", decode_timedelta=True)
    assert made["quintile"].values.tolist() == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert set(made.data_vars) == {f"{MSL}_quintile_probability", f"{PRECIPITATION}_quintile_probability"}
    np.testing.assert_allclose(made[f"{MSL}_quintile_probability"], 0.2, rtol=1e-6)
    np.testing.assert_array_equal(
        made[f"{PRECIPITATION}_quintile_probability"].isel(latitude=0, longitude=0).squeeze(), [[0, 0, 0, 0, 1]] * 2
    )


@pytest.mark.slow
def test_a_figure_shows_both_outer_fifths_of_each_field_and_week(
    weekly: Path, climatology: Path, tmp_path: Path
) -> None:
    figure = draw_quintiles(make_quintiles(weekly, SELECTED, climatology=climatology))
    shown = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert shown[:2] == [f"Mean sea level pressure, days 19-25: {fifth} fifth" for fifth in ("lowest", "highest")]
    assert len(shown) == 2 * 2 * 2
    assert any("model weather" in text.get_text() for text in figure.texts)
    words = ["products", "quintiles", str(weekly), str(tmp_path / "q.png"), "--climatology", str(climatology)]
    assert run(app, words) is None
    assert (tmp_path / "q.png").read_bytes().startswith(b"\x89PNG")


def test_quest_files_are_those_of_its_package(weekly: Path, climatology: Path, tmp_path: Path) -> None:
    run(
        app,
        ["products", "quintiles", str(weekly), str(tmp_path), "--climatology", str(climatology), "--quest", "Team,One"],
    )
    names = sorted(path.name for path in tmp_path.glob("*.nc"))
    assert names == [f"{name}_20200102_p{period}_Team_One.nc" for name in ("mslp", "pr") for period in (1, 2)]
    field = xr.open_dataset(tmp_path / names[0])["mslp"]
    assert field.dims == ("quintile", "latitude", "longitude")
    assert field.shape == (5, 121, 240)
    np.testing.assert_allclose(field["quintile"], np.arange(1, 6) / 5)
    np.testing.assert_allclose(field["latitude"], np.arange(90, -91, -1.5))
    np.testing.assert_allclose(field["longitude"], np.arange(0, 360, 1.5))
    np.testing.assert_allclose(field.sum("quintile"), 1, atol=1e-5)
    assert str(field["forecast_period_start"].values)[:13] == "2020-01-20T00"
    assert str(field["forecast_period_end"].values)[:13] == "2020-01-26T18"
    assert xr.open_dataset(tmp_path / names[2])["pr"].attrs["forecast_period_bounds"] == "[18.0,25.0]"


def test_instants_have_no_fifths_of_weeks_and_other_quantiles_are_no_quintiles(
    weekly: Path, climatology: Path, forecast: xr.Dataset, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"Expected weekly means.*products weekly"):
        make_quintiles(weekly.with_name("forecast.zarr"), SELECTED, climatology=climatology)
    terciles = tmp_path / "terciles.nc"
    xr.load_dataset(climatology).isel(quantile=[0, 1]).to_netcdf(terciles)
    of_instants = tmp_path / "instants.nc"
    xr.load_dataset(climatology).drop_attrs().to_netcdf(of_instants)
    with pytest.raises(ValueError, match="perhaps of no means"):
        make_quintiles(weekly, SELECTED, climatology=of_instants)
    with pytest.raises(ValueError, match=r"0\.2, 0\.4, 0\.6, 0\.8 of .*--quantiles 0\.2 0\.4 0\.6 0\.8"):
        make_quintiles(weekly, SELECTED, climatology=terciles)


@pytest.mark.slow
def test_a_drift_that_reforecasts_share_does_not_count(weekly: Path, tmp_path: Path) -> None:
    """The bounds are those of the same week; the other week of the reforecasts is 10 hPa lower."""
    means = open_forecast(weekly).load()
    drift = xr.DataArray([0.0, -1000.0], dims="prediction_timedelta")
    drifted = means.assign({MSL: (means[MSL] + drift).astype(np.float32).assign_attrs(means[MSL].attrs)})
    alike, unlike = (quintile_probabilities(drifted, past)[MSL + QUINTILES_OF] for past in (drifted, means))
    np.testing.assert_allclose(alike, 0.2, rtol=1e-6)
    np.testing.assert_allclose(unlike.isel(prediction_timedelta=0), 0.2, rtol=1e-6)
    np.testing.assert_array_equal(
        unlike.isel(prediction_timedelta=1, latitude=0, longitude=0).squeeze(), [1, 0, 0, 0, 0]
    )
    run(app, ["products", "quintiles", str(weekly), str(tmp_path / "q.nc"), "--reforecasts", str(weekly)])
    assert "msl_quintile_probability" in xr.open_dataset(tmp_path / "q.nc")


def test_reforecasts_of_other_weeks_are_refused_and_so_are_two_climates(weekly: Path, climatology: Path) -> None:
    means = open_forecast(weekly).load()
    with pytest.raises(ValueError, match=r"of the same weeks, got .* that end on day 32"):
        quintile_probabilities(means, means.isel(prediction_timedelta=[0]))
    for both in ({}, {"climatology": climatology, "reforecasts": weekly}):
        with pytest.raises(ValueError, match="--climatology of weekly means, or --reforecasts"):
            make_quintiles(weekly, SELECTED, **both)


def test_weekly_means_are_scored_against_weekly_means_alone(weekly: Path) -> None:
    means = open_forecast(weekly)[[T2M]]
    truth = means.isel(time=0, number=0, drop=True).rename(prediction_timedelta="time")
    truth = truth.assign_coords(time=means["time"].values + means["prediction_timedelta"].values)
    assert match_truth(means, truth).members == MEMBERS
    for pair in ((means, truth.drop_attrs()), (means.drop_attrs(), truth)):
        with pytest.raises(ValueError, match=r"mean over time in one .*ladcast-data weekly"):
            match_truth(*(ds.assign({T2M: ds[T2M].assign_attrs(units="K")}) for ds in pair))


@pytest.mark.slow
def test_the_quest_takes_its_own_weeks_alone(weekly: Path, climatology: Path, tmp_path: Path) -> None:
    made = make_quintiles(weekly, SELECTED, climatology=climatology)
    other = made.assign_coords(prediction_timedelta=[7 * DAY, 14 * DAY])
    with pytest.raises(ValueError, match=r"weeks 19-25 and 26-32; got .* end on day 7, 14"):
        quest_files(other, "Team", "One")
    write_quest(made, tmp_path, team="Team", model="One")
    with pytest.raises(FileExistsError):
        write_quest(made, tmp_path, team="Team", model="One")
