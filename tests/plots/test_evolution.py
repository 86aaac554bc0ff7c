"""Figures of how a forecast goes on: boxes and bars hold the members, diagrams the means, movies every lead time."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from ladcast.grid import Grid, Place
from ladcast.plots import FieldOptions
from ladcast.plots.evolution import (
    draw_animation,
    draw_boxes,
    draw_hovmoller,
    draw_meteogram,
    save_animation,
)
from ladcast.plots.forecast import draw_bars
from ladcast.plots.quantities import QUANTITIES
from ladcast.times import lead_times

START = np.datetime64("2001-01-14T06", "ns")
OSLO = Place("Oslo", 59.9, 10.8)


@pytest.fixture(scope="module")
def forecast() -> xr.Dataset:
    """Winds of as many m/s as the lead time has steps, and a pressure wave that goes 10 degrees east a step."""
    grid = Grid.regular(36, 19)
    lead, number = xr.DataArray(np.arange(1, 5), dims="prediction_timedelta"), xr.DataArray(range(6), dims="number")
    longitude = xr.DataArray(list(grid.longitude), dims="longitude")
    latitude = xr.DataArray(np.ones(19), dims="latitude")
    wave = 1000 * np.cos(np.deg2rad(longitude - 10 * lead)) + 0.0 * number
    fields = {
        "mean_sea_level_pressure": 100_000 + wave * latitude,
        "10m_u_component_of_wind": (lead + number + 0 * longitude) * latitude,
        "10m_v_component_of_wind": (0.0 * lead * number + 0 * longitude) * latitude,
        "total_precipitation_6hr": (0.001 * lead * number + 0 * longitude) * latitude,
    }
    ds = xr.Dataset(fields, attrs={"source": "a test model"}).expand_dims(time=[START])
    coords = {"latitude": list(grid.latitude), "longitude": list(grid.longitude), "number": range(6)}
    return ds.assign_coords(prediction_timedelta=lead_times(4), **coords)


@pytest.fixture(scope="module")
def truth(forecast: xr.Dataset) -> xr.Dataset:
    states = forecast.isel(time=0, number=0, drop=True).rename(prediction_timedelta="time")
    return states.assign_coords(time=START + forecast["prediction_timedelta"].values)


def test_boxes_hold_the_middle_half_and_whiskers_all(forecast: xr.Dataset) -> None:
    axes = Figure().add_subplot()
    members = QUANTITIES["wind10"].of(forecast.isel(time=0, latitude=0, longitude=0))
    draw_boxes(axes, members)
    boxes = [(box.get_y(), box.get_y() + box.get_height()) for box in axes.patches]
    np.testing.assert_allclose(boxes, [(lead + 1.25, lead + 3.75) for lead in range(1, 5)])
    whiskers, medians = axes.collections
    np.testing.assert_allclose([line[:, 1] for line in whiskers.get_segments()], [(n, n + 5) for n in range(1, 5)])
    np.testing.assert_allclose([line[0, 1] for line in medians.get_segments()], np.arange(1, 5) + 2.5)
    few = Figure().add_subplot()
    draw_boxes(few, members.isel(number=slice(4)), truth=members.isel(number=0))
    assert (len(few.lines), len(few.patches)) == (5, 0)


def test_bars_stand_on_the_hours_that_they_sum_up(forecast: xr.Dataset) -> None:
    axes = Figure().add_subplot()
    members = QUANTITIES["tp6h"].of(forecast.isel(time=0, latitude=0, longitude=0))
    draw_bars(axes, members, hours=6, truth=members.isel(number=5))
    np.testing.assert_allclose([bar.get_height() for bar in axes.patches], 2.5 * np.arange(1, 5))
    ranges, observed = axes.collections
    np.testing.assert_allclose([line[:, 1] for line in ranges.get_segments()], [(n / 2, 4.5 * n) for n in range(1, 5)])
    ends = [(n / 4 - 0.25, n / 4) for n in range(1, 5)]
    np.testing.assert_allclose([line[:, 0] for line in observed.get_segments()], ends)


def test_bars_and_boxes_begin_after_the_start(forecast: xr.Dataset) -> None:
    """At 0 h there are the hours before, whose scale would be another, and members that are all alike."""
    at_start = forecast.isel(prediction_timedelta=[0]) * 100
    at_start = at_start.assign_coords(prediction_timedelta=np.zeros(1, "timedelta64[ns]"))
    whole = xr.concat([at_start, forecast], "prediction_timedelta").isel(time=0, latitude=0, longitude=0)
    for name, draw in {"tp6h": lambda *of, truth: draw_bars(*of, hours=6, truth=truth), "wind10": draw_boxes}.items():
        axes, members = Figure().add_subplot(), QUANTITIES[name].of(whole)
        draw(axes, members, truth=members.isel(number=5))
        days = [box.get_x() + box.get_width() / 2 for box in axes.patches]
        np.testing.assert_allclose(days, np.arange(1, 5) / 4 - (0.125 if name == "tp6h" else 0))
        assert len(axes.collections[0].get_segments()) == 4
    axes = Figure().add_subplot()
    draw_bars(axes, QUANTITIES["tp6h"].of(whole), hours=6, truth=QUANTITIES["tp6h"].of(whole).isel(number=5))
    assert axes.get_ylim()[1] < 25  # mm: the truth of a day is 20, of the 6 hours before the start 500


def panels(figure: Figure) -> dict[str, Axes]:
    return {axes.get_title(loc="left"): axes for axes in figure.axes}


def test_a_meteogram_has_a_panel_for_each_field_there_is(forecast: xr.Dataset, truth: xr.Dataset) -> None:
    figure = draw_meteogram(forecast, OSLO, truth=truth)
    assert list(panels(figure)) == [
        "10 m wind speed (m/s)",
        "Precipitation in 6 h (mm)",
        "Mean sea level pressure (hPa)",
    ]
    said = " ".join(text.get_text() for text in figure.texts)
    assert "Oslo 59.9°N 10.8°E: nearest grid point 60°N 10°E" in said
    assert "from Sun 14 Jan 2001, 06 UTC | 6 members | a test model" in said
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert sorted(labels) == ["all members", "median", "middle half", "sum: mean, 10% to 90%", "truth"]
    with pytest.raises(ValueError, match=r"shows t2m, wind10, tp6h, msl; the forecast has temperature"):
        draw_meteogram(forecast[["mean_sea_level_pressure"]].rename(mean_sea_level_pressure="temperature"), OSLO)
    with pytest.raises(ValueError, match=r"Oslo lies outside .* --place"):
        draw_meteogram(forecast.isel(longitude=slice(20, 30)), OSLO)


def test_a_wave_that_goes_east_leans_in_a_hovmoller_diagram(forecast: xr.Dataset, truth: xr.Dataset) -> None:
    figure = draw_hovmoller(forecast, FieldOptions("msl"), truth=truth)
    mean, analysis, _ = figure.axes
    assert (mean.get_title(), analysis.get_title()) == ("ensemble mean", "analysis")
    assert mean.get_xlim() == (-180, 180)
    assert mean.get_ylim() == (1.0, 0.25)
    highest = mean.collections[0].get_paths()[-2].vertices  # the last shade but what lies beyond it
    tops = [np.unique(highest[np.isclose(highest[:, 1], day), 0]).mean() for day in (0.25, 0.5, 0.75, 1.0)]
    np.testing.assert_allclose(tops, [10, 20, 30, 40], atol=1.5)
    assert "Mean sea level pressure, mean from 40°N to 60°N" in [text.get_text() for text in figure.texts]
    part = draw_hovmoller(forecast, FieldOptions("msl", region="170,0,-150,30"))
    assert part.axes[0].get_xlim() == (170, 210)
    with pytest.raises(ValueError, match="holds no point of the forecast"):
        draw_hovmoller(forecast, FieldOptions("msl", region="1,1,2,2"))


@pytest.mark.slow
def test_a_movie_shows_every_lead_time_once(forecast: xr.Dataset, tmp_path: Path) -> None:
    short = forecast.isel(prediction_timedelta=slice(2))
    animation = draw_animation(short, FieldOptions("wind10", region="-60,-30,60,30"))
    path = save_animation(animation, tmp_path / "wind.gif", dpi=30)
    with Image.open(path) as movie:
        assert movie.n_frames == 2
    assert [file.name for file in tmp_path.iterdir()] == ["wind.gif"]
    with pytest.raises(ValueError, match=r"\*\.gif or \*\.mp4, got 'wind.png'"):
        save_animation(animation, tmp_path / "wind.png")


def test_an_mp4_needs_ffmpeg(forecast: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    animation = draw_animation(forecast.isel(prediction_timedelta=[0]), FieldOptions("wind10"))
    animation._draw_was_started = True  # it is thrown away, which matplotlib would warn of
    with pytest.raises(ValueError, match=r"needs ffmpeg, .* name the output \*\.gif"):
        save_animation(animation, tmp_path / "wind.mp4")
