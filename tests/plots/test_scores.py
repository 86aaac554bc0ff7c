"""Figures of a file of scores show its numbers, and say what is not in it."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from ladcast import api
from ladcast.cli import app, run
from ladcast.plots.scores import draw_ranks, draw_scores, draw_spectra
from ladcast.verification import ScoreOptions, score, scores_dataset

OPTIONS = ScoreOptions(("default", "ranks", "zonal_spectra"))


@pytest.fixture(scope="module")
def scores() -> xr.Dataset:
    """Four members and a single forecast at two lead times, scored against one of the members."""
    grid = {"latitude": np.linspace(-80, 80, 9), "longitude": np.arange(0.0, 360, 15)}
    leads = (np.array([24, 72]) * np.timedelta64(1, "h")).astype("timedelta64[ns]")
    start = np.array(["2001-01-01"], "datetime64[ns]")
    members = np.random.default_rng(0).normal(280, 5, (1, 2, 4, 9, 24))
    dims = ("time", "prediction_timedelta", "number", "latitude", "longitude")
    coordinates = {"time": start, "prediction_timedelta": leads, "number": range(4), **grid}
    forecast = xr.Dataset({"2m_temperature": (dims, members, {"units": "K"})}, coordinates)
    truth = xr.Dataset(
        {"2m_temperature": (("time", "latitude", "longitude"), members[0, :, 3] + 0.1, {"units": "K"})},
        {"time": start + leads, **grid},
    )
    systems = {"ensemble": forecast, "single": forecast.isel(number=0, drop=True)}
    found = scores_dataset({name: score(one, truth, options=OPTIONS) for name, one in systems.items()})
    return found.assign_attrs(unreal="a model's")


def test_ranks_are_stairs_over_the_share_of_members_below(scores: xr.Dataset) -> None:
    figure = draw_ranks(scores)
    assert [axes.get_title() for axes in figure.axes] == ["1 d", "3 d"]
    stairs = figure.axes[0].patches[0].get_data()
    frequency = scores["rank_frequency"].sel(system="ensemble", region="globe", season="all", channel="t2m")
    np.testing.assert_allclose(stairs.values, frequency.isel(prediction_timedelta=0))
    np.testing.assert_allclose(stairs.edges, np.linspace(0, 1, 6))
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {"ensemble", "single", "calibrated"}


def test_spectra_are_of_truth_members_and_mean_and_of_a_single_forecast_without_mean(scores: xr.Dataset) -> None:
    figure = draw_spectra(scores)
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    assert set(lines) == {"truth", "ensemble: members", "ensemble: mean", "single: members"}
    power = scores["zonal_power_members"].sel(system="ensemble", region="globe", season="all", channel="t2m")
    np.testing.assert_allclose(lines["ensemble: members"].get_ydata(), power.isel(prediction_timedelta=0)[1:])
    assert (lines["ensemble: mean"].get_ydata()[1:] < lines["ensemble: members"].get_ydata()[1:]).mean() > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("figure", ["ranks", "spectra", "rmse"])
def test_figures_say_where_the_weather_is_a_models(scores: xr.Dataset, figure: str) -> None:
    drawn = draw_scores(scores, figure)
    assert "globe, 1 start | model weather, not the real atmosphere" in drawn.get_suptitle()
    assert "model weather" not in draw_scores(scores.drop_attrs(deep=False), figure).get_suptitle()


@pytest.mark.slow
def test_the_command_draws_a_file_of_scores(scores: xr.Dataset, tmp_path: Path, capsys) -> None:
    path = tmp_path / "fc.scores.nc"
    scores.to_netcdf(path)
    for words, name in ((["ranks", "--channels", "t2m"], "fc.scores.ranks.png"), ([], "fc.scores.png")):
        run(app, ["plot", str(path), *words])
        assert (tmp_path / name).stat().st_size > 10_000
    assert "also: ranks, spectra, or a metric" in capsys.readouterr().out


def test_what_scores_lack_is_said(scores: xr.Dataset) -> None:
    plain = scores[["rmse"]]
    with pytest.raises(ValueError, match="have no 'rank_frequency': score with --statistics ranks"):
        draw_scores(plain, "ranks")
    with pytest.raises(ValueError, match=r"have no 'zonal_power_members': score with --statistics zonal_spectra"):
        draw_scores(plain, "spectra")
    with pytest.raises(ValueError, match="ranks, spectra, or one of rmse; got 'stamps'"):
        api.plot(plain, "stamps")
