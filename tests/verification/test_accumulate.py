"""Accumulators merge bit by bit, whatever the split, and only what belongs together."""

from collections.abc import Callable
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import xarray as xr

from ladcast.grid import grid_of
from ladcast.verification import Accumulator, ScoreOptions, merge_accumulators, score
from ladcast.verification import match as match_module
from ladcast.verification.accumulate import divide

OPTIONS = ScoreOptions(
    statistics=("default", "ranks", "energy", "zonal_spectra", "spherical_spectra"), regions=("globe", "tropics")
)


def assert_same_bits(first: Accumulator, second: Accumulator) -> None:
    assert (first.init_times, first.lead_times, first.channels) == (
        second.init_times,
        second.lead_times,
        second.channels,
    )
    assert np.array_equal(first.weight, second.weight)
    for name, total in first.sums.items():
        np.testing.assert_array_equal(total, second.sums[name], err_msg=name)
    xr.testing.assert_identical(first.metrics(), second.metrics())


@pytest.fixture(scope="module")
def whole(same_forecast: xr.Dataset, same_truth: xr.Dataset) -> Accumulator:
    return score(same_forecast, same_truth, options=OPTIONS)


@pytest.fixture(scope="module")
def plain(same_forecast: xr.Dataset, same_truth: xr.Dataset) -> list[Accumulator]:
    """What is always computed, one initial time after the other."""
    return [score(same_forecast.isel(time=[start]), same_truth) for start in range(3)]


@pytest.mark.slow
@pytest.mark.parametrize("dim", ["time", "prediction_timedelta"])
@pytest.mark.parametrize("cut", [1, 2])
def test_any_split_is_the_whole(
    forecast: xr.Dataset, truth: xr.Dataset, whole: Accumulator, dim: str, cut: int
) -> None:
    parts = (forecast.isel({dim: part}) for part in (slice(cut), slice(cut, None)))
    first, second = (score(part, truth, options=OPTIONS) for part in parts)
    assert_same_bits(first + second, whole)
    assert_same_bits(second + first, whole)


@pytest.mark.slow
def test_single_cases_in_any_order_are_the_whole(forecast: xr.Dataset, truth: xr.Dataset, whole: Accumulator) -> None:
    parts = [
        score(forecast.isel(time=[start], prediction_timedelta=[lead]), truth, options=OPTIONS)
        for start in range(3)
        for lead in range(4)
    ]
    shuffled = np.random.default_rng(0).permutation(len(parts))
    assert_same_bits(merge_accumulators(parts[index] for index in shuffled), whole)


def test_order_of_merging_does_not_matter(forecast: xr.Dataset, truth: xr.Dataset, whole: Accumulator) -> None:
    parts = [score(forecast.isel(time=[start]), truth, options=OPTIONS) for start in range(3)]
    for order in permutations(parts):
        assert_same_bits(merge_accumulators(order), whole)
    assert_same_bits(parts[0] + (parts[2] + parts[1]), whole)


@pytest.mark.slow
@pytest.mark.parametrize("read_bytes", [1, 20_000])
def test_what_is_read_at_once_does_not_change_a_bit(
    forecast: xr.Dataset, truth: xr.Dataset, whole: Accumulator, monkeypatch: pytest.MonkeyPatch, read_bytes: int
) -> None:
    monkeypatch.setattr(match_module, "SCORED_BYTES", read_bytes)
    assert_same_bits(score(forecast.chunk(prediction_timedelta=2), truth, options=OPTIONS), whole)


def test_sums_of_cells_are_in_double_precision(forecast: xr.Dataset, truth: xr.Dataset) -> None:
    shifted = [ds[["temperature"]].isel(level=[0]) for ds in (forecast, truth)]
    total = score(*shifted).sums["error"][0, 0, 0, 0]
    members, true = (ds["temperature"].values.astype(np.float32) for ds in shifted)
    error = (members[0, 0, :, 0] - true[shifted[1].indexes["time"].get_loc(forecast.indexes["time"][0]) + 1, 0]).mean(0)
    weights = grid_of(forecast).area_weights
    assert total == pytest.approx((error.astype(np.float64) * weights[:, None]).sum(), rel=1e-6)


def test_same_start_does_not_count_twice(plain: list[Accumulator]) -> None:
    with pytest.raises(ValueError, match="would count twice: 2020-12-30T00"):
        plain[0] + plain[0]


def test_same_lead_time_does_not_count_twice(forecast: xr.Dataset, truth: xr.Dataset) -> None:
    parts = (score(forecast.isel(prediction_timedelta=part), truth) for part in (slice(2), slice(1, None)))
    with pytest.raises(ValueError, match="lead_times are in both scores and would count twice: 12 h"):
        merge_accumulators(parts)


def test_starts_with_different_lead_times_do_not_merge(forecast: xr.Dataset, truth: xr.Dataset) -> None:
    short, long = forecast.isel(time=[0], prediction_timedelta=[0]), forecast.isel(time=[1])
    with pytest.raises(
        ValueError, match=r"different lead_times do not merge: .*only the second has \['12 h', '18 h', '24 h'"
    ):
        merge_accumulators([score(short, truth), score(long, truth)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"members": 7}, "different members do not merge: 5 and 7"),
        ({"channels": ()}, r"only the first has \['z500'"),
        ({"sums": {}}, "different statistics"),
        ({"regions": ("europe",)}, "different regions"),
        ({"axes": {"quantile": (0.9,)}}, "different axes"),
    ],
)
def test_different_scores_do_not_merge(plain: list[Accumulator], change: dict[str, object], message: str) -> None:
    first, second, _ = plain
    with pytest.raises(ValueError, match=message):
        first + replace(second, **change)


def test_nothing_does_not_merge() -> None:
    with pytest.raises(ValueError, match="at least one start"):
        merge_accumulators([])


def test_means_weigh_every_start_by_its_area(whole: Accumulator) -> None:
    rmse = whole.resampled_metrics(np.ones((1, 3)), "tropics", ["rmse"])["rmse"][0]
    expected = whole.sums["squared_error"][:, 1].sum(0) / whole.weight[:, 1].sum(0)
    np.testing.assert_allclose(rmse**2, expected, rtol=1e-14)


def test_counting_a_start_twice_is_the_weighted_mean(whole: Accumulator) -> None:
    drawn = whole.resampled_metrics(np.array([[2, 1, 0]]), names=["rmse"])["rmse"][0]
    sums = whole.sums["squared_error"][:, 0]
    expected = np.sqrt((2 * sums[0] + sums[1]) / (2 * whole.weight[0, 0] + whole.weight[1, 0]))
    np.testing.assert_allclose(drawn, expected, rtol=1e-13)


def test_seasons_are_those_of_the_start(make_states: Callable[..., xr.Dataset]) -> None:
    starts = np.array(["2020-02-29", "2020-06-01", "2020-12-01"], "datetime64[ns]")
    lead = np.array([6], "timedelta64[h]").astype("timedelta64[ns]")
    scores = score(make_states(1, time=starts, prediction_timedelta=lead), make_states(2, time=starts + lead[0]))
    assert scores.seasons == ("DJF", "JJA")
    assert scores.season("DJF").init_times == (starts[0], starts[2])
    with pytest.raises(ValueError, match="None of the 3 starts"):
        scores.season("SON")
    with pytest.raises(ValueError, match="Known seasons: DJF"):
        scores.season("winter")


def test_a_region_that_was_not_scored_is_refused(whole: Accumulator) -> None:
    with pytest.raises(ValueError, match=r"'europe' was not scored\. There are: globe, tropics"):
        whole.metrics("europe")


def test_no_weight_is_nan() -> None:
    assert np.isnan(divide(np.ones((2, 3)), np.array([0.0, 1.0]))).sum() == 3


def test_metrics_survive_a_file(plain: list[Accumulator], tmp_path: object) -> None:
    metrics = merge_accumulators(plain).metrics()
    metrics.to_netcdf(f"{tmp_path}/scores.nc")
    with xr.open_dataset(f"{tmp_path}/scores.nc", decode_timedelta=True) as stored:
        xr.testing.assert_allclose(stored.load(), metrics)
        assert list(stored["channel_units"].values) == ["m2 s-2", "m2 s-2", "K", "K", "K"]
        assert np.all(stored["start"].values == metrics["start"].values)
