"""Scorecards: what is better is blue, what is significant has a dot, and nothing is cut off."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from ladcast.plots.scorecards import draw_curves, draw_scorecard, round_limit
from ladcast.plots.style import save_figure
from ladcast.times import DAY

LEADS = (np.arange(1, 5) * DAY).astype("timedelta64[ns]")
UNITS = {"z500": "m2 s-2", "t850": "K", "wind850": "m s-1"}


def comparison(days: int = 4) -> xr.Dataset:
    """z500 is 10 % better for sure, t850 5 % worse but perhaps by chance, wind850 is not known."""
    relative = np.repeat([[-0.1], [0.05], [np.nan]], days, axis=1)[None]
    half = np.array([0.02, 0.1, np.nan])[None, :, None]
    dims = ("metric", "channel", "prediction_timedelta")
    fields = {"difference": relative, "relative": relative, "lower": relative - half, "upper": relative + half}
    leads = (np.arange(1, days + 1) * (DAY if days < 30 else DAY // 4)).astype("timedelta64[ns]")
    coords = {"metric": ["fair_crps"], "channel": list(UNITS), "prediction_timedelta": leads}
    return xr.Dataset({name: (dims, value) for name, value in fields.items()}, coords, attrs={"level": 0.95})


def scores(value: float) -> xr.Dataset:
    values = np.arange(1, 5) * value * np.array([[1.0], [0.1], [np.nan]])
    coords = {"channel": list(UNITS), "channel_units": ("channel", list(UNITS.values())), "prediction_timedelta": LEADS}
    return xr.Dataset({"fair_crps": (("channel", "prediction_timedelta"), values)}, coords)


def test_better_is_blue_and_certain_has_a_dot() -> None:
    axes = draw_scorecard({"persistence": comparison()}).axes[0]
    image = axes.images[0]
    better, worse = (image.cmap(image.norm(value)) for value in (image.get_array()[0, 0], image.get_array()[1, 0]))
    assert better[2] > better[0]
    assert worse[0] > worse[2]
    assert {tuple(point) for point in axes.collections[0].get_offsets()} == {(lead, 0) for lead in range(4)}
    assert [label.get_text() for label in axes.get_yticklabels()] == ["z500", "t850"]
    assert axes.get_title() == "against persistence"


def test_panels_share_rows_and_what_is_missing_is_blank() -> None:
    other = comparison().isel(channel=[1, 2]).assign_coords(channel=["t850", "msl"])
    other = other.fillna(0.2)
    first, second, _ = draw_scorecard({"persistence": comparison(), "climatology": other}).axes
    rows = [label.get_text() for label in first.get_yticklabels()]
    assert rows == ["z500", "t850", "msl"]
    np.testing.assert_array_equal(first.get_ylim(), second.get_ylim())
    assert first.get_position().bounds[1::2] == second.get_position().bounds[1::2]
    np.testing.assert_array_equal(first.images[0].get_array().mask.all(1), [False, False, True])
    np.testing.assert_array_equal(second.images[0].get_array().mask.all(1), [True, False, False])


def test_no_dot_where_the_reference_has_no_error() -> None:
    ds = comparison()
    ds["relative"] = xr.where(ds["prediction_timedelta"] < LEADS[2], np.inf, ds["relative"])
    axes = draw_scorecard({"persistence": ds}).axes[0]
    assert {tuple(point) for point in axes.collections[0].get_offsets()} == {(2, 0), (3, 0)}


def test_without_intervals_there_are_no_dots_and_that_is_said() -> None:
    ds = comparison()
    unknown = xr.full_like(ds["lower"], np.nan)
    figure = draw_scorecard({"persistence": ds.assign(lower=unknown, upper=unknown)})
    assert len(figure.axes[0].collections[0].get_offsets()) == 0
    assert "no dots: too few starts" in figure.axes[-1].get_xlabel()


@pytest.mark.parametrize(
    ("panels", "limit"),
    [
        ([np.full((3, 4), -3.0)], 10),
        ([np.linspace(-60, 60, 121)], 60),
        ([np.array([np.inf, np.nan, 12.0])], 20),
        ([np.full(4, 500.0)], 100),
        ([np.full(4, 500.0), np.full(4, 33.0)], 40),
        ([np.full(4, np.nan)], 10),
    ],
)
def test_the_scale_ends_at_a_round_number_of_the_data(panels: list[np.ndarray], limit: float) -> None:
    assert round_limit([np.atleast_2d(panel) for panel in panels]) == limit


def test_headline_channels_are_drawn_unless_others_are_asked_for() -> None:
    ds = comparison().fillna(0.1).assign_coords(channel=["z500", "w300", "t850"])
    rows = [
        [label.get_text() for label in draw_scorecard({"ifs": ds}, channels=wanted).axes[0].get_yticklabels()]
        for wanted in ((), ("all",), ("w300", "t2m"))
    ]
    assert rows == [["z500", "t850"], ["z500", "w300", "t850"], ["w300"]]


def test_where_high_is_better_blue_is_high_and_the_numbers_stay() -> None:
    ds = comparison().assign_coords(metric=["acc"])
    figure = draw_scorecard({"persistence": ds}, metric="acc")
    image = figure.axes[0].images[0]
    np.testing.assert_allclose(image.get_array()[0, 0], -10)
    worse = image.cmap(image.norm(-10))
    assert worse[0] > worse[2]
    assert "blue is better (higher)" in figure.axes[-1].get_xlabel()


def test_more_systems_than_colours_are_all_drawn() -> None:
    figure = draw_curves({f"system {number}": scores(number + 1) for number in range(9)})
    lines = figure.axes[0].lines
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 9
    assert len(figure.legends[0].get_texts()) == 9


def test_hours_without_a_whole_day_are_all_shown() -> None:
    ds = comparison(days=22)
    hours = ds["prediction_timedelta"].values // 25
    axes = draw_scorecard({"ifs": ds.assign_coords(prediction_timedelta=hours)}).axes[0]
    assert axes.images[0].get_array().shape == (2, 22)


def test_many_lead_times_are_thinned_to_days() -> None:
    axes = draw_scorecard({"ifs": comparison(days=40)}).axes[0]
    assert axes.images[0].get_array().shape == (2, 10)
    assert [label.get_text() for label in axes.get_xticklabels()] == [str(day) for day in range(1, 11)]


def test_lines_have_names_units_and_bands() -> None:
    bands = xr.Dataset(
        {"value": scores(2)["fair_crps"], "lower": scores(1)["fair_crps"], "upper": scores(3)["fair_crps"]}
    )
    bands = bands.expand_dims(metric=["fair_crps"])
    figure = draw_curves({"ladcast": scores(1), "ifs": bands})
    assert [axes.get_title() for axes in figure.axes] == ["z500 (m² s⁻²)", "t850 (K)"]
    assert len(figure.axes[0].lines) == 2
    assert len(figure.axes[0].collections) == 1
    np.testing.assert_allclose(figure.axes[0].lines[0].get_xdata(), [1, 2, 3, 4])


def test_precipitation_is_in_millimetres_and_a_single_forecast_is_named() -> None:
    ds = scores(1e-3).assign_coords(channel=["tp6h", "t850", "z500"], channel_units=("channel", ["m", "K", "m2 s-2"]))
    figure = draw_curves({"persistence": ds.rename(fair_crps="mae")})
    assert figure.get_suptitle() == "Fair CRPS; of a single forecast: its mean absolute error"
    rain = next(axes for axes in figure.axes if axes.get_title() == "tp6h (mm)")
    np.testing.assert_allclose(rain.lines[0].get_ydata(), [1, 2, 3, 4])


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg"])
def test_nothing_is_cut_off(tmp_path: Path, suffix: str) -> None:
    card = draw_scorecard({name: comparison() for name in ("persistence", "climatology")}, title="A title")
    narrow = draw_scorecard({"a reference with a long name": comparison(days=1)}, title="A system's name, " * 5)
    curves = draw_curves({"persistence": scores(1)}, channels=["z500"])
    for figure in (card, narrow, curves):
        path = save_figure(figure, tmp_path / f"card{suffix}")
        assert path.stat().st_size > 1000
        renderer = figure.canvas.get_renderer()
        width, height = figure.canvas.get_width_height()
        for artist in (*figure.axes, figure._suptitle):
            box = artist.get_tightbbox(renderer)
            assert box.x0 >= 0
            assert box.y0 >= 0
            assert box.x1 <= width
            assert box.y1 <= height


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: draw_scorecard({}), "at least one comparison"),
        (lambda: draw_scorecard({"ifs": comparison()}, metric="rmse"), "no 'rmse', only fair_crps"),
        (
            lambda: draw_scorecard({"ifs": comparison().assign_coords(metric=["spread_skill"])}, metric="spread_skill"),
            "Neither low nor high values of 'spread_skill' are better: draw one of fair_crps, crps, rmse",
        ),
        (lambda: draw_curves({"ladcast": scores(1)}, metric="rmse"), "None of ladcast has the metric 'rmse'"),
        (lambda: draw_curves({"ladcast": scores(1)}, channels=["msl"]), "No system has msl. There are: z500, t850"),
    ],
)
def test_what_cannot_be_drawn_is_refused(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
