"""The bootstrap: intervals cover what they should, pairs beat singles, and neighbours count less."""

import numpy as np
import pytest
import xarray as xr

from ladcast.fields import Channel
from ladcast.times import DAY, HOUR
from ladcast.verification import Accumulator, BlockBootstrap, compare, intervals, score

CHANNEL = (Channel("2m_temperature"),)


def scores_of(errors: np.ndarray, members: int = 1, every: np.timedelta64 = DAY) -> Accumulator:
    """One number for each start (and lead time, if there are two dimensions)."""
    sums = errors.reshape(len(errors), 1, 1, -1)
    leads = tuple((np.arange(1, sums.shape[-1] + 1) * HOUR).astype("timedelta64[ns]"))
    starts = (np.datetime64("2000-01-01", "ns") + np.arange(len(errors)) * every).astype("datetime64[ns]")
    kinds = {"absolute_error": sums, "squared_error": sums**2, "error": sums}
    return Accumulator(kinds, np.ones_like(sums), CHANNEL, leads, tuple(starts), members)


def autocorrelated(count: int, memory: float, series: int = 1) -> np.ndarray:
    noise = np.random.default_rng(1).normal(size=(count + 100, series))
    for index in range(1, len(noise)):
        noise[index] += memory * noise[index - 1]
    return noise[100:]


@pytest.mark.parametrize(("count", "memory", "days"), [(300, 0.0, 1), (300, 0.7, 15), (40, 0.5, 8)])
def test_intervals_cover_the_truth_as_often_as_they_say(count: int, memory: float, days: int) -> None:
    scores = scores_of(autocorrelated(count, memory, 1000))
    found = intervals(scores, metrics=["bias"], bootstrap=BlockBootstrap(days, 500, 0.9))
    covered = (found["lower"] < 0) & (found["upper"] > 0)
    assert 0.84 < float(covered.mean()) < 0.95


def test_single_starts_would_be_too_sure_of_themselves() -> None:
    errors = autocorrelated(400, 0.8)

    def width(days: float) -> float:
        found = intervals(scores_of(errors), metrics=["bias"], bootstrap=BlockBootstrap(days=days))
        return float((found["upper"] - found["lower"]).squeeze())

    assert width(20) > 1.5 * width(1)


def test_pairs_see_a_difference_that_singles_hide() -> None:
    weather = 10 + 5 * np.random.default_rng(2).random(120)
    better, worse = scores_of(weather), scores_of(weather * 1.01)
    found = compare(better, worse, metrics=["mae", "rmse"]).squeeze()
    assert (found["upper"] < 0).all()
    np.testing.assert_allclose(found["relative"], 1 / 1.01 - 1)
    first, second = (intervals(part, metrics=["mae"]).squeeze() for part in (better, worse))
    assert first["upper"] > second["lower"]


def test_no_difference_has_an_interval_of_zero_width() -> None:
    scores = scores_of(np.random.default_rng(3).random(60))
    found = compare(scores, scores, metrics=["mae"])
    assert not any(found[name].any() for name in ("difference", "lower", "upper"))


def test_equal_seeds_draw_equal_intervals_and_every_start_as_often() -> None:
    scores = scores_of(np.random.default_rng(4).random(60))
    xr.testing.assert_identical(intervals(scores, metrics=["mae"]), intervals(scores, metrics=["mae"]))
    counts = BlockBootstrap(draws=4000).counts(scores.init_times)
    assert (counts.sum(1) == 60).all()
    np.testing.assert_allclose(counts.mean(0), 1, atol=0.2)


@pytest.mark.parametrize(("hours", "length"), [(12, 20), (24, 10), (120, 2), (480, 1)])
def test_blocks_are_as_long_as_the_days_say(hours: int, length: int) -> None:
    scores = scores_of(np.ones(60), every=np.timedelta64(hours, "h"))
    assert BlockBootstrap(days=10).length(scores.init_times) == length


@pytest.mark.parametrize("hours", [[0, 12], [0, 6, 108], [0, 1, 2, 3]])
def test_blocks_of_an_uneven_calendar_span_their_days(hours: list[int]) -> None:
    """Some hours of every fifth day: ten days hold them twice."""
    days = np.datetime64("2020-01-01", "ns") + np.arange(30) * 5 * DAY
    starts = np.sort((days[:, None] + np.array(hours) * HOUR).ravel())
    assert BlockBootstrap(days=10).length(tuple(starts)) == 2 * len(hours)


def test_blocks_without_length_are_refused() -> None:
    with pytest.raises(ValueError, match="blocks of more than 0 days, got 0"):
        BlockBootstrap(days=0)


def test_single_forecast_is_compared_by_its_absolute_error(forecast: xr.Dataset, truth: xr.Dataset) -> None:
    ensemble, single = score(forecast, truth), score(forecast.isel(number=0, drop=True), truth)
    bootstrap = BlockBootstrap(days=0.5)
    with pytest.raises(ValueError, match="at least 4 blocks"):
        compare(ensemble, single, bootstrap=bootstrap)
    values = intervals(scores_of(np.arange(5.0)), metrics=["fair_crps"], bootstrap=BlockBootstrap(days=1))["value"]
    assert float(values.squeeze()) == 2


def test_different_starts_are_refused() -> None:
    scores = scores_of(np.ones(50))
    with pytest.raises(ValueError, match="same starts"):
        compare(scores, scores.select(np.arange(50) > 0))


@pytest.mark.parametrize(("metric", "message"), [("acc", "There is no acc"), ("fairness", "Known metrics: fair_crps")])
def test_a_metric_that_is_not_there_is_refused(metric: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        intervals(scores_of(np.ones(50)), metrics=[metric])
