"""Plumes: what is drawn is the members, their mean and their quantiles."""

import numpy as np
import pytest
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ladcast.plots.plumes import BANDS, draw_plume, lead_days, style_lead_axis
from ladcast.times import lead_times


@pytest.fixture
def axes() -> Axes:
    return Figure().add_subplot()


@pytest.fixture
def members() -> xr.DataArray:
    values = np.random.default_rng(0).normal(size=(8, 6))
    coords = {"number": range(6), "prediction_timedelta": lead_times(8)}
    return xr.DataArray(values, coords, ("prediction_timedelta", "number"))


def test_draws_each_member_and_the_mean_in_any_order_of_dimensions(axes: Axes, members: xr.DataArray) -> None:
    draw_plume(axes, members.T)
    *lines, mean = axes.lines
    assert len(lines) == 6
    for number, line in enumerate(lines):
        np.testing.assert_array_equal(line.get_ydata(), members.sel(number=number))
    np.testing.assert_allclose(mean.get_ydata(), members.mean("number"))
    np.testing.assert_allclose(mean.get_xdata(), np.arange(1, 9) / 4)


def test_bands_reach_from_quantile_to_quantile(axes: Axes, members: xr.DataArray) -> None:
    draw_plume(axes, members)
    for (low, high, _), band in zip(BANDS, axes.collections, strict=True):
        corners = band.get_paths()[0].vertices
        first = corners[np.isclose(corners[:, 0], 0.25), 1]
        expected = np.quantile(members[0], [low, high])
        np.testing.assert_allclose([first.min(), first.max()], expected)


def test_few_members_have_no_bands(axes: Axes, members: xr.DataArray) -> None:
    draw_plume(axes, members.isel(number=slice(4)))
    assert not axes.collections
    assert len(axes.lines) == 5


def test_legend_has_one_entry_of_each_kind(axes: Axes, members: xr.DataArray) -> None:
    draw_plume(axes, members, truth=members.isel(number=0, prediction_timedelta=[0, 1, 5]))
    bands = {"10% to 90% of members", "25% to 75% of members"}
    labels = axes.get_legend_handles_labels()[1]
    assert len(labels) == 5
    assert set(labels) == bands | {"member", "ensemble mean", "truth"}
    np.testing.assert_allclose(axes.lines[-1].get_xdata(), [0.25, 0.5, 1.5])
    assert axes.lines[-1].is_dashed()


def test_days_are_labelled_with_dates_across_a_month(axes: Axes, members: xr.DataArray) -> None:
    style_lead_axis(axes, np.datetime64("2001-01-30T12", "ns"), last_day=4.0)
    name = axes.xaxis.get_major_formatter()
    assert [name(day) for day in (0.0, 1.0, 2.0)] == ["0\n30 Jan", "1\n31 Jan", "2\n1 Feb"]
    assert all(float(tick).is_integer() for tick in axes.get_xticks())
    assert "days" in axes.get_xlabel()
    assert lead_days(members)[-1] == 2.0
