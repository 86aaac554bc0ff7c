"""Metrics: functions of mean statistics. Averages come first, roots and ratios last.

A new metric is one entry in `METRICS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
Means = Mapping[str, Values]


@dataclass(frozen=True)
class Metric:
    """Names a function of mean statistics and of the number of members (infinite for a full distribution).

    `units` says whether the values have the field's units, their square, or none.
    """

    name: str
    long_name: str
    needs: tuple[str, ...]
    compute: Callable[[Means, int | float], Values]
    units: Literal["field", "field squared", "1"] = "field"


def _crps(means: Means, members: int | float) -> Values:
    return means["member_error"] - means["member_difference"] * (1 - 1 / members) / 2


def _fair_crps(means: Means, members: int | float) -> Values:
    return means["member_error"] - means["member_difference"] / 2


def _debiased_mse(means: Means, members: int | float) -> Values:
    return means["squared_error"] - means["variance"] / members


def _spread_skill(means: Means, members: int | float) -> Values:
    return np.sqrt((1 + 1 / members) * _ratio(means["variance"], means["squared_error"]))


def _debiased_spread_skill(means: Means, members: int | float) -> Values:
    return np.sqrt(_ratio(means["variance"], _debiased_mse(means, members)))


def _ratio(numerator: Values, denominator: Values) -> Values:
    """NaN where the denominator is not positive: an estimate of a mean square may fall below zero."""
    return np.divide(numerator, denominator, out=np.full_like(numerator, np.nan), where=denominator > 0)


_SPREAD = ("variance", "squared_error")
_PAIRS = ("member_error", "member_difference")

METRICS = {
    metric.name: metric
    for metric in (
        Metric("fair_crps", "fair CRPS (M(M-1) in the spread term)", _PAIRS, _fair_crps),
        Metric("crps", "ordinary CRPS (M^2 in the spread term)", _PAIRS, _crps),
        Metric("rmse", "RMSE of the ensemble mean", ("squared_error",), lambda m, _: np.sqrt(m["squared_error"])),
        Metric("debiased_mse", "ensemble-mean MSE minus variance / M", _SPREAD, _debiased_mse, "field squared"),
        Metric(
            "mae",
            "mean absolute error of the ensemble mean",
            ("absolute_error",),
            lambda m, _: m["absolute_error"],
        ),
        Metric("bias", "mean of forecast minus truth", ("error",), lambda m, _: m["error"]),
        Metric("spread", "root of the mean ensemble variance", ("variance",), lambda m, _: np.sqrt(m["variance"])),
        Metric("spread_skill", "sqrt((M+1)/M) spread / RMSE", _SPREAD, _spread_skill, "1"),
        Metric("debiased_spread_skill", "spread / root of debiased MSE", _SPREAD, _debiased_spread_skill, "1"),
        Metric(
            "acc",
            "anomaly correlation of the ensemble mean, mean over starts",
            ("anomaly_correlation",),
            lambda m, _: m["anomaly_correlation"],
            "1",
        ),
    )
}


def compute_metrics(means: Means, members: int | float) -> dict[str, Values]:
    """Returns every metric whose statistics are there. One member has no spread, so none that needs it."""
    able = [metric for metric in METRICS.values() if all(name in means for name in metric.needs)]
    return {metric.name: metric.compute(means, members) for metric in able}
