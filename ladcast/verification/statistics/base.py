"""What a statistic, an axis of it and a metric are. Each file beside this one holds a family of both."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ladcast.verification.case import AreaSums, Case

FloatArray = npt.NDArray[np.float64]
Means = Mapping[str, FloatArray]
"""The mean of each statistic over area and initial times."""
Compute = Callable[[Means, int | float], FloatArray]


@dataclass(frozen=True)
class Axis:
    """An axis that a statistic has beside region and level, with its description and its coordinate in files.

    `coordinate` returns the labels of an axis of some length. Labels that the length does not tell, such as the
    probabilities of quantiles, come from `Accumulator.axes`.
    """

    name: str
    long_name: str
    coordinate: Callable[[int], Sequence[int | float]] = range


@dataclass(frozen=True)
class Statistic:
    """A function from a case to sums over regions, with what the function needs.

    A statistic may be added over any chunks of cases; what may not, such as a root or a ratio, is a metric. `axes` are
    the dimensions of the result after (region, level). `climate` names the part of a climatology that is needed:
    `mean`, `quantiles` or `dry_fraction`. `group` is None where the statistic is always computed, else the name by
    which it is asked for. An `additive` statistic of a vector is the sum over its components; any other one is NaN.
    """

    name: str
    reduce: Callable[[Case], AreaSums]
    min_members: int = 1
    climate: str | None = None
    axes: tuple[Axis, ...] = ()
    group: str | None = None
    additive: bool = False


@dataclass(frozen=True)
class Metric:
    """A function of mean statistics and of the number of members, which is infinite for a full distribution.

    Means have shape [..., channel, lead, *axes of the statistic]; the result has [..., channel, lead, *axes]. `units`
    says whether the values have the field's units, their square, or none. A metric `per_start` is computed from the
    means of each initial time and then averaged. `better` says which values are good, where one can say so. `section`
    is the title under which the text table shows the metric; of several with one title, the first that a system has.
    """

    name: str
    long_name: str
    needs: tuple[str, ...]
    compute: Compute
    units: Literal["field", "field squared", "1"] = "field"
    axes: tuple[Axis, ...] = ()
    per_start: bool = False
    better: Literal["low", "high", "none"] = "none"
    section: str | None = None


def mean_of(name: str) -> Compute:
    """Returns the metric that is the mean of a statistic."""
    return lambda means, _: means[name]


def root_of(name: str) -> Compute:
    """Returns the metric that is the square root of the mean of a statistic."""
    return lambda means, _: np.sqrt(means[name])


def fair_score(error: str, difference: str) -> Compute:
    """Returns a fair kernel score: the mean distance from the truth minus half of that between two members."""
    return lambda means, _: means[error] - means[difference] / 2


def ratio(numerator: npt.NDArray[Any], denominator: npt.NDArray[Any]) -> FloatArray:
    """Divides; NaN where the denominator is not positive: an estimate of a mean square may fall below zero."""
    numerator, denominator = np.broadcast_arrays(numerator, denominator)
    unknown = np.full(numerator.shape, np.nan)
    return np.asarray(np.divide(numerator, denominator, out=unknown, where=denominator > 0))
