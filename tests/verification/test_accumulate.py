"""Accumulators merge exactly, and only what belongs together."""

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import torch
import xarray as xr

from ladcast.verification import Accumulator, merge, score, score_starts
from ladcast.verification.accumulate import area_sum


def assert_same(first: Accumulator, second: Accumulator) -> None:
    assert first.starts == second.starts
    xr.testing.assert_allclose(first.metrics(), second.metrics(), rtol=1e-12)


def test_any_split_of_starts_is_the_whole(forecast: xr.Dataset, truth: xr.Dataset) -> None:
    whole = score(forecast, truth)
    for cut in (1, 2):
        first, second = (score(forecast.isel(time=part), truth) for part in (slice(cut), slice(cut, None)))
        assert_same(first + second, whole)


def test_order_of_merging_does_not_matter(forecast: xr.Dataset, truth: xr.Dataset) -> None:
    parts = list(score_starts(forecast, truth))
    for order in permutations(parts):
        assert_same(merge(order), merge(parts))
    assert_same(parts[0] + (parts[1] + parts[2]), (parts[0] + parts[1]) + parts[2])


def test_area_sum_is_in_double_precision() -> None:
    ones = torch.full((1000, 1000), 0.1)
    total = float(area_sum(ones, torch.ones(1000, 1000, dtype=torch.float64)))
    assert total == pytest.approx(1e6 * float(torch.tensor(0.1)), rel=1e-12)


def test_same_start_does_not_count_twice(forecast: xr.Dataset, truth: xr.Dataset) -> None:
    part = score(forecast.isel(time=[0]), truth)
    with pytest.raises(ValueError, match="would count twice: 2020-12-30T00"):
        part + part


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"members": 7}, "different members do not merge: 5 and 7"),
        ({"channels": ()}, r"only the first has \['z500'"),
        ({"sums": {}}, "different statistics"),
    ],
)
def test_different_scores_do_not_merge(
    forecast: xr.Dataset, truth: xr.Dataset, change: dict[str, object], message: str
) -> None:
    first, second, _ = score_starts(forecast, truth)
    with pytest.raises(ValueError, match=message):
        first + replace(second, **change)


def test_nothing_does_not_merge() -> None:
    with pytest.raises(ValueError, match="at least one start"):
        merge([])


def test_metrics_survive_a_file(forecast: xr.Dataset, truth: xr.Dataset, tmp_path: object) -> None:
    metrics = score(forecast, truth).metrics()
    metrics.to_netcdf(f"{tmp_path}/scores.nc")
    with xr.open_dataset(f"{tmp_path}/scores.nc", decode_timedelta=True) as stored:
        xr.testing.assert_allclose(stored.load(), metrics)
        assert list(stored["channel_units"].values) == ["m2 s-2", "m2 s-2", "K", "K", "K"]
        assert np.all(stored["start"].values == metrics["start"].values)
