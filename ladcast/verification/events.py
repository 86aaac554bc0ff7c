"""Scores of probabilities from one table: how often so many members saw an event, and whether it happened.

A table has shape [..., quantile, event, count]: the share of cases where `count` of M members forecast the event, and
it did not (0) or did (1) happen. The forecast probability is count / M.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
from jaxtyping import Float

from ladcast.verification.metric import Means, Metric, Values, ratio

Table = Float[np.ndarray, "*batch quantile event count"]

COST_LOSS = (0.01, 0.02, *(round(0.05 * k, 2) for k in range(1, 20)))
"""Cost of acting over the loss that acting avoids."""


def brier(table: Table) -> Float[np.ndarray, "*batch quantile"]:
    """Returns the mean squared error of count / M."""
    probability = _probability(table)
    missed, hit = table[..., 0, :], table[..., 1, :]
    squares: Values = (missed * probability**2 + hit * (1 - probability) ** 2).sum(-1)
    return squares


def fair_brier(table: Table) -> Float[np.ndarray, "*batch quantile"]:
    """Returns the Brier score minus p (1 - p) / (M - 1), what M members add by chance (Ferro 2014).

    NaN for one member.
    """
    members = table.shape[-1] - 1
    if members < 2:
        return np.full(table.shape[:-2], np.nan)
    probability = _probability(table)
    chance: Values = (table.sum(-2) * probability * (1 - probability)).sum(-1) / (members - 1)
    return brier(table) - chance


def observed_frequency(table: Table) -> Float[np.ndarray, "*batch quantile count"]:
    """Returns how often the event happened for each forecast probability: the reliability curve."""
    return ratio(table[..., 1, :], table.sum(-2))


def reliability(table: Table) -> Float[np.ndarray, "*batch quantile"]:
    """Returns the mean squared distance of forecast probability and observed frequency (Murphy 1973)."""
    distance = np.nan_to_num(observed_frequency(table) - _probability(table))
    return _weighted_square(table, distance)


def resolution(table: Table) -> Float[np.ndarray, "*batch quantile"]:
    """Returns the mean squared distance of observed frequency and base rate: Brier = rel - res + o (1 - o)."""
    distance = np.nan_to_num(observed_frequency(table) - base_rate(table)[..., None])
    return _weighted_square(table, distance)


def base_rate(table: Table) -> Float[np.ndarray, "*batch quantile"]:
    """Returns how often the event happened."""
    rate: Values = table[..., 1, :].sum(-1)
    return rate


def economic_value(table: Table) -> Float[np.ndarray, "*batch quantile cost_loss"]:
    """Returns the share of a perfect forecast's savings, at the best probability to act from, for each cost / loss.

    The reference acts always or never, whichever is cheaper. Source: Richardson (2000), doi:10.1002/qj.49712656313.
    """
    # acting where the count is at least 0, 1, ... M, or never
    acted = np.flip(np.cumsum(np.flip(table, -1), -1), -1)
    acted = np.concatenate([acted, np.zeros_like(acted[..., :1])], -1)
    cost = np.array(COST_LOSS)[:, None]
    happened = base_rate(table)[..., None]
    expense = cost * acted.sum(-2)[..., None, :] + (happened - acted[..., 1, :])[..., None, :]
    reference = np.minimum(np.array(COST_LOSS), happened)
    saved: Values = ratio(reference - expense.min(-1), reference - np.array(COST_LOSS) * happened)
    value: Values = saved + _unknown(table)[..., None]
    return value


def _weighted_square(table: Table, distance: Values) -> Values:
    total: Values = (table.sum(-2) * distance**2).sum(-1) + _unknown(table)
    return total


def _probability(table: Table) -> Float[np.ndarray, " count"]:
    return np.linspace(0, 1, table.shape[-1])


def _unknown(table: Table) -> Float[np.ndarray, "*batch quantile"]:
    """NaN where there is no table, else zero."""
    zero: Values = 0 * table.sum((-2, -1))
    return zero


def _of_table(function: Callable[[Table], Values]) -> Callable[[Means, int | float], Values]:
    return lambda means, _: function(means["event_table"])


def _event_metrics() -> Iterator[Metric]:
    def metric(name: str, long_name: str, function: Callable[[Table], Values], axis: tuple[str, ...] = ()) -> Metric:
        better: Literal["low", "none"] = "low" if "Brier" in long_name else "none"
        axes = ("quantile", *axis)
        return Metric(name, long_name, ("event_table",), _of_table(function), "1", axes, better=better)

    yield metric("brier", "Brier score of the event beyond a climatological quantile", brier)
    yield metric("fair_brier", "fair Brier score of the event beyond a climatological quantile", fair_brier)
    yield metric(
        "observed_frequency", "frequency of the event for each forecast probability", observed_frequency, ("count",)
    )
    yield metric("reliability", "reliability part of the squared error of probabilities", reliability)
    yield metric("resolution", "resolution part of the squared error of probabilities", resolution)
    yield metric("base_rate", "frequency of the event", base_rate)
    yield metric("economic_value", "value over cost / loss, 1 is a perfect forecast", economic_value, ("cost_loss",))


EVENT_METRICS = tuple(_event_metrics())
