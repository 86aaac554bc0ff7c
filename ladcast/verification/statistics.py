"""Statistics of one forecast case: sums over area whose means over starts and members give every score.

A statistic may be added over any chunk of cases; what may not (a root, a ratio) is a metric. A new statistic is one
function here and its entry in `STATISTICS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ladcast.verification.case import Case, Sums
from ladcast.verification.crps import Field
from ladcast.verification.energy import energy_difference, energy_error
from ladcast.verification.precipitation import seeps, seeps_share
from ladcast.verification.probability import event_table, rank_histogram, tail_difference, tail_error
from ladcast.verification.spectra import spherical_power, zonal_power


def gaussian_member_error(mean: Field, std: Field, truth: Field) -> Field:
    """Returns E|X - y| of X ~ N(mean, std^2); a zero std gives |mean - y|."""
    distance = truth - mean
    scaled = distance / std.clamp_min(torch.finfo(std.dtype).tiny)
    density = math.sqrt(2 / math.pi) * torch.exp(-scaled.square() / 2)
    return distance * torch.erf(scaled / math.sqrt(2)) + std * density


def gaussian_member_difference(std: Field) -> Field:
    """Returns E|X - X'| = 2 std / sqrt(pi) of two independent draws of a normal distribution."""
    return std * (2 / math.sqrt(math.pi))


def gaussian_statistics(mean: Field, std: Field, truth: Field) -> dict[str, Field]:
    """Returns the statistics of infinitely many members of a normal distribution.

    The CRPS, member_error minus half of member_difference, is that of Gneiting (2005), doi:10.1175/MWR2904.1.
    """
    return {
        "error": mean - truth,
        "absolute_error": (mean - truth).abs(),
        "squared_error": (mean - truth).square(),
        "variance": std.square(),
        "member_error": gaussian_member_error(mean, std, truth),
        "member_difference": gaussian_member_difference(std),
    }


@dataclass(frozen=True)
class Statistic:
    """Names a function from a case to sums over regions, and says what the function needs.

    `axes` are the dimensions of the result after (region, level). `climate` names the part of a climatology that is
    needed: `mean`, `quantiles` or `dry_fraction`. `group` is None where the statistic is always computed, else the
    name by which it is asked for.
    """

    name: str
    reduce: Callable[[Case], Sums]
    min_members: int = 1
    climate: str | None = None
    axes: tuple[str, ...] = ()
    group: str | None = None


def _mean_anomaly(case: Case) -> Field:
    return case.moments.error + _true_anomaly(case)


def _true_anomaly(case: Case) -> Field:
    return case.truth - case.climate["mean"]


def _power(group: str, transform: Callable[[Case, Tensor], Sums], axis: str) -> Iterable[Statistic]:
    """Returns the spectra of the members (averaged), of the ensemble mean and of the truth."""
    sources: dict[str, Callable[[Case], Tensor]] = {
        "members": lambda case: case.members,
        "mean": lambda case: (case.truth + case.moments.error)[None],
        "truth": lambda case: case.truth[None],
    }
    for name, fields in sources.items():
        yield Statistic(
            f"{group}_power_{name}",
            lambda case, fields=fields: transform(case, fields(case)),  # type: ignore[misc]
            axes=(axis,),
            group=f"{group}_spectra",
        )


STATISTICS = {
    statistic.name: statistic
    for statistic in (
        Statistic("error", lambda case: case.area.sum(case.moments.error)),
        Statistic("absolute_error", lambda case: case.area.sum(case.moments.error.abs())),
        Statistic("squared_error", lambda case: case.area.sum(case.moments.error.square())),
        Statistic("variance", lambda case: case.area.sum(case.moments.variance), min_members=2),
        Statistic("member_error", lambda case: case.area.sum(case.moments.member_error)),
        Statistic("member_difference", lambda case: case.area.sum(case.moments.member_difference), min_members=2),
        Statistic(
            "anomaly_product", lambda case: case.area.sum(_mean_anomaly(case) * _true_anomaly(case)), climate="mean"
        ),
        Statistic("anomaly_power", lambda case: case.area.sum(_mean_anomaly(case).square()), climate="mean"),
        Statistic("true_anomaly_power", lambda case: case.area.sum(_true_anomaly(case).square()), climate="mean"),
        Statistic("rank_histogram", rank_histogram, axes=("rank",), group="ranks"),
        Statistic("event_table", event_table, climate="quantiles", axes=("quantile", "event", "count"), group="events"),
        Statistic("tail_error", tail_error, climate="quantiles", axes=("quantile",), group="tails"),
        Statistic(
            "tail_difference",
            tail_difference,
            min_members=2,
            climate="quantiles",
            axes=("quantile",),
            group="tails",
        ),
        Statistic("energy_error", energy_error, group="energy"),
        Statistic("energy_difference", energy_difference, min_members=2, group="energy"),
        Statistic("seeps_score", seeps, climate="dry_fraction", group="seeps"),
        Statistic("seeps_share", seeps_share, climate="dry_fraction", group="seeps"),
        *_power("zonal", zonal_power, "wavenumber"),
        *_power("spherical", spherical_power, "degree"),
    )
}
GROUPS = tuple(dict.fromkeys(statistic.group for statistic in STATISTICS.values() if statistic.group))
"""What is computed on request only: it costs more than the rest together."""


def select_statistics(
    names: Sequence[str] | None, *, members: int | float, climatology: Sequence[str] = ()
) -> tuple[Statistic, ...]:
    """Returns the statistics of the given names or groups; without names, those that always are computed.

    By name, a statistic must be possible. Of a group, and without names, those are taken that so many members and the
    parts of the climatology (`Climatology.parts`) allow. `default` stands for what is taken without names.

    Raises:
        ValueError: a name is unknown, the statistic needs more members or a climatology, or nothing of a group can be
            computed.
    """
    if unknown := [name for name in names or () if name not in {*STATISTICS, *GROUPS, "default"}]:
        known = ", ".join(["default", *GROUPS, *STATISTICS])
        raise ValueError(f"Unknown statistics {unknown}. Known groups and statistics: {known}.")
    chosen: dict[str, Statistic] = {}
    for name in ("default",) if names is None else names:
        group = None if name == "default" else name
        some = [STATISTICS[name]] if name in STATISTICS else [s for s in STATISTICS.values() if s.group == group]
        obstacles = {s.name: _obstacle(s, members, climatology) for s in some}
        if all(obstacles.values()):
            raise ValueError(f"{' '.join(text for text in obstacles.values() if text)}")
        chosen |= {s.name: s for s in some if obstacles[s.name] is None}
    return tuple(chosen.values())


def _obstacle(statistic: Statistic, members: int | float, climatology: Sequence[str]) -> str | None:
    if members < statistic.min_members:
        return f"'{statistic.name}' needs {statistic.min_members} members, the forecast has {members:g}."
    if statistic.climate is None or statistic.climate in climatology:
        return None
    if not climatology:
        return f"'{statistic.name}' needs a climatology: pass score(..., climatology=...)."
    return f"'{statistic.name}' needs a climatology with {statistic.climate}: fit it again with quantiles."
