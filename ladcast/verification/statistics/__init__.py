"""All statistics and metrics by name. Averages come first, roots and ratios last.

A family of scores is one file in this folder: functions of a case, and one tuple of `Statistic` and `Metric` entries.
A score from outside the package is added by `register`.
"""

from __future__ import annotations

from collections.abc import Sequence

from ladcast.verification.statistics.base import Axis, FloatArray, Means, Metric, Statistic
from ladcast.verification.statistics.categories import CATEGORIES, SEEPS
from ladcast.verification.statistics.distances import DISTANCES, ENERGY, VARIOGRAM
from ladcast.verification.statistics.events import EVENTS, TAILS
from ladcast.verification.statistics.spectra import SPECTRA

__all__ = [
    "METRICS",
    "STATISTICS",
    "Axis",
    "Metric",
    "Statistic",
    "compute_metrics",
    "register",
    "select_statistics",
    "statistic_groups",
]

STATISTICS: dict[str, Statistic] = {}
METRICS: dict[str, Metric] = {}


def register(*entries: Statistic | Metric) -> None:
    """Adds statistics and metrics, which are then scored, merged, written and tabled as all others are.

    Raises:
        ValueError: a name is taken, or a metric needs a statistic that is not there.
    """
    for entry in entries:
        table: dict[str, Statistic] | dict[str, Metric] = STATISTICS if isinstance(entry, Statistic) else METRICS
        if entry.name in table:
            raise ValueError(f"There is a {type(entry).__name__} '{entry.name}' already. Choose another name.")
        if isinstance(entry, Metric) and (lacking := [name for name in entry.needs if name not in STATISTICS]):
            raise ValueError(f"The metric '{entry.name}' needs the statistics {lacking}. Register them before it.")
        table[entry.name] = entry  # type: ignore[assignment]  # the table was chosen by the type of the entry


register(*DISTANCES, *TAILS, *ENERGY, *VARIOGRAM, *SEEPS, *SPECTRA, *EVENTS, *CATEGORIES)


def statistic_groups() -> tuple[str, ...]:
    """Returns the groups that are computed on request only: each costs more than the rest together."""
    return tuple(dict.fromkeys(statistic.group for statistic in STATISTICS.values() if statistic.group))


def compute_metrics(means: Means, members: int | float, *, per_start: bool | None = None) -> dict[str, FloatArray]:
    """Returns every metric whose statistics are there. One member has no spread, so none that needs it.

    `per_start` takes only the metrics that are, or are not, computed on each initial time by itself; None takes all.
    """
    able = [metric for metric in METRICS.values() if all(name in means for name in metric.needs)]
    chosen = [metric for metric in able if per_start is None or metric.per_start == per_start]
    return {metric.name: metric.compute(means, members) for metric in chosen}


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
    groups = statistic_groups()
    if unknown := [name for name in names or () if name not in {*STATISTICS, *groups, "default"}]:
        known = ", ".join(["default", *groups, *STATISTICS])
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
