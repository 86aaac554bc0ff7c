"""The CRPS of what lies beyond a climatological quantile, above the median on its upper side, else on its lower one."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ladcast.verification.case import Case
from ladcast.verification.statistics.base import Metric, Statistic, fair_score
from ladcast.verification.statistics.events import QUANTILE


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
