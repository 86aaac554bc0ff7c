"""Figures of tracks: everything is inside the map, nothing crosses it the wrong way, gaps stay blank."""

import io
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from cartopy import crs
from cartopy.mpl.gridliner import Gridliner
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from ladcast.cyclones.season import season_scores
from ladcast.plots.scores import draw_season
from ladcast.plots.style import save_figure
from ladcast.plots.tracks import (
    add_track_axes,
    draw_alive,
    draw_error_growth,
    draw_spaghetti,
    draw_storm,
    draw_strike_probability,
)

START = np.datetime64("2011-10-11T00", "ns")


def track(number: int, latitude: np.ndarray, longitude: np.ndarray, steps: np.ndarray | None = None) -> xr.Dataset:
    steps = np.arange(len(latitude)) if steps is None else steps
    columns = {
        "storm": np.full(len(latitude), "s", dtype=object),
        "number": np.full(len(latitude), number),
        "start": np.full(len(latitude), START),
        "time": START + steps * np.timedelta64(6, "h"),
        "latitude": np.asarray(latitude, dtype=float),
        "longitude": np.asarray(longitude, dtype=float),
    }
    return xr.Dataset({name: ("point", values) for name, values in columns.items()}, attrs={"members": 4})


@pytest.fixture
def tracks() -> xr.Dataset:
    """Three members over the date line, one of them with a gap of two days."""
    steps = np.concatenate([np.arange(4), np.arange(12, 16)])
    lines = [track(n, np.linspace(15, 25 + n, 8), (np.linspace(172, 190, 8) + 180) % 360 - 180) for n in range(2)]
    gap = track(2, np.linspace(15, 22, 8), np.linspace(172, 179, 8), steps)
    return xr.concat([*lines, gap], "point").assign_attrs(members=4, source="test")


def axes_for(*tables: xr.Dataset):
    figure = Figure(figsize=(5, 4))
    return add_track_axes(figure, figure.add_gridspec(1, 1)[0], *tables)


@pytest.mark.slow
@pytest.mark.parametrize("latitude", [0.0, 60.0, 89.0, -85.0])
@pytest.mark.parametrize("longitude", [0.0, 179.0])
def test_every_position_is_inside_the_map(latitude: float, longitude: float):
    one = track(0, latitude + np.linspace(-4, 1, 6), (longitude + np.linspace(-10, 20, 6) + 180) % 360 - 180)
    axes = axes_for(one)
    x, y, _ = np.moveaxis(
        axes.projection.transform_points(crs.PlateCarree(), one["longitude"].values, one["latitude"].values), -1, 0
    )
    assert axes.get_xlim()[0] < x.min() < x.max() < axes.get_xlim()[1]
    assert axes.get_ylim()[0] < y.min() < y.max() < axes.get_ylim()[1]
    assert np.ptp(axes.get_xlim()) < 12e6  # around the storm, not around the globe


def test_lines_are_short_over_the_date_line_and_broken_at_gaps(tracks: xr.Dataset):
    axes = axes_for(tracks)
    draw_spaghetti(axes, tracks, best=tracks.isel(point=slice(8)), mean=tracks.isel(point=slice(8, 16)))
    lines = next(item for item in axes.collections if isinstance(item, LineCollection)).get_segments()
    assert [len(line) for line in lines] == [8, 8, 4, 4]
    assert max(np.hypot(*np.diff(line, axis=0).T).max() for line in lines) < 600e3
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["member", "last position", "ensemble mean", "best track"]


def test_the_mean_ends_where_too_few_members_have_the_storm_first(tracks: xr.Dataset):
    """The third member has a gap after four positions: of a mean with that gap the first four are drawn."""
    axes = axes_for(tracks)
    draw_spaghetti(axes, tracks, mean=tracks.isel(point=slice(16, 24)))
    assert [len(line.get_xdata()) for line in axes.lines if line.get_label() == "ensemble mean"] == [4]


@pytest.mark.slow
@pytest.mark.parametrize("latitude", [10.0, 70.0, 82.0])
def test_labels_of_meridians_do_not_run_together_towards_a_pole(latitude: float):
    axes = axes_for(track(0, np.full(6, latitude), np.linspace(0, 20 / np.cos(np.deg2rad(latitude)) / 3, 6)))
    figure = axes.get_figure()
    figure.savefig(io.BytesIO())
    (lines,) = (artist for artist in axes.artists if isinstance(artist, Gridliner))
    boxes = [label.get_window_extent() for label in lines.label_artists if label.get_visible()]
    assert len(boxes) >= 2
    assert not any(one.overlaps(other) for index, one in enumerate(boxes) for other in boxes[:index])


def test_days_of_a_storm_that_stands_still_are_not_written_over_each_other(tracks: xr.Dataset):
    still = track(0, np.linspace(20, 20.4, 20), np.full(20, 175.0))
    axes = axes_for(tracks)
    draw_spaghetti(axes, tracks, best=still)
    assert [text.get_text() for text in axes.texts] == ["11"]


def test_days_of_the_best_track_are_named(tracks: xr.Dataset):
    axes = axes_for(tracks)
    draw_spaghetti(axes, tracks, best=tracks.isel(point=slice(8)))
    assert [text.get_text() for text in axes.texts] == ["11", "12"]


def test_strike_probability_is_shaded_where_it_is(tracks: xr.Dataset):
    latitude, longitude = np.linspace(-90, 90, 181), np.arange(360.0)
    field = xr.DataArray(
        np.zeros((181, 360)), {"latitude": latitude, "longitude": longitude}, ("latitude", "longitude")
    )
    field.loc[{"latitude": slice(15, 20), "longitude": slice(175, 184)}] = 0.55
    axes = axes_for(tracks)
    limits = axes.get_xlim(), axes.get_ylim()
    shading = draw_strike_probability(axes, field)
    assert (axes.get_xlim(), axes.get_ylim()) == limits
    outline = np.concatenate([path.vertices for path in shading.get_paths() if len(path.vertices)])
    back = crs.PlateCarree(central_longitude=180).transform_points(axes.projection, *outline.T)
    assert -6.2 < back[:, 0].min() < back[:, 0].max() < 5.2  # counted from 180 degrees
    assert 13.8 < back[:, 1].min() < back[:, 1].max() < 21.2


def growth(cases: int) -> xr.Dataset:
    lead = np.arange(0, 121, 6)
    error = 50 + 3.0 * lead
    bounds = np.stack([error, error * 0.8, error * 1.2])
    return xr.Dataset(
        {"distance_km": (("bound", "lead"), bounds), "cases": ("lead", np.full(lead.size, cases))},
        coords={"lead": lead},
    )


def test_systems_have_their_own_lines_intervals_and_the_number_of_cases():
    axes = Figure().add_subplot()
    spread = xr.Dataset({"spread_km": ("lead", np.arange(5.0))}, coords={"lead": np.arange(5) * 24})
    draw_error_growth(axes, {"one": growth(12), "other": growth(12)}, spread={"one": spread})
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["one: error of the mean track", "one: spread of members", "other: error of the mean track"]
    assert len({line.get_color() for line in axes.lines}) == 2
    assert len(axes.collections) == 2
    assert "12" in [text.get_text() for text in axes.texts]


def test_the_share_of_members_counts_those_that_never_had_it(tracks: xr.Dataset):
    axes = Figure().add_subplot()
    draw_alive(axes, tracks)
    assert axes.lines[0].get_ydata()[:2].tolist() == [75.0, 75.0]


@pytest.mark.slow
@pytest.mark.parametrize("known", [True, False])
def test_a_figure_is_made_with_and_without_a_best_track(tracks: xr.Dataset, tmp_path: Path, known: bool):
    field = xr.DataArray(
        np.zeros((19, 36)),
        {"latitude": np.linspace(-90, 90, 19), "longitude": np.arange(0.0, 360, 10)},
        ("latitude", "longitude"),
    )
    one = tracks.isel(point=slice(8))
    more = {"best": one, "growth": {"test": growth(1)}} if known else {}
    figure = draw_storm(tracks, field, title="Storm", mean=one, **more)
    assert any(text.get_text() == "Storm" for text in figure.texts)
    if known:
        save_figure(figure, tmp_path / "storm.png")
        assert (tmp_path / "storm.png").stat().st_size > 30_000


def test_more_systems_than_colours_look_apart():
    errors = xr.Dataset({"distance_km": (("bound", "lead"), np.ones((3, 2)))}, coords={"lead": [24.0, 48.0]})
    errors = errors.assign(cases=("lead", [1, 1]), storms=("lead", [1, 1]))
    axes = Figure().add_subplot()
    systems = {f"s{number}": errors.assign(spread_km=("lead", [1.0, 1.0])) for number in range(12)}
    draw_error_growth(axes, systems, spread=systems)
    assert len({(line.get_color(), line.get_marker(), line.get_linestyle()) for line in axes.lines}) == 24
    assert len(axes.get_legend().get_texts()) == 24


@pytest.mark.slow
def test_a_season_shows_every_storm_and_system_and_crosses_no_edge_of_the_map(tracks: xr.Dataset):
    """The edge of the map lies at 0 degrees: a storm goes over it, and another one over the date line."""
    names, best = ("over the edge", "over the date line"), []
    for storm, longitude in zip(names, (-5.0, 175.0), strict=True):
        one = track(0, np.linspace(15, 25, 13), longitude + np.arange(13.0)).drop_vars(["number", "start"])
        best.append(one.assign(storm=("point", np.full(13, storm, dtype=object))))
    both = xr.concat(best, "point")
    members = [both.assign(number=("point", np.full(26, n)), latitude=both["latitude"] + 0.2 * n) for n in range(4)]
    forecast = xr.concat(members, "point").assign(start=("point", np.full(104, START))).assign_attrs(members=4)
    figure = draw_season(season_scores({"ours": forecast, "theirs": forecast}, both), both.assign_attrs(unreal="yes"))
    globe, errors, parts, hits, others, reliable, value = figure.axes
    (lines,) = (c for c in globe.collections if isinstance(c, LineCollection))
    wide = np.ptp(globe.get_xlim())
    assert len(lines.get_segments()) == 3
    assert max(np.ptp(line[:, 0]) for line in lines.get_segments()) < wide / 4
    assert [len(line.get_xdata()) for line in globe.lines] == [2]
    for axes in (errors, parts, hits, reliable, value):
        labels = " ".join(text.get_text() for text in axes.get_legend().get_texts())
        assert "ours" in labels
        assert "theirs" in labels
    assert others.get_ylim()[0] == 0
    assert "model weather" in " ".join(text.get_text() for text in figure.texts)
