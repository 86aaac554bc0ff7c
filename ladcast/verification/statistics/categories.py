"""Scores in categories: between climatological quantiles (RPS, RPSS), and of dry, light and heavy rain (SEEPS)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from ladcast.verification.case import Case
from ladcast.verification.statistics.base import FloatArray, Means, Metric, Statistic, ratio


def category_score(case: Case) -> Float[Tensor, "region level"]:
    """Sums the ranked probability score, sum_k (P_k - O_k)^2 over the climatological quantiles t_k.

    P_k is the share of the members below t_k, O_k says whether the truth is. With the quantiles 0.2, 0.4, 0.6 and 0.8
    it is the score of quintiles. Where all quantiles are one, as of rain in a desert, there are no categories, and
    nothing counts. NaN for a level where the climatology lacks a quantile of a cell that counts.
    """
    return _sum(case, _total((share - below).square() for _, share, below in case.below))


def category_chance(case: Case) -> Float[Tensor, "region level"]:
    """Sums what M members add to the score by chance, sum_k P_k (1 - P_k) / (M - 1) (Ferro 2014)."""
    return _sum(case, _total(share * (1 - share) for _, share, _ in case.below) / (len(case.members) - 1))


def category_climate(case: Case) -> Float[Tensor, "region level"]:
    """Sums the score of the climatology itself, whose share below a quantile is its probability."""
    return _sum(case, _total((probability - below).square() for probability, _, below in case.below))


def category_share(case: Case) -> Float[Tensor, "region level"]:
    """Sums the area where there are categories."""
    return _sum(case, torch.ones_like(case.truth))


def _total(parts: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(parts)).sum(0)


def _sum(case: Case, score: Tensor) -> Float[Tensor, "region level"]:
    quantiles = case.climate["quantiles"]
    unknown = (quantiles.isnan().any(0) & case.area.present).flatten(1).any(1)
    if len(quantiles) > 1:
        score = torch.where(quantiles.amax(0) > quantiles.amin(0), score, 0.0)
    return case.area.sum(score).masked_fill(unknown, torch.nan)


def _skill(means: Means, *, fair: bool) -> FloatArray:
    chance = means["category_chance"] if fair else 0.0
    climate = means["category_climate"]
    return ratio(climate - means["category_score"] + chance, climate)


RPSS_SECTION = "RPSS of the categories between climatological quantiles (fair), 1 is perfect, 0 is the climatology"
CATEGORY = ("category_score", "category_share")

CATEGORIES: tuple[Statistic | Metric, ...] = (
    Statistic("category_score", category_score, climate="quantiles", group="categories"),
    Statistic("category_chance", category_chance, min_members=2, climate="quantiles", group="categories"),
    Statistic("category_climate", category_climate, climate="quantiles", group="categories"),
    Statistic("category_share", category_share, climate="quantiles", group="categories"),
    Metric(
        "rps",
        "ranked probability score of the categories between climatological quantiles",
        CATEGORY,
        lambda means, _: ratio(means["category_score"], means["category_share"]),
        "1",
        better="low",
    ),
    Metric(
        "fair_rpss",
        "skill of the fair ranked probability score against the climatology",
        ("category_score", "category_chance", "category_climate"),
        lambda means, _: _skill(means, fair=True),
        "1",
        better="high",
        section=RPSS_SECTION,
    ),
    Metric(
        "rpss",
        "skill of the ranked probability score against the climatology",
        ("category_score", "category_climate"),
        lambda means, _: _skill(means, fair=False),
        "1",
        better="high",
        section=RPSS_SECTION,
    ),
)


DRY_M = 0.1e-3
"""Dry is at most 0.1 mm in 6 hours, as in WeatherBench 2, whose 0.25 mm are of 24 hours."""
WET_QUANTILE = 2 / 3
"""The threshold between light and heavy leaves twice as many light as heavy amounts in the climatology."""
DRY_FRACTIONS = (0.10, 0.85)
"""Where it is dry more seldom or more often than this, SEEPS is not defined."""


def seeps(case: Case) -> Float[Tensor, "region level"]:
    """Sums the SEEPS of the members, averaged over them, where it is defined: 0 is perfect, 1 knows the climate.

    The stable equitable error in probability space of precipitation in three categories (dry, light, heavy).
    Source: Rodwell et al. (2010), doi:10.1002/qj.656.
    """
    dry = case.climate["dry_fraction"]
    scores = seeps_scores(dry.clamp(*DRY_FRACTIONS))
    observed = _category(case.truth, case.climate["wet_threshold"])
    mean = torch.zeros_like(dry)
    # one member at a time: all at once would need as much memory again as the members have
    for member in case.members:
        forecast = _category(member, case.climate["wet_threshold"])
        mean = mean + scores.flatten(0, 1).gather(0, (3 * forecast + observed)[None])[0]
    return case.area.sum(torch.where(_defined(dry), mean / len(case.members), 0.0)) + _without_climate(dry)


def seeps_share(case: Case) -> Float[Tensor, "region level"]:
    """Sums the area where SEEPS is defined."""
    dry = case.climate["dry_fraction"]
    return case.area.sum(_defined(dry)) + _without_climate(dry)


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


def _without_climate(dry: Tensor) -> float:
    """Keeps it visible that this variable has no climate of dry and wet: NaN, not zero."""
    return float("nan") if bool(dry.isnan().all()) else 0.0


SEEPS: tuple[Statistic | Metric, ...] = (
    Statistic("seeps_score", seeps, climate="dry_fraction", group="seeps"),
    Statistic("seeps_share", seeps_share, climate="dry_fraction", group="seeps"),
    Metric(
        "seeps",
        "SEEPS, mean over members",
        ("seeps_score", "seeps_share"),
        lambda means, _: ratio(means["seeps_score"], means["seeps_share"]),
        "1",
        better="low",
    ),
)
