"""Figures of one field: what they show is what the members hold, and what there is not is said."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from cartopy import crs
from cartopy.mpl.geoaxes import GeoAxes
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure
from matplotlib.path import Path as Path2D

from ladcast.grid import Grid, Region
from ladcast.plots import FieldOptions
from ladcast.plots.ensemble import (
    Shown,
    draw_field,
    draw_figure,
    draw_probability,
    draw_spaghetti,
    draw_stamps,
    select_shown,
)
from ladcast.plots.maps import central_longitude
from ladcast.plots.quantities import QUANTITIES, find_quantity, spread_of
from ladcast.plots.style import save_figure
from ladcast.times import HOUR, lead_times

START = np.datetime64("2001-01-14T06", "ns")
DAY_ONE = np.timedelta64(24, "h").astype("timedelta64[ns]")


@pytest.fixture(scope="module")
def forecast() -> xr.Dataset:
    """Temperatures that fall from 300 K at the equator to 240 K at the poles, warmer by a kelvin with each member."""
    grid = Grid.regular(32, 17)
    latitude, number = xr.DataArray(list(grid.latitude), dims="latitude"), xr.DataArray(range(3), dims="number")
    field = (300 - 60 * np.sin(np.deg2rad(latitude)) ** 2 + number).expand_dims(
        time=[START], prediction_timedelta=lead_times(4), longitude=list(grid.longitude)
    )
    where = {"latitude": list(grid.latitude), "number": range(3)}
    about = {"source": "a test model", "unreal": "yes"}
    winds = {name: field * 0 + speed for name, speed in zip(QUANTITIES["wind10"].variables, (3.0, 4.0), strict=True)}
    return xr.Dataset({"2m_temperature": field, **winds}, attrs=about).assign_coords(where)


@pytest.fixture(scope="module")
def shown(forecast: xr.Dataset) -> Shown:
    truth = forecast.isel(time=0, number=0, prediction_timedelta=slice(1), drop=True).drop_vars("prediction_timedelta")
    truth = truth.rename(prediction_timedelta="time").assign_coords(time=[START + DAY_ONE])
    return select_shown(forecast, "t2m", DAY_ONE, truth)


def texts(figure: Figure) -> str:
    labels = [axes.get_title() + axes.get_xlabel() for axes in figure.axes]
    return " ".join([*(text.get_text() for text in figure.texts), *labels])


def test_fields_are_read_in_units_that_people_read(forecast: xr.Dataset, shown: Shown) -> None:
    assert float(shown.members.sel(latitude=0, number=0)[0]) == pytest.approx(26.85)
    np.testing.assert_allclose(select_shown(forecast, "wind10", DAY_ONE).members, 5.0)
    assert shown.truth is not None
    first = shown.members.sel(number=0)
    np.testing.assert_allclose(shown.truth.transpose(*first.dims), first)


@pytest.mark.slow
def test_spaghetti_lie_where_the_members_have_the_value(shown: Shown) -> None:
    figure = draw_spaghetti(shown, 0.0)
    (axes,) = figure.axes
    paths = [collection.get_paths()[0].vertices for collection in axes.collections if len(collection.get_paths())]
    lines = [crs.PlateCarree().transform_points(axes.projection, *path.T)[:, 1] for path in paths]
    expected = [np.rad2deg(np.arcsin(np.sqrt((26.85 + member) / 60))) for member in (0, 1, 2, 1, 0)]
    found = [abs(line).mean() for line in lines if len(line) > 100]  # members, their mean, the analysis
    np.testing.assert_allclose(found, expected, atol=0.5)
    assert "analysis" in [text.get_text() for text in figure.legends[0].get_texts()]
    assert "valid Mon 15 Jan 2001, 06 UTC | day 1 from 14 Jan, 06 UTC" in texts(figure)


@pytest.mark.slow
def test_every_member_has_a_stamp_on_one_scale(shown: Shown) -> None:
    figure = draw_stamps(shown, region=(-60.0, 25.0, 50.0, 75.0))
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == ["mean", "analysis", "0", "1", "2"]
    assert "2 m temperature (°C)" in texts(figure)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "label"),
    [("mean", "ensemble mean (°C)"), ("spread", "ensemble spread (K)"), ("difference", "mean minus analysis (K)")],
)
def test_a_map_says_what_it_shows(kind: str, label: str, shown: Shown, tmp_path: Path) -> None:
    figure = draw_field(shown, kind)
    assert label in texts(figure)
    assert "model weather, not the real atmosphere" in texts(figure)
    assert save_figure(figure, tmp_path / "map.png").stat().st_size > 5000


@pytest.mark.parametrize("kind", ["spread", "difference"])
def test_what_is_zero_or_rounding_is_white(kind: str, shown: Shown) -> None:
    """As at 0 h, where all members are the analysis, which truth may hold with other errors of 32 bits."""
    one = shown.members.isel(number=0, drop=True)
    alike = one.expand_dims(number=range(20))
    truth = one + np.random.default_rng(0).uniform(-3e-5, 3e-5, one.shape)
    shown = replace(shown, members=alike, truth=truth)
    assert float(alike.std("number", ddof=1).max()) > 0  # rounding
    assert not alike.reduce(spread_of, "number").any()
    axes = draw_field(shown, kind).axes[0]
    (shading,) = [drawn for drawn in axes.collections if isinstance(drawn, QuadContourSet)]
    drawn = [
        colour for colour, path in zip(shading.get_facecolor(), shading.get_paths(), strict=True) if len(path.vertices)
    ]
    np.testing.assert_allclose(drawn, [(1, 1, 1, 1)], atol=0.01)
    assert shading.levels[-1] == pytest.approx(300e-5, rel=0.3)


def shades(axes: GeoAxes) -> list[Path2D]:
    """Returns the outlines of the shades of a map, in its own coordinates."""
    (shading,) = [drawn for drawn in axes.collections if isinstance(drawn, QuadContourSet)]
    return [path for path in shading.get_paths() if len(path.vertices)]


def shaded_corners(axes: GeoAxes) -> np.ndarray:
    return np.concatenate([path.vertices for path in shades(axes)])


@pytest.mark.slow
@pytest.mark.parametrize("region", [None, (-60.0, -60.0, 60.0, 60.0), (-180.0, -90.0, 180.0, 90.0)])
def test_a_forecast_across_the_date_line_is_drawn_where_it_lies(
    region: Region | None, shown: Shown, tmp_path: Path
) -> None:
    pacific = replace(shown, members=shown.members.sel(longitude=slice(150, 210), latitude=slice(-45, 45)), truth=None)
    figure = draw_field(pacific, region=region)
    axes = figure.axes[0]
    longitude = crs.PlateCarree().transform_points(axes.projection, *shaded_corners(axes).T)[:, 0] % 360
    assert longitude.min() == pytest.approx(157.5, abs=0.01)
    assert longitude.max() == pytest.approx(202.5, abs=0.01)
    assert any(path.contains_point(axes.projection.transform_point(178, 3, crs.PlateCarree())) for path in shades(axes))
    assert not any(
        path.contains_point(axes.projection.transform_point(3, 3, crs.PlateCarree())) for path in shades(axes)
    )
    if region is None:  # the map is that of the box
        for drawn in (figure, draw_stamps(pacific), draw_spaghetti(pacific, 20.0)):
            assert central_longitude(drawn.axes[0]) == 180
            np.testing.assert_allclose(drawn.axes[0].get_extent(), (-22.5, 22.5, -45, 45), atol=1e-6)
    assert save_figure(figure, tmp_path / "map.png").stat().st_size > 5000


@pytest.mark.slow
@pytest.mark.parametrize(
    ("west", "east", "middle", "half"),
    [(-180.0, 180.0, 0, 180), (0.0, 360.0, 180, 180), (-60.0, 50.0, -5, 55), (170.0, -170.0, 180, 10)],
)
def test_a_region_is_as_wide_as_it_goes_eastward(
    west: float, east: float, middle: float, half: float, shown: Shown
) -> None:
    axes = draw_field(shown, region=(west, -30.0, east, 30.0)).axes[0]
    assert central_longitude(axes) == middle
    assert (*axes.get_xlim(), *axes.get_ylim()) == (-half, half, -30, 30)
    corners = shaded_corners(axes)[:, 0]
    assert (corners.min(), corners.max()) == pytest.approx((-180, 180))  # shades reach both edges of the map


@pytest.mark.slow
def test_a_forecast_without_members_is_one_member(forecast: xr.Dataset) -> None:
    alone = select_shown(forecast.isel(number=2, drop=True), "t2m", DAY_ONE)
    assert alone.members["number"].values.tolist() == [0]
    assert select_shown(forecast.isel(number=2), "t2m", DAY_ONE).members["number"].values.tolist() == [2]
    assert "ensemble mean (°C)" in texts(draw_field(alone))
    assert "member 0 (°C)" in texts(draw_field(alone, "0"))
    assert "2 m temperature: 1 member" in texts(draw_stamps(alone))
    with pytest.raises(ValueError, match="spread needs 2 members or more, the forecast has 1"):
        draw_field(alone, "spread")


@pytest.mark.parametrize("levels", [[850], None], ids=["another level", "no levels"])
def test_a_truth_without_the_level_is_missed_only_by_the_difference(
    levels: list[int] | None, forecast: xr.Dataset
) -> None:
    upper = forecast[["2m_temperature"]].rename({"2m_temperature": "temperature"}).expand_dims(level=[500])
    truth = upper.isel(time=0, number=0, drop=True).rename(prediction_timedelta="time")
    truth = truth.assign_coords(time=START + upper["prediction_timedelta"].values)
    assert select_shown(upper, "t500", DAY_ONE, truth).truth is not None
    truth = truth.isel(level=0, drop=True) if levels is None else truth.assign_coords(level=levels)
    assert "ensemble mean (°C)" in texts(draw_figure(upper, "mean", FieldOptions("t500"), lead=DAY_ONE, truth=truth))
    with pytest.raises(ValueError, match="no analysis of this time"):
        draw_figure(upper, "difference", FieldOptions("t500"), lead=DAY_ONE, truth=truth)


def test_probabilities_are_shares_of_members(shown: Shown) -> None:
    figure = draw_probability(shown, 27.0, below=True)
    assert "share of members below 27 °C (%)" in texts(figure)


WRONG = {
    "field": ("mean", FieldOptions("rain"), "Expected a field such as t2m"),
    "level": ("mean", FieldOptions("z"), "Expected a field such as t2m"),
    "absent": ("mean", FieldOptions("z500"), "There is no geopotential for height; there is t2m, wind10, u10, v10"),
    "figure": ("rose", FieldOptions("t2m"), "Expected a figure of page, mean"),
    "member": ("7", FieldOptions("t2m"), "or of member 0, 1, 2, got '7'"),
    "value": ("spaghetti", FieldOptions("t2m"), "needs --value, in °C"),
    "truth": ("difference", FieldOptions("t2m"), "no analysis of this time"),
}


@pytest.mark.parametrize(("figure", "of", "message"), WRONG.values(), ids=WRONG)
def test_what_there_is_not_is_said(figure: str, of: FieldOptions, message: str, forecast: xr.Dataset) -> None:
    with pytest.raises(ValueError, match=message):
        draw_figure(forecast, figure, of, lead=DAY_ONE)


def test_times_that_are_not_there_and_lonely_members_are_refused(forecast: xr.Dataset, shown: Shown) -> None:
    with pytest.raises(ValueError, match=r"lead time of 0\.25, 0\.5, 0\.75, 1 days, got 2"):
        select_shown(forecast, "t2m", np.timedelta64(2 * 24 * HOUR, "ns"))
    elsewhere = shown.truth.isel(longitude=slice(0, None, 2)) if shown.truth is not None else None
    with pytest.raises(ValueError, match=r"Truth lies on 16 x 17 .* the forecast on 32 x 17 .* `ladcast-data regrid`"):
        draw_field(replace(shown, truth=elsewhere), "difference")
    with pytest.raises(ValueError, match="spread needs 2"):
        draw_field(replace(shown, members=shown.members.isel(number=[0])), "spread")
    with pytest.raises(ValueError, match="one initial time, got 2"):
        select_shown(xr.concat([forecast, forecast], "time"), "t2m", DAY_ONE)


@pytest.mark.parametrize("region", ["0,50,10,40", "0,-100,10,40", "-200,0,200,10", "0,0,10", "Europe"])
def test_regions_that_are_none_are_refused(region: str) -> None:
    with pytest.raises(ValueError, match="west,south,east,north"):
        FieldOptions(region=region)


def test_names_of_fields_hold_their_level() -> None:
    assert find_quantity("z500") == find_quantity("Z500") == (QUANTITIES["z"], 500)
    assert find_quantity("wind10") == (QUANTITIES["wind10"], None)
    assert find_quantity("wind850") == (QUANTITIES["wind"], 850)
    assert find_quantity("t2m") == find_quantity("2T") == (QUANTITIES["t2m"], None)
