"""Distances of the members from the truth and from each other: errors, spread, CRPS, anomaly correlation, ranks."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ladcast.grid import Box
from ladcast.verification.case import Case
from ladcast.verification.crps import CellField
from ladcast.verification.statistics.base import (
    Axis,
    FloatArray,
    Means,
    Metric,
    Statistic,
    fair_score,
    mean_of,
    ratio,
    root_of,
)


def rank_histogram(case: Case) -> Float[Tensor, "region level rank"]:
    """Counts how many members lie below the truth, 0..M, by area; ties are broken at random (Hamill 2001).

    The draw depends on the case alone (initial time, lead time, variable): not on chunks, processes or devices.
    """
    below = (case.members < case.truth).sum(0).cpu()
    ties = (case.members == case.truth).sum(0).cpu().numpy()
    drawn = np.random.default_rng(case.key).random(ties.shape) * (ties + 1)
    return case.area.histogram(below + torch.from_numpy(drawn.astype(np.int64)), len(case.members) + 1)


def gaussian_statistics(mean: CellField, std: CellField, truth: CellField) -> dict[str, CellField]:
    """Returns the statistics of infinitely many members of a normal distribution X ~ N(mean, std^2).

    E|X - y| is |mean - y| for a zero std, and E|X - X'| = 2 std / sqrt(pi). The CRPS, member_error minus half of
    member_difference, is that of Gneiting (2005), doi:10.1175/MWR2904.1.
    """
    distance = truth - mean
    scaled = distance / std.clamp_min(torch.finfo(std.dtype).tiny)
    density = math.sqrt(2 / math.pi) * torch.exp(-scaled.square() / 2)
    return {
        "error": mean - truth,
        "absolute_error": (mean - truth).abs(),
        "squared_error": (mean - truth).square(),
        "variance": std.square(),
        "member_error": distance * torch.erf(scaled / math.sqrt(2)) + std * density,
        "member_difference": std * (2 / math.sqrt(math.pi)),
    }


def _mean_anomaly(case: Case) -> CellField:
    return case.moments.error + _true_anomaly(case)


def _true_anomaly(case: Case) -> CellField:
    return case.truth - case.climate["mean"]


def _debiased_mse(means: Means, members: int | float) -> FloatArray:
    return means["squared_error"] - means["variance"] / members


def _debiased_rmse(means: Means, members: int | float) -> FloatArray:
    mse = _debiased_mse(means, members)
    return np.sqrt(np.where(mse >= 0, mse, np.nan))


RANK = (Axis("rank", "rank of the truth among the members"),)
CRPS_SECTION = "CRPS (fair; of a single forecast: its mean absolute error)"
RMSE_SECTION = "RMSE of the ensemble mean"
SPREAD_SECTION = "Spread / skill, sqrt((M+1)/M) spread / RMSE, 1 is calibrated"
PAIRS = ("member_error", "member_difference")
SPREAD = ("variance", "squared_error")
ANOMALIES = ("anomaly_product", "anomaly_power", "true_anomaly_power")

DISTANCES: tuple[Statistic | Metric, ...] = (
    Statistic("error", lambda case: case.area.sum(case.moments.error)),
    Statistic("absolute_error", lambda case: case.area.sum(case.moments.error.abs())),
    Statistic("squared_error", lambda case: case.area.sum(case.moments.error.square()), additive=True),
    Statistic("variance", lambda case: case.area.sum(case.moments.variance), min_members=2, additive=True),
    Statistic("member_error", lambda case: case.area.sum(case.moments.member_error)),
    Statistic("member_difference", lambda case: case.area.sum(case.moments.member_difference), min_members=2),
    Statistic(
        "anomaly_product",
        lambda case: case.area.sum(_mean_anomaly(case) * _true_anomaly(case)),
        climate="mean",
        additive=True,
    ),
    Statistic("anomaly_power", lambda case: case.area.sum(_mean_anomaly(case).square()), climate="mean", additive=True),
    Statistic(
        "true_anomaly_power", lambda case: case.area.sum(_true_anomaly(case).square()), climate="mean", additive=True
    ),
    Statistic("rank_histogram", rank_histogram, axes=RANK, group="ranks"),
    Metric(
        "fair_crps",
        "fair CRPS (M(M-1) in the spread term)",
        PAIRS,
        fair_score(*PAIRS),
        better="low",
        section=CRPS_SECTION,
    ),
    Metric(
        "crps",
        "ordinary CRPS (M^2 in the spread term)",
        PAIRS,
        lambda means, members: means["member_error"] - means["member_difference"] * (1 - 1 / members) / 2,
        better="low",
    ),
    Metric("crps_skill", "skill part of the CRPS: mean distance of a member from the truth", PAIRS, mean_of(PAIRS[0])),
    Metric("crps_spread", "spread part of the CRPS: mean distance of two members", PAIRS, mean_of(PAIRS[1])),
    Metric(
        "rmse",
        "RMSE of the ensemble mean",
        ("squared_error",),
        root_of("squared_error"),
        better="low",
        section=RMSE_SECTION,
    ),
    Metric("debiased_mse", "ensemble-mean MSE minus variance / M", SPREAD, _debiased_mse, "field squared"),
    Metric("debiased_rmse", "root of the debiased ensemble-mean MSE", SPREAD, _debiased_rmse, better="low"),
    Metric(
        "mae",
        "mean absolute error of the ensemble mean",
        ("absolute_error",),
        mean_of("absolute_error"),
        better="low",
        section=CRPS_SECTION,
    ),
    Metric("bias", "mean of forecast minus truth", ("error",), mean_of("error")),
    Metric("spread", "root of the mean ensemble variance", ("variance",), root_of("variance")),
    Metric(
        "spread_skill",
        "sqrt((M+1)/M) spread / RMSE",
        SPREAD,
        lambda means, members: np.sqrt((1 + 1 / members) * ratio(means["variance"], means["squared_error"])),
        "1",
        section=SPREAD_SECTION,
    ),
    Metric(
        "debiased_spread_skill",
        "spread / root of debiased MSE",
        SPREAD,
        lambda means, members: np.sqrt(ratio(means["variance"], _debiased_mse(means, members))),
        "1",
    ),
    Metric(
        "acc",
        "anomaly correlation of the ensemble mean, mean over starts",
        ANOMALIES,
        lambda means, _: means["anomaly_product"] / np.sqrt(means["anomaly_power"] * means["true_anomaly_power"]),
        "1",
        per_start=True,
        better="high",
    ),
    Metric(
        "rank_frequency",
        "frequency of the truth's rank among the members, over that of a flat histogram",
        ("rank_histogram",),
        lambda means, members: means["rank_histogram"] * (members + 1),
        "1",
        RANK,
    ),
)


def energy_error(case: Case) -> Float[Tensor, "region level"]:
    """Returns mean_i ||x_i - y|| of each region and level, times the region's weight; ||.|| is the root mean square."""
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
    found = []
    for weights, totals in zip(case.area.weights, case.area.total, strict=True):
        for level, (present, total) in enumerate(zip(case.area.present, totals, strict=True)):
            counted = present & (weights > 0)
            share = (weights[counted] / total).sqrt()
            found.append(measure(case.deviation[:, level, counted].double() * share) * total)
    return torch.stack(found).reshape(case.area.total.shape)


ENERGY_PAIR = ("energy_error", "energy_difference")

ENERGY: tuple[Statistic | Metric, ...] = (
    Statistic("energy_error", energy_error, group="energy"),
    Statistic("energy_difference", energy_difference, min_members=2, group="energy"),
    Metric(
        "energy_score", "fair energy score of the field of a level", ENERGY_PAIR, fair_score(*ENERGY_PAIR), better="low"
    ),
)


def variogram_error(case: Case) -> Float[Tensor, "region level lag"]:
    """Returns (|y_i - y_j|^p - mean_m |x_mi - x_mj|^p)^2 of pairs of cells, as sums over regions by area.

    p is 1/2, and the pairs are those of `LAGS`: what members lack in structure shows here, and not in scores of single
    cells (Scheuerer & Hamill 2015, doi:10.1175/MWR-D-14-00269.1).
    """
    return _over_pairs(case, lambda true, made: (true - made.mean(dim=0)).square())


def variogram_variance(case: Case) -> Float[Tensor, "region level lag"]:
    """Returns the variance among members of |x_mi - x_mj|^p, which the error has in it divided by their number."""
    return _over_pairs(case, lambda true, made: made.var(dim=0))


def _over_pairs(case: Case, measure: Callable[[Tensor, Tensor], Tensor]) -> Float[Tensor, "region level lag"]:
    """Sums what `measure` makes of the differences in the truth and in the members, by the place of the western cell.

    A pair counts where both cells are present; sums are scaled to the weight of all present cells.
    """
    sums = []
    for lag in LAGS:
        true, made = (
            (field.roll(-lag, dims=-1) - field).abs().pow(VARIOGRAM_ORDER) for field in (case.truth, case.members)
        )
        both = case.area.present & case.area.present.roll(-lag, dims=-1)
        if isinstance(case.area.grid, Box):  # no row of it is a circle
            both[..., -lag:] = False
        pairs = replace(case.area, present=both)
        sums.append(pairs.sum(measure(true, made)) * case.area.total / pairs.total)
    return torch.stack(sums, dim=-1)


VARIOGRAM_ORDER = 0.5
LAGS = (1, 2, 4, 8)
"""Columns of the grid between the two cells of a pair, which lie in one row."""
LAG = (Axis("lag", "columns between the cells of a pair", lambda size: LAGS[:size]),)
VARIOGRAM_PAIR = ("variogram_error", "variogram_variance")

VARIOGRAM: tuple[Statistic | Metric, ...] = (
    Statistic("variogram_error", variogram_error, axes=LAG, group="variogram"),
    Statistic("variogram_variance", variogram_variance, min_members=2, axes=LAG, group="variogram"),
    Metric(
        "variogram_score",
        "fair variogram score of order 1/2 of neighbours in a row",
        VARIOGRAM_PAIR,
        lambda means, members: means["variogram_error"] - means["variogram_variance"] / members,
        axes=LAG,
        better="low",
    ),
)
