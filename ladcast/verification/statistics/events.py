"""Scores of probabilities from one table: how often so many members saw an event, and whether it happened.

A table has shape [..., event, count]: the share of cases where `count` of M members forecast the event, and it did not
(0) or did (1) happen. The forecast probability is count / M. Of a climatological quantile the event is the rarer side:
above it for 0.9, below it for 0.1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ladcast.verification.case import MEDIAN, Case
from ladcast.verification.statistics.base import Axis, FloatArray, Metric, Statistic, fair_score, ratio

EventTable = Float[np.ndarray, "*batch event count"]

COST_LOSS = (0.01, 0.02, *(round(0.05 * k, 2) for k in range(1, 20)))
"""Cost of acting over the loss that acting avoids."""


def event_table(case: Case) -> Float[Tensor, "region level quantile event count"]:
    """Counts by area how many members saw the event (last axis, 0..M) where it did not and where it did happen.

    NaN for a level where the climatology lacks the quantile of a cell that counts.
    """
    counts = len(case.members) + 1
    tables = []
    for probability, threshold in case.thresholds:
        above = probability >= MEDIAN
        members, truth = ((x > threshold if above else x < threshold) for x in (case.members, case.truth))
        index: Int[Tensor, "level lat lon"] = members.sum(0) + counts * truth
        table = case.area.histogram(index, 2 * counts).unflatten(-1, (2, counts))
        unknown = (threshold.isnan() & case.area.present).flatten(1).any(1).cpu()
        tables.append(table.masked_fill(unknown[:, None, None], torch.nan))
    return torch.stack(tables, dim=2)


def brier(table: EventTable) -> Float[np.ndarray, "*batch"]:
    """Returns the mean squared error of count / M."""
    probability = _probability(table)
    missed, hit = table[..., 0, :], table[..., 1, :]
    return np.asarray((missed * probability**2 + hit * (1 - probability) ** 2).sum(-1))


def fair_brier(table: EventTable) -> Float[np.ndarray, "*batch"]:
    """Returns the Brier score minus p (1 - p) / (M - 1), what M members add by chance (Ferro 2014).

    NaN for one member.
    """
    members = table.shape[-1] - 1
    if members < 2:
        return np.full(table.shape[:-2], np.nan)
    probability = _probability(table)
    chance: FloatArray = (table.sum(-2) * probability * (1 - probability)).sum(-1) / (members - 1)
    return brier(table) - chance


def observed_frequency(table: EventTable) -> Float[np.ndarray, "*batch count"]:
    """Returns how often the event happened for each forecast probability: the reliability curve."""
    return ratio(table[..., 1, :], table.sum(-2))


def reliability(table: EventTable) -> Float[np.ndarray, "*batch"]:
    """Returns the mean squared distance of forecast probability and observed frequency (Murphy 1973)."""
    distance = np.nan_to_num(observed_frequency(table) - _probability(table))
    return _weighted_square(table, distance)


def resolution(table: EventTable) -> Float[np.ndarray, "*batch"]:
    """Returns the mean squared distance of observed frequency and base rate: Brier = rel - res + o (1 - o)."""
    distance = np.nan_to_num(observed_frequency(table) - base_rate(table)[..., None])
    return _weighted_square(table, distance)


def base_rate(table: EventTable) -> Float[np.ndarray, "*batch"]:
    """Returns how often the event happened."""
    return np.asarray(table[..., 1, :].sum(-1))


def economic_value(table: EventTable) -> Float[np.ndarray, "*batch cost_loss"]:
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
    saved = ratio(reference - expense.min(-1), reference - np.array(COST_LOSS) * happened)
    return np.asarray(saved + _unknown(table)[..., None])


def _weighted_square(table: EventTable, distance: FloatArray) -> FloatArray:
    return np.asarray((table.sum(-2) * distance**2).sum(-1) + _unknown(table))


def _probability(table: EventTable) -> Float[np.ndarray, " count"]:
    return np.linspace(0, 1, table.shape[-1])


def _unknown(table: EventTable) -> Float[np.ndarray, "*batch"]:
    """NaN where there is no table, else zero."""
    return np.asarray(0 * table.sum((-2, -1)))


QUANTILE = Axis("quantile", "climatological quantile that bounds the event")
COUNT = Axis(
    "count",
    "forecast probability: share of members that saw the event",
    lambda size: [k / (size - 1) for k in range(size)],
)
COST_OVER_LOSS = Axis("cost_loss", "cost of acting over the loss avoided", lambda _: COST_LOSS)


def _event_metric(
    name: str,
    long_name: str,
    function: Callable[[EventTable], FloatArray],
    *axes: Axis,
    better: Literal["low", "none"] = "none",
) -> Metric:
    axes = (QUANTILE, *axes)
    return Metric(name, long_name, ("event_table",), lambda m, _: function(m["event_table"]), "1", axes, better=better)


EVENTS: tuple[Statistic | Metric, ...] = (
    Statistic(
        "event_table",
        event_table,
        climate="quantiles",
        axes=(QUANTILE, Axis("event", "whether the event happened"), COUNT),
        group="events",
    ),
    _event_metric("brier", "Brier score of the event beyond a climatological quantile", brier, better="low"),
    _event_metric(
        "fair_brier", "fair Brier score of the event beyond a climatological quantile", fair_brier, better="low"
    ),
    _event_metric(
        "observed_frequency", "frequency of the event for each forecast probability", observed_frequency, COUNT
    ),
    _event_metric("reliability", "reliability part of the squared error of probabilities", reliability),
    _event_metric("resolution", "resolution part of the squared error of probabilities", resolution),
    _event_metric("base_rate", "frequency of the event", base_rate),
    _event_metric("economic_value", "value over cost / loss, 1 is a perfect forecast", economic_value, COST_OVER_LOSS),
)


def tail_error(case: Case) -> Float[Tensor, "region level quantile"]:
    """Sums mean_i |v(x_i) - v(y)| with v(x) = max(x, t) for upper, min(x, t) for lower quantiles t."""
    return torch.stack([case.area.sum(tail.member_error) for tail in case.tails], dim=-1)


def tail_difference(case: Case) -> Float[Tensor, "region level quantile"]:
    """Sums the mean distance of two members after the same v: with `tail_error`, the threshold-weighted CRPS.

    Source: Allen et al. (2023), doi:10.1137/22M1532184 (chaining functions).
    """
    return torch.stack([case.area.sum(tail.member_difference) for tail in case.tails], dim=-1)


TAIL_PAIR = ("tail_error", "tail_difference")

TAILS: tuple[Statistic | Metric, ...] = (
    Statistic("tail_error", tail_error, climate="quantiles", axes=(QUANTILE,), group="tails"),
    Statistic("tail_difference", tail_difference, min_members=2, climate="quantiles", axes=(QUANTILE,), group="tails"),
    Metric(
        "tail_crps",
        "fair CRPS beyond a climatological quantile, of max(x, t) or min(x, t)",
        TAIL_PAIR,
        fair_score(*TAIL_PAIR),
        axes=(QUANTILE,),
        better="low",
    ),
)
