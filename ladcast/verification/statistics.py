"""Statistics of one forecast case: fields whose means over starts, area and members give every score.

A statistic may be averaged over any chunk of cases; what may not (a root, a ratio) is a metric. A new
statistic is one function here and its entry in `STATISTICS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

Members = Float[Tensor, "member *batch lat lon"]
Field = Float[Tensor, "*batch lat lon"]


def error(members: Members, truth: Field) -> Field:
    """Returns ensemble mean minus truth."""
    return (members - truth).mean(0)


def absolute_error(members: Members, truth: Field) -> Field:
    """Returns the distance of the ensemble mean from the truth."""
    return error(members, truth).abs()


def squared_error(members: Members, truth: Field) -> Field:
    """Returns the squared error of the ensemble mean."""
    return error(members, truth).square()


def variance(members: Members, truth: Field) -> Field:
    """Returns the unbiased variance of at least two members, sum_i (x_i - mean)^2 / (M - 1)."""
    return (members - truth).var(0, correction=1)


def member_error(members: Members, truth: Field) -> Field:
    """Returns mean_i |x_i - y|, the first term of the CRPS."""
    return (members - truth).abs().mean(0)


def member_difference(members: Members, truth: Field) -> Field:
    """Returns the mean distance of two different members, sum_ij |x_i - x_j| / (M (M - 1)), for M >= 2.

    Computed as 2 sum_i (2 i - M - 1) x_(i) / (M (M - 1)) over sorted members x_(1) <= ... <= x_(M). Taking
    the truth off first keeps single precision accurate: the sum is then over errors, not over full fields.
    """
    num_members = len(members)
    ordered = _sort_last((members - truth).movedim(0, -1).contiguous())
    rank = torch.arange(1, num_members + 1, device=ordered.device, dtype=ordered.dtype)
    return ordered @ (2 * (2 * rank - num_members - 1) / (num_members * (num_members - 1)))


def _sort_last(values: Tensor) -> Tensor:
    """NumPy sorts short rows with vector instructions, on a CPU up to ten times faster than torch."""
    if values.device.type != "cpu" or values.requires_grad:
        return torch.sort(values, dim=-1).values
    return torch.from_numpy(np.sort(values.numpy(), axis=-1))


def fair_crps(members: Members, truth: Field) -> Field:
    """Returns mean_i |x_i - y| - sum_ij |x_i - x_j| / (2 M (M - 1)), unbiased for M >= 2.

    A single forecast has no fair CRPS. Its ordinary CRPS (`crps`) is its absolute error.
    Source: Ferro (2014), doi:10.1002/qj.2270.
    """
    return member_error(members, truth) - member_difference(members, truth) / 2


def crps(members: Members, truth: Field) -> Field:
    """Returns mean_i |x_i - y| - sum_ij |x_i - x_j| / (2 M^2), the CRPS of the empirical distribution."""
    if len(members) == 1:
        return member_error(members, truth)
    return member_error(members, truth) - member_difference(members, truth) * (1 - 1 / len(members)) / 2


def gaussian_member_error(mean: Field, std: Field, truth: Field) -> Field:
    """Returns E|X - y| of X ~ N(mean, std^2); a zero std gives |mean - y|."""
    distance = truth - mean
    scaled = distance / std.clamp_min(torch.finfo(std.dtype).tiny)
    density = math.sqrt(2 / math.pi) * torch.exp(-scaled.square() / 2)
    return distance * torch.erf(scaled / math.sqrt(2)) + std * density


def gaussian_member_difference(std: Field) -> Field:
    """Returns E|X - X'| = 2 std / sqrt(pi) of two independent draws of a normal distribution."""
    return std * (2 / math.sqrt(math.pi))


def gaussian_crps(mean: Field, std: Field, truth: Field) -> Field:
    """Returns the CRPS of a normal distribution in closed form (Gneiting 2005, doi:10.1175/MWR2904.1)."""
    return gaussian_member_error(mean, std, truth) - gaussian_member_difference(std) / 2


def anomaly_correlation(anomaly: Field, true_anomaly: Field, weight: Field) -> Float[Tensor, "*batch"]:
    """Returns the uncentred correlation of anomalies, sum(w f a) / sqrt(sum(w f^2) sum(w a^2))."""
    covariance = (weight * anomaly * true_anomaly).sum((-2, -1))
    power = (weight * anomaly.square()).sum((-2, -1)) * (weight * true_anomaly.square()).sum((-2, -1))
    return covariance / power.sqrt()


@dataclass(frozen=True)
class Case:
    """Holds what a statistic may look at: a batch of forecast fields and what came true, without NaN.

    `weight` is the cell area and zero where the truth is masked; there the other fields are zero.
    """

    members: Float[Tensor, "member lead level lat lon"]
    truth: Float[Tensor, "lead level lat lon"]
    weight: Float[Tensor, "lead level lat lon"]
    climatology: Float[Tensor, "lead level lat lon"] | None = None


@dataclass(frozen=True)
class Statistic:
    """Names a function from a case to a field of values, and says what the function needs."""

    name: str
    field: Callable[[Case], Float[Tensor, "lead level lat lon"]]
    min_members: int = 1
    needs_climatology: bool = False


def _of_members(function: Callable[[Tensor, Tensor], Tensor], min_members: int = 1) -> Statistic:
    return Statistic(function.__name__, lambda case: function(case.members, case.truth), min_members)


def _correlation(case: Case) -> Tensor:
    """One number per field, spread over its cells so that the area mean gives it back."""
    assert case.climatology is not None
    forecast = error(case.members, case.climatology)
    value = anomaly_correlation(forecast, case.truth - case.climatology, case.weight)
    return value[..., None, None].expand_as(case.truth)


STATISTICS = {
    statistic.name: statistic
    for statistic in (
        _of_members(error),
        _of_members(absolute_error),
        _of_members(squared_error),
        _of_members(variance, min_members=2),
        _of_members(member_error),
        _of_members(member_difference, min_members=2),
        Statistic("anomaly_correlation", _correlation, needs_climatology=True),
    )
}


def select_statistics(names: Sequence[str] | None, *, members: int | float, climatology: bool) -> tuple[Statistic, ...]:
    """Returns the named statistics, or without names all that so many members and a climatology allow.

    Raises:
        ValueError: a name is unknown, or the statistic needs more members or a climatology.
    """
    if names is None:
        able = [s for s in STATISTICS.values() if members >= s.min_members and (climatology or not s.needs_climatology)]
        return tuple(able)
    if unknown := [name for name in names if name not in STATISTICS]:
        raise ValueError(f"Unknown statistics {unknown}. Known statistics: {', '.join(STATISTICS)}.")
    chosen = tuple(STATISTICS[name] for name in names)
    for statistic in chosen:
        if members < statistic.min_members:
            raise ValueError(f"'{statistic.name}' needs {statistic.min_members} members, the forecast has {members:g}.")
        if statistic.needs_climatology and not climatology:
            raise ValueError(f"'{statistic.name}' needs a climatology: pass score(..., climatology=...).")
    return chosen


def gaussian_statistics(mean: Field, std: Field, truth: Field) -> dict[str, Field]:
    """Returns the statistics of infinitely many members of a normal distribution."""
    return {
        "error": mean - truth,
        "absolute_error": (mean - truth).abs(),
        "squared_error": (mean - truth).square(),
        "variance": std.square(),
        "member_error": gaussian_member_error(mean, std, truth),
        "member_difference": gaussian_member_difference(std),
    }
