"""Metrics are functions of means: ratios of means, root last."""

import math

import numpy as np
import pytest

from ladcast.verification.metrics import METRICS, compute_metrics

MEANS = {
    "error": np.array([-1.0]),
    "squared_error": np.array([5.0]),
    "variance": np.array([4.0]),
    "member_error": np.array([3.0]),
    "member_difference": np.array([2.0]),
}


def test_known_values_of_four_members() -> None:
    values = {name: float(value[0]) for name, value in compute_metrics(MEANS, 4).items()}
    assert values == pytest.approx(
        {
            "fair_crps": 2.0,
            "crps": 2.25,
            "crps_skill": 3.0,
            "crps_spread": 2.0,
            "rmse": math.sqrt(5),
            "debiased_mse": 4.0,
            "debiased_rmse": 2.0,
            "bias": -1.0,
            "spread": 2.0,
            "spread_skill": 1.0,
            "debiased_spread_skill": 1.0,
        }
    )


def test_fair_and_ordinary_crps_agree_for_a_distribution() -> None:
    values = compute_metrics(MEANS, math.inf)
    assert values["crps"] == values["fair_crps"] == 2.0


def test_single_forecast_has_neither_spread_nor_fair_crps() -> None:
    means = {name: MEANS[name] for name in ("error", "squared_error", "member_error")}
    assert set(compute_metrics(means, 1)) == {"rmse", "bias"}


def test_ratio_is_nan_where_the_debiased_error_is_negative() -> None:
    values = compute_metrics({"variance": np.array([4.0]), "squared_error": np.array([0.5])}, 4)
    assert values["debiased_mse"] < 0
    assert np.isnan(values["debiased_rmse"])
    assert np.isnan(values["debiased_spread_skill"])


def test_every_metric_names_itself() -> None:
    assert all(name == metric.name and metric.needs for name, metric in METRICS.items())
