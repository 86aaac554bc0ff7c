"""SEEPS: the stable equitable error in probability space of precipitation in three categories.

Source: Rodwell et al. (2010), doi:10.1002/qj.656. Dry is at most 0.1 mm in 6 hours, as in WeatherBench 2
(its 0.25 mm are of 24 hours); the threshold between light and heavy leaves twice as many light as heavy amounts in the
climatology.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ladcast.verification.case import Case
from ladcast.verification.statistics.base import FloatArray, Means, Metric, Statistic, ratio

DRY_M = 0.1e-3
WET_QUANTILE = 2 / 3
DRY_FRACTIONS = (0.10, 0.85)
"""Where it is dry more seldom or more often than this, SEEPS is not defined."""


def seeps(case: Case) -> Float[Tensor, "region level"]:
    """Sums the SEEPS of the members, averaged over them, where it is defined: 0 is perfect, 1 knows the climate."""
    dry = case.climate["dry_fraction"]
    scores = seeps_scores(dry.clamp(*DRY_FRACTIONS))
    observed = _category(case.truth, case.climate["wet_threshold"])
    mean = torch.zeros_like(dry)
    # one member at a time: all at once would need as much memory again as the members have
    for member in case.members:
        forecast = _category(member, case.climate["wet_threshold"])
        mean = mean + scores.flatten(0, 1).gather(0, (3 * forecast + observed)[None])[0]
    return case.area.sum(torch.where(_defined(dry), mean / len(case.members), 0.0)) + _unknown(dry)


def seeps_share(case: Case) -> Float[Tensor, "region level"]:
    """Sums the area where SEEPS is defined."""
    dry = case.climate["dry_fraction"]
    return case.area.sum(_defined(dry)) + _unknown(dry)


def seeps_scores(dry: Float[Tensor, "*batch"]) -> Float[Tensor, "forecast observed *batch"]:
    """Returns the score of each pair of categories (dry, light, heavy) for a climatological share of dry cases."""
    zero = torch.zeros_like(dry)
    rows = (
        (zero, 1 / (1 - dry), 4 / (1 - dry)),
        (1 / dry, zero, 3 / (1 - dry)),
        (1 / dry + 3 / (2 + dry), 3 / (2 + dry), zero),
    )
    return torch.stack([torch.stack(row) for row in rows]) / 2


def _category(amount: Tensor, wet_threshold: Tensor) -> Tensor:
    return (amount > DRY_M).long() + ((amount > DRY_M) & (amount > wet_threshold)).long()


def _defined(dry: Tensor) -> Tensor:
    return (dry >= DRY_FRACTIONS[0]) & (dry <= DRY_FRACTIONS[1])


def _unknown(dry: Tensor) -> float:
    """Keeps it visible that this variable has no climate of dry and wet: NaN, not zero."""
    return float("nan") if bool(dry.isnan().all()) else 0.0


def _mean_seeps(means: Means, _: int | float) -> FloatArray:
    return ratio(means["seeps_score"], means["seeps_share"])


SEEPS: tuple[Statistic | Metric, ...] = (
    Statistic("seeps_score", seeps, climate="dry_fraction", group="seeps"),
    Statistic("seeps_share", seeps_share, climate="dry_fraction", group="seeps"),
    Metric("seeps", "SEEPS, mean over members", ("seeps_score", "seeps_share"), _mean_seeps, "1", better="low"),
)
