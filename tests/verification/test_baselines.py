"""The probabilistic climatology: other years on the same date and hour, never the year of the truth."""

import numpy as np
import pytest
import xarray as xr

from ladcast.verification import climatological_ensemble, persistence, score

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


def test_offsets_multiply_the_members(make_states, states: xr.Dataset) -> None:
    forecast = layout(make_states, "2017-03-01T12", "2018-06-01T00")
    assert climatological_ensemble(states, forecast, offsets_days=(-1, 0, 1)).sizes["number"] == 9


def test_it_can_be_scored_like_any_ensemble(make_states, states: xr.Dataset) -> None:
    forecast = layout(make_states, "2017-03-01T12")
    scores = score(climatological_ensemble(states, forecast), states)
    assert scores.members == 3
    assert np.isfinite(scores.metrics()["fair_crps"]).all()


def test_years_that_are_not_whole_are_refused(make_states, states: xr.Dataset) -> None:
    with pytest.raises(ValueError, match="same number"):
        climatological_ensemble(states, layout(make_states, "2017-01-10T00", "2017-03-01T12"))
