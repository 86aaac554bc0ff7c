"""Probabilities of ensembles: ranks, tables of events beyond climatological quantiles, and scores of tails.

The quantile 0.9 stands for the event "above it", the quantile 0.1 for "below it": the rarer side.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ladcast.verification.case import MEDIAN, Case


def rank_histogram(case: Case) -> Float[Tensor, "region level rank"]:
    """Counts how many members lie below the truth, 0..M, by area; ties are broken at random (Hamill 2001).

    The draw depends on the case alone (start, lead time, variable): not on blocks, processes or devices.
    """
    below = (case.members < case.truth).sum(0).cpu()
    ties = (case.members == case.truth).sum(0).cpu().numpy()
    drawn = np.random.default_rng(case.key).random(ties.shape) * (ties + 1)
    return case.area.histogram(below + torch.from_numpy(drawn.astype(np.int64)), len(case.members) + 1)


def event_table(case: Case) -> Float[Tensor, "region level quantile event count"]:
    """Counts by area how many members saw the event (last axis, 0..M) where it did not and where it did happen.

    Brier scores, reliability and economic value are functions of this table. NaN for a level where the climatology
    lacks the quantile of a cell that counts.
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


def tail_error(case: Case) -> Float[Tensor, "region level quantile"]:
    """Sums mean_i |v(x_i) - v(y)| with v(x) = max(x, t) for upper, min(x, t) for lower quantiles t."""
    return torch.stack([case.area.sum(tail.member_error) for tail in case.tails], dim=-1)


def tail_difference(case: Case) -> Float[Tensor, "region level quantile"]:
    """Sums the mean distance of two members after the same v: with `tail_error`, the threshold-weighted CRPS.

    Source: Allen et al. (2023), doi:10.1137/22M1532184 (chaining functions).
    """
    return torch.stack([case.area.sum(tail.member_difference) for tail in case.tails], dim=-1)
