"""Metrics: functions of mean statistics. Averages come first, roots and ratios last.

A new metric is one entry in `METRICS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from ladcast.verification.events import EVENT_METRICS
from ladcast.verification.metric import Means, Metric, Values, ratio

__all__ = ["METRICS", "Means", "Metric", "Values", "compute_metrics"]


def _crps(means: Means, members: int | float) -> Values:
    return means["member_error"] - means["member_difference"] * (1 - 1 / members) / 2


def _fair(first: str, second: str) -> Callable[[Means, int | float], Values]:
    """Returns the first term minus half of the fair second one: the form of every fair kernel score."""
    return lambda means, _: means[first] - means[second] / 2


def _debiased_mse(means: Means, members: int | float) -> Values:
    return means["squared_error"] - means["variance"] / members


def _debiased_rmse(means: Means, members: int | float) -> Values:
    mse = _debiased_mse(means, members)
    return np.sqrt(np.where(mse >= 0, mse, np.nan))


def _spread_skill(means: Means, members: int | float) -> Values:
    return np.sqrt((1 + 1 / members) * ratio(means["variance"], means["squared_error"]))


def _debiased_spread_skill(means: Means, members: int | float) -> Values:
    return np.sqrt(ratio(means["variance"], _debiased_mse(means, members)))


def _acc(means: Means, _: int | float) -> Values:
    return means["anomaly_product"] / np.sqrt(means["anomaly_power"] * means["true_anomaly_power"])


def _rank_frequency(means: Means, members: int | float) -> Values:
    return means["rank_histogram"] * (members + 1)


def _same(name: str) -> Callable[[Means, int | float], Values]:
    return lambda means, _: means[name]


def _root(name: str) -> Callable[[Means, int | float], Values]:
    return lambda means, _: np.sqrt(means[name])


_SPREAD = ("variance", "squared_error")
_PAIRS = ("member_error", "member_difference")
_ANOMALIES = ("anomaly_product", "anomaly_power", "true_anomaly_power")
_TAILS = ("tail_error", "tail_difference")
_ENERGY = ("energy_error", "energy_difference")


def _fields() -> Iterator[Metric]:
    yield Metric("fair_crps", "fair CRPS (M(M-1) in the spread term)", _PAIRS, _fair(*_PAIRS), better="low")
    yield Metric("crps", "ordinary CRPS (M^2 in the spread term)", _PAIRS, _crps, better="low")
    yield Metric(
        "crps_skill", "skill part of the CRPS: mean distance of a member from the truth", _PAIRS, _same(_PAIRS[0])
    )
    yield Metric("crps_spread", "spread part of the CRPS: mean distance of two members", _PAIRS, _same(_PAIRS[1]))
    yield Metric("rmse", "RMSE of the ensemble mean", ("squared_error",), _root("squared_error"), better="low")
    yield Metric("debiased_mse", "ensemble-mean MSE minus variance / M", _SPREAD, _debiased_mse, "field squared")
    yield Metric("debiased_rmse", "root of the debiased ensemble-mean MSE", _SPREAD, _debiased_rmse, better="low")
    mae = "mean absolute error of the ensemble mean"
    yield Metric("mae", mae, ("absolute_error",), _same("absolute_error"), better="low")
    yield Metric("bias", "mean of forecast minus truth", ("error",), _same("error"))
    yield Metric("spread", "root of the mean ensemble variance", ("variance",), _root("variance"))


def _others() -> Iterator[Metric]:
    yield Metric("spread_skill", "sqrt((M+1)/M) spread / RMSE", _SPREAD, _spread_skill, "1")
    yield Metric("debiased_spread_skill", "spread / root of debiased MSE", _SPREAD, _debiased_spread_skill, "1")
    acc = "anomaly correlation of the ensemble mean, mean over starts"
    yield Metric("acc", acc, _ANOMALIES, _acc, "1", per_start=True, better="high")
    flat = "frequency of the truth's rank among the members, over that of a flat histogram"
    yield Metric("rank_frequency", flat, ("rank_histogram",), _rank_frequency, "1", ("rank",))
    tails = "fair CRPS beyond a climatological quantile, of max(x, t) or min(x, t)"
    yield Metric("tail_crps", tails, _TAILS, _fair(*_TAILS), axes=("quantile",), better="low")
    yield Metric("energy_score", "fair energy score of the field of a level", _ENERGY, _fair(*_ENERGY), better="low")
    shares = ("seeps_score", "seeps_share")
    yield Metric(
        "seeps", "SEEPS, mean over members", shares, lambda m, _: ratio(m[shares[0]], m[shares[1]]), "1", better="low"
    )
    for group, axis in (("zonal", "wavenumber"), ("spherical", "degree")):
        for name, whose in (("members", "the members"), ("mean", "the ensemble mean"), ("truth", "the truth")):
            key = f"{group}_power_{name}"
            yield Metric(key, f"{group} power spectrum of {whose}", (key,), _same(key), "field squared", (axis,))


METRICS = {metric.name: metric for metric in (*_fields(), *_others(), *EVENT_METRICS)}


def compute_metrics(means: Means, members: int | float, *, per_start: bool | None = None) -> dict[str, Values]:
    """Returns every metric whose statistics are there. One member has no spread, so none that needs it.

    `per_start` takes only the metrics that are, or are not, computed on each start by itself; None takes all.
    """
    able = [metric for metric in METRICS.values() if all(name in means for name in metric.needs)]
    chosen = [metric for metric in able if per_start is None or metric.per_start == per_start]
    return {metric.name: metric.compute(means, members) for metric in chosen}
