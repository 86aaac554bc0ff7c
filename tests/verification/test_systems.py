"""Systems are cut to what they share, and nothing is left out in silence."""

import numpy as np
import pytest
import xarray as xr

from ladcast.fields import SST
from ladcast.grid import Grid, grid_of
from ladcast.verification import intersect, score


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
