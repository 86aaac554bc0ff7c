"""Systems are cut to what they share, and nothing is left out in silence."""

import numpy as np
import pytest
import xarray as xr

from ladcast.fields import SST
from ladcast.grid import Grid, grid_of
from ladcast.verification import climatological_ensemble, intersect, persistence, score


def test_equal_systems_are_left_alone(forecast: xr.Dataset) -> None:
    cut, report = intersect({"a": forecast, "b": forecast})
    xr.testing.assert_identical(cut["a"], forecast)
    assert not report.cuts
    assert report.members == {"a": 5, "b": 5}


def test_starts_leads_levels_and_variables_are_intersected(forecast: xr.Dataset) -> None:
    other = forecast.isel(time=[2, 1], prediction_timedelta=[1, 3], level=[1]).drop_vars(SST)
    cut, report = intersect({"ours": forecast.isel(time=[0, 1, 2]), "ifs": other})
    expected = forecast.isel(time=[1, 2], prediction_timedelta=[1, 3], level=[1]).drop_vars(SST)
    for ds in cut.values():
        xr.testing.assert_equal(ds, expected)
    text = str(report)
    assert "ours: 2 of 3 starts are scored, without 2020-12-30T00." in text
    assert "ours: 2 of 4 lead times are scored, without 6 h, 18 h." in text
    assert "ours: 1 of 2 levels are scored, without 500 hPa." in text
    assert f"ours: 2 of 3 variables are scored, without {SST}." in text
    assert "ifs:" not in text


def test_a_row_that_the_climatology_lacks_is_dropped(forecast: xr.Dataset) -> None:
    reference = grid_of(forecast.isel(latitude=slice(1, None)))
    cut, report = intersect({"ours": forecast}, reference=reference)
    assert grid_of(cut["ours"]) == report.grid == reference
    with pytest.raises(ValueError, match="different grids"):
        intersect({"ours": forecast}, reference=grid_of(forecast.isel(latitude=slice(2, None))))


def test_the_row_of_the_south_pole_is_dropped(forecast: xr.Dataset) -> None:
    cut, report = intersect({"ours": forecast.isel(latitude=slice(1, None)), "ifs": forecast})
    assert cut["ifs"].sizes["latitude"] == cut["ours"].sizes["latitude"]
    assert "ifs: 6 of 7 rows are scored, without -90 N." in str(report)


def test_members_are_kept_unless_told_otherwise(forecast: xr.Dataset) -> None:
    systems = {"ours": forecast, "small": forecast.isel(number=[0, 1]), "single": forecast.isel(number=0, drop=True)}
    _, report = intersect(systems)
    assert report.members == {"ours": 5, "small": 2, "single": 1}
    cut, report = intersect(systems, equal_members=True)
    assert report.members == {"ours": 2, "small": 2, "single": 1}
    assert "ours: 2 of 5 members are scored, without 2, 3, 4." in str(report)
    assert cut["ours"].sizes["number"] == 2


def test_an_ensemble_of_one_is_a_single_forecast(forecast: xr.Dataset) -> None:
    _, report = intersect({"ours": forecast, "hres": forecast.isel(number=[0])}, equal_members=True)
    assert report.members == {"ours": 5, "hres": 1}
    assert not report.cuts


def test_fair_crps_does_not_depend_on_the_number_of_members(make_states) -> None:
    grid, start = Grid.regular(240, 121), np.array(["2000-01-01"], "datetime64[ns]")
    lead = np.array([6], "timedelta64[h]").astype("timedelta64[ns]")
    forecast = make_states(5, grid=grid, time=start, prediction_timedelta=lead, number=np.arange(8))
    truth = make_states(6, grid=grid, time=start + lead)
    few, many = (score(forecast.isel(number=slice(count)), truth).metrics() for count in (2, 8))
    np.testing.assert_allclose(few["fair_crps"], many["fair_crps"], rtol=0.02)
    assert (few["crps"] > 1.1 * many["crps"]).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ds: ds.assign_coords(time=ds["time"] + np.timedelta64(1, "h")), "no starts in common: ours has 2020"),
        (
            lambda ds: ds.assign_coords(level=[300, 400]),
            "no levels in common: ours has 500 hPa, 850 hPa; other has 300",
        ),
        (lambda ds: ds.isel(time=[0, 1, 1]), "other holds the starts 2020-12-30T12 more than once"),
        (lambda ds: ds.isel(latitude=slice(2, None)), "different grids: ours 12 x 7"),
        (lambda ds: ds.rename({name: f"{name}_of_theirs" for name in ds}), "no variable in common"),
    ],
)
def test_what_cannot_be_compared_is_refused(forecast: xr.Dataset, change, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        intersect({"ours": forecast, "other": change(forecast)})


def test_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one forecast"):
        intersect({})


HELD = np.arange("2015-12-01", "2020-02-01", 12, dtype="datetime64[h]").astype("datetime64[ns]")
LEADS = np.array([12, 48], "timedelta64[h]").astype("timedelta64[ns]")


@pytest.fixture
def states(make_states) -> xr.Dataset:
    """The temperature says when it was: days since 2000."""
    ds = make_states(1, time=HELD[:1]).isel(time=np.zeros(len(HELD), int)).assign_coords(time=HELD)
    days = (HELD - np.datetime64("2000-01-01")) / np.timedelta64(1, "D")
    return ds.assign(temperature=ds["temperature"] * 0 + xr.DataArray(days.astype(np.float32), dims="time"))


def layout(make_states, *starts: str) -> xr.Dataset:
    times = np.array(starts, "datetime64[ns]")
    return make_states(2, time=times, prediction_timedelta=LEADS, number=np.arange(2))


def test_members_are_other_years_at_the_same_date_and_hour(make_states, states: xr.Dataset) -> None:
    found = climatological_ensemble(states, layout(make_states, "2017-03-01T12"))
    days = found["temperature"].isel(time=0, level=0, latitude=0, longitude=0)
    times = np.datetime64("2000-01-01") + (days.values * 24).astype("timedelta64[h]")
    expected = [[f"{year}-03-{day}" for year in (2016, 2018, 2019)] for day in ("02T00", "03T12")]
    np.testing.assert_array_equal(times, np.array(expected, "datetime64[h]"))


@pytest.mark.parametrize(
    ("valid", "dates"),
    [
        ("2020-12-31T18", [f"{year}-12-31T18" for year in (2018, 2019, 2021)]),
        ("2020-03-01T00", [f"{year}-03-01T00" for year in (2018, 2019, 2021)]),
        ("2020-02-29T12", [f"{year}-02-28T12" for year in (2018, 2019, 2021)]),
        ("2019-12-31T06", ["2018-12-31T06", "2020-12-31T06", "2021-12-31T06"]),
    ],
)
def test_leap_years_keep_the_date(valid: str, dates: list[str]) -> None:
    held = np.arange("2018-01-01", "2022-01-01", 6, dtype="datetime64[h]").astype("datetime64[ns]")
    states = xr.Dataset({"2m_temperature": ("time", np.arange(len(held)))}, {"time": held})
    leads = np.array([0], "timedelta64[ns]")
    forecast = xr.Dataset(
        {"2m_temperature": (("time", "prediction_timedelta"), [[0]])},
        {"time": np.array([valid], "datetime64[ns]"), "prediction_timedelta": leads},
    )
    found = climatological_ensemble(states, forecast)["2m_temperature"].values.ravel()
    np.testing.assert_array_equal(held[found], np.array(dates, "datetime64[ns]"))


def test_only_the_levels_of_the_forecast_are_taken(make_states, states: xr.Dataset) -> None:
    forecast = layout(make_states, "2017-03-01T12").sel(level=[850])
    for made in (climatological_ensemble(states, forecast), persistence(states, forecast)):
        assert made["level"].values.tolist() == [850]


def test_around_new_year_the_valid_time_counts(make_states, states: xr.Dataset) -> None:
    found = climatological_ensemble(states, layout(make_states, "2017-12-31T00"))
    assert found.sizes["number"] == 4  # 2015, 2016, 2018, 2019 on December 31; 2016, 2017, 2019, 2020 on January 2
    days = found["temperature"].isel(time=0, level=0, latitude=0, longitude=0)
    years = (np.datetime64("2000-01-01") + (days.values * 24).astype("timedelta64[h]")).astype("datetime64[Y]")
    assert years.astype(int).tolist() == [[45, 46, 48, 49], [46, 47, 49, 50]]


def test_it_can_be_scored_like_any_ensemble(make_states, states: xr.Dataset) -> None:
    forecast = layout(make_states, "2017-03-01T12")
    scores = score(climatological_ensemble(states, forecast), states)
    assert scores.members == 3
    assert np.isfinite(scores.metrics()["fair_crps"]).all()


def test_years_that_are_not_whole_are_refused(make_states, states: xr.Dataset) -> None:
    with pytest.raises(ValueError, match="same number"):
        climatological_ensemble(states, layout(make_states, "2017-01-10T00", "2017-03-01T12"))
