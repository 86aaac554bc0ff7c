"""The summary figure of a forecast: panels, units, errors; drawn without network or pyplot, written whole or not."""

import socket
from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ladcast.grid import Grid, Place
from ladcast.plots.forecast import BANDS, draw_forecast, draw_plume, lead_days, shown_lead, style_lead_axis
from ladcast.plots.style import save_figure
from ladcast.times import lead_times

PARIS = Place("Paris", 48.9, 2.4)
START = np.datetime64("2001-01-14T06", "ns")
UNREAL = "model weather, not the real atmosphere"
NORMAL = {
    "geopotential": (54000.0, 900.0),
    "mean_sea_level_pressure": (101300.0, 800.0),
    "2m_temperature": (280.0, 5.0),
    "10m_u_component_of_wind": (0.0, 5.0),
    "10m_v_component_of_wind": (0.0, 5.0),
    "total_precipitation_6hr": (0.01, 0.001),
}


def random_states(sizes: dict[str, int], seed: int) -> xr.Dataset:
    grid = Grid.regular(32, 16)
    generator = np.random.default_rng(seed)
    coords = {"latitude": list(grid.latitude), "longitude": list(grid.longitude), "level": [500, 850]}

    def field(name: str) -> xr.DataArray:
        levels = {"level": 2} if name == "geopotential" else {}
        dims = {**sizes, **levels, "latitude": 16, "longitude": 32}
        values = generator.normal(*NORMAL[name], tuple(dims.values()))
        return xr.DataArray(values, {key: coords[key] for key in dims if key in coords}, tuple(dims))

    return xr.Dataset({name: field(name) for name in NORMAL})


@pytest.fixture(scope="module")
def forecast() -> xr.Dataset:
    states = random_states({"time": 1, "prediction_timedelta": 8, "number": 4}, seed=0)
    states = states.assign_coords(time=[START], prediction_timedelta=lead_times(8), number=range(4))
    return states.assign_attrs(source="a test model")


@pytest.fixture(scope="module")
def truth() -> xr.Dataset:
    return random_states({"time": 6}, seed=1).assign_coords(time=START + lead_times(6))


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


def plumes(figure: Figure) -> dict[str, Axes]:
    return {axes.get_title(loc="left"): axes for axes in figure.axes if axes.get_title(loc="left")}


@pytest.fixture(scope="module")
def drawn(forecast: xr.Dataset, truth: xr.Dataset) -> Iterator[Figure]:
    """The whole figure, drawn without network, pyplot or a trace in matplotlib's settings."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("plots must not open a network connection")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(socket, "socket", refuse)
        patched.setattr(socket, "create_connection", refuse)
        before = dict(mpl.rcParams), plt.get_fignums()
        figure = draw_forecast(forecast, place=PARIS, truth=truth)
        assert (dict(mpl.rcParams), plt.get_fignums()) == before
        yield figure


def test_the_figure_says_what_when_where_and_in_which_units(drawn: Figure) -> None:
    assert [axes.get_title() for axes in drawn.axes if axes.get_title()] == [
        "Height at 500 hPa: ensemble mean, contours every 8 dam",
        "Mean sea level pressure: ensemble mean, contours every 5 hPa",
    ]
    bars = [axes.get_xlabel() for axes in drawn.axes if "spread" in axes.get_xlabel()]
    assert bars == ["Ensemble spread (dam)", "Ensemble spread (hPa)"]
    assert list(plumes(drawn)) == ["2 m temperature (°C)", "10 m wind speed (m/s)", "Precipitation in 6 h (mm)"]
    heading = "\n".join(texts(drawn))
    for part in ("Tuesday 16 January 2001, 06:00 UTC", "a test model", "start Sunday 14", "day 2", "4 members"):
        assert part in heading
    assert "Paris 48.9°N 2.4°E: nearest grid point 50.6°N 0°E" in heading
    assert UNREAL not in heading


def test_plumes_show_the_nearest_point_in_converted_units(
    drawn: Figure, forecast: xr.Dataset, truth: xr.Dataset
) -> None:
    panels = plumes(drawn)
    point = {"latitude": 50.625, "longitude": 0.0}
    here = forecast.isel(time=0).sel(point)
    warmth = panels["2 m temperature (°C)"].lines
    np.testing.assert_allclose(warmth[0].get_ydata(), here["2m_temperature"].isel(number=0) - 273.15)
    np.testing.assert_allclose(warmth[5].get_ydata(), truth["2m_temperature"].sel(point) - 273.15)
    np.testing.assert_allclose(warmth[5].get_xdata(), np.arange(1, 7) / 4)
    wind = np.hypot(here["10m_u_component_of_wind"], here["10m_v_component_of_wind"]).mean("number")
    np.testing.assert_allclose(panels["10 m wind speed (m/s)"].lines[4].get_ydata(), wind)
    bars = panels["Precipitation in 6 h (mm)"].patches
    np.testing.assert_allclose(
        [bar.get_height() for bar in bars], 1000 * here["total_precipitation_6hr"].mean("number")
    )
    ends = [bar.get_x() + bar.get_width() / 2 for bar in bars]
    np.testing.assert_allclose(ends, np.arange(1, 9) / 4 - 0.125)  # in the middle of the 6 hours before the lead time


@pytest.mark.slow
def test_without_truth_wind_and_rain_at_an_earlier_lead_and_where_weather_is_unreal(forecast: xr.Dataset) -> None:
    less = forecast[["geopotential", "mean_sea_level_pressure", "2m_temperature"]]
    less = less.assign_attrs(unreal="no diurnal cycle", source="a " * 60)
    figure = draw_forecast(less, place=PARIS, lead=np.timedelta64(24, "h"))
    assert list(plumes(figure)) == ["2 m temperature (°C)"]
    assert "Forecast for Monday 15 January 2001, 06:00 UTC" in texts(figure)
    assert "truth" not in [text.get_text() for text in figure.legends[0].get_texts()]
    assert UNREAL in texts(figure)[-1]
    assert figure.texts[-1].get_window_extent(figure.canvas.get_renderer()).x1 < figure.bbox.x1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kept", "maps", "panels"),
    [
        (["geopotential"], ["Height at 850 hPa"], []),
        (["mean_sea_level_pressure"], ["Mean sea level pressure"], ["Mean sea level pressure (hPa)"]),
        (["2m_temperature"], ["2 m temperature"], ["2 m temperature (°C)"]),
        (["2m_temperature", "geopotential"], ["Height at 850 hPa", "2 m temperature"], ["2 m temperature (°C)"]),
    ],
)
def test_a_page_shows_what_there_is(kept: list[str], maps: list[str], panels: list[str], forecast: xr.Dataset) -> None:
    figure = draw_forecast(forecast.sel(level=[850])[kept].isel(number=0, drop=True), place=PARIS)
    assert [axes.get_title().split(":")[0] for axes in figure.axes if axes.get_title()] == maps
    assert list(plumes(figure)) == panels


def test_other_gaps_in_the_forecast_are_named(forecast: xr.Dataset) -> None:
    with pytest.raises(ValueError, match="has pollen; a page shows t2m, msl"):
        draw_forecast(forecast[["2m_temperature"]].rename({"2m_temperature": "pollen"}), place=PARIS)
    with pytest.raises(ValueError, match="missing: latitude"):
        draw_forecast(forecast.isel(latitude=0), place=PARIS)
    later = forecast.assign_coords(time=forecast.time + np.timedelta64(1, "D"))
    with pytest.raises(ValueError, match=r"one start, got 2001-01-14T06, 2001-01-15T06.*--time"):
        draw_forecast(xr.concat([forecast, later], "time"), place=PARIS)
    with pytest.raises(ValueError, match=r"0\.25, 0\.5, .* got 9 days"):
        draw_forecast(forecast, place=PARIS, lead=np.timedelta64(9, "D"))
    with pytest.raises(ValueError, match="Height at 500 hPa: 512 of 2048 values are NaN"):
        draw_forecast(forecast.where(forecast.number != 2), place=PARIS)


def test_truth_that_does_not_fit_is_refused(forecast: xr.Dataset, truth: xr.Dataset) -> None:
    with pytest.raises(ValueError, match=r"Truth lies on 16 x 16 .* the forecast on 32 x 16"):
        draw_forecast(forecast, place=PARIS, truth=truth.isel(longitude=slice(0, None, 2)))
    later = truth.assign_coords(time=truth.time + np.timedelta64(3652, "D"))
    with pytest.raises(ValueError, match=r"none of the valid times 2001-01-14T12.*it has 2011"):
        draw_forecast(forecast, place=PARIS, truth=later)


@pytest.mark.slow
@pytest.mark.parametrize(("suffix", "magic"), [(".pdf", b"%PDF"), (".svg", b"<?xml"), (".PNG", b"\x89PNG")])
def test_format_follows_the_suffix(suffix: str, magic: bytes, tmp_path: Path) -> None:
    save_figure(Figure(figsize=(1, 1)), tmp_path / "new" / f"page{suffix}")
    assert [path.name for path in (tmp_path / "new").iterdir()] == [f"page{suffix}"]
    assert (tmp_path / "new" / f"page{suffix}").read_bytes().startswith(magic)


def test_failed_write_keeps_the_old_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Figure, path: Path, **_: object) -> None:
        Path(path).write_bytes(b"half")
        raise OSError("disk full")

    (tmp_path / "page.png").write_bytes(b"old")
    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        save_figure(Figure(), tmp_path / "page.png")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"page.png": b"old"}


def test_unknown_suffix_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\*\.pdf or \*\.png or \*\.svg, got 'page\.docx'"):
        save_figure(Figure(), tmp_path / "page.docx")


@pytest.mark.slow
def test_a_figure_of_real_model_output_fits_on_its_paper(shared: Path) -> None:
    """Members are one run started six hours apart, as in a lagged ensemble."""
    with xr.open_dataset(shared / "nature_run" / "sample_t31_64x33_10d.nc") as opened:
        run = opened[[*NORMAL]].sel(level=[500]).isel(time=slice(0, 16)).load()

    def member(first: int) -> xr.Dataset:
        part = run.isel(time=slice(first, first + 8)).drop_vars("time").rename(time="prediction_timedelta")
        return part.assign_coords(prediction_timedelta=lead_times(8))

    ensemble = xr.concat([member(first) for first in range(4)], "number").expand_dims(time=run.time[1:2])
    figure = draw_forecast(ensemble, place=PARIS, truth=run)
    figure.set_dpi(50)
    figure.canvas.draw()
    for axes in figure.axes:
        box = axes.get_tightbbox(figure.canvas.get_renderer())
        assert figure.bbox.contains(*box.min)
        assert figure.bbox.contains(*box.max)


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


@pytest.mark.slow
def test_bands_reach_from_quantile_to_quantile(axes: Axes, members: xr.DataArray) -> None:
    draw_plume(axes, members)
    for (low, high, _), band in zip(BANDS, axes.collections, strict=True):
        corners = band.get_paths()[0].vertices
        first = corners[np.isclose(corners[:, 0], 0.25), 1]
        expected = np.quantile(members[0], [low, high])
        np.testing.assert_allclose([first.min(), first.max()], expected)


@pytest.mark.parametrize(
    ("hours", "shown"),
    [
        ([6, 12, 18, 24, 30], 24),
        ([*range(0, 246, 6)], 120),
        ([48, 96, 144], 96),
        ([0, 6, 12, 18], 18),
        ([144, 168], 168),
    ],
)
def test_the_last_whole_day_up_to_the_fifth_is_shown(hours: list[int], shown: int) -> None:
    leads = np.array(hours, "timedelta64[h]").astype("timedelta64[ns]")
    forecast = xr.Dataset(coords={"prediction_timedelta": leads})
    assert shown_lead(forecast) == np.timedelta64(shown, "h")


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
