"""The energy score: the CRPS of whole fields, with the area-weighted root mean square as distance."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from ladcast.verification.case import Case
from ladcast.verification.statistics.base import Metric, Statistic, fair_score


def energy_error(case: Case) -> Float[Tensor, "region level"]:
    """Returns mean_i ||x_i - y|| of each region and level, times the region's weight."""
    return _by_region(case, lambda scaled: scaled.norm(dim=-1).mean())


def energy_difference(case: Case) -> Float[Tensor, "region level"]:
    """Returns sum_ij ||x_i - x_j|| / (M (M - 1)), times the region's weight.

    The energy score is `energy_error` minus half of this (Gneiting & Raftery 2007, doi:10.1198/016214506000001437).
    """
    return _by_region(case, _mean_distance)


def _mean_distance(scaled: Float[Tensor, "member cell"]) -> Float[Tensor, ""]:
    """Takes distances from the product of errors, which are of one size: double precision loses nothing."""
    product = scaled @ scaled.T
    power = product.diagonal()
    # rounding leaves the distance of equal members a little off zero, on either side
    squared = (power[:, None] + power - 2 * product).fill_diagonal_(0).clamp_min(0)
    return squared.sqrt().sum() / (len(scaled) * (len(scaled) - 1))


def _by_region(case: Case, measure: Callable[[Tensor], Tensor]) -> Float[Tensor, "region level"]:
    """Applies `measure` to errors scaled so that the square of their norm is an area mean."""
    rows = []
    for weights, totals in zip(case.area.weights, case.area.total, strict=True):
        rows.append(torch.stack([_at_level(case, weights, totals, measure, k) for k in range(len(case.truth))]))
    return torch.stack(rows)


def _at_level(
    case: Case, weights: Tensor, totals: Tensor, measure: Callable[[Tensor], Tensor], level: int
) -> Float[Tensor, ""]:
    counted = case.area.present[level] & (weights > 0)
    share = (weights[counted] / totals[level]).sqrt()
    return measure(case.deviation[:, level, counted].double() * share) * totals[level]


ENERGY_PAIR = ("energy_error", "energy_difference")

ENERGY: tuple[Statistic | Metric, ...] = (
    Statistic("energy_error", energy_error, group="energy"),
    Statistic("energy_difference", energy_difference, min_members=2, group="energy"),
    Metric(
        "energy_score", "fair energy score of the field of a level", ENERGY_PAIR, fair_score(*ENERGY_PAIR), better="low"
    ),
)
