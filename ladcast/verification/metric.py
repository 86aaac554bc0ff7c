"""What a metric is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
Means = Mapping[str, Values]


@dataclass(frozen=True)
class Metric:
    """Names a function of mean statistics and of the number of members (infinite for a full distribution).

    Means have shape [..., channel, lead, *axes of the statistic]; the result has [..., channel, lead, *axes]. `units`
    says whether the values have the field's units, their square, or none. A metric `per_start` is computed from the
    means of each start and then averaged. `better` says which values are good, where one can say so.
    """

    name: str
    long_name: str
    needs: tuple[str, ...]
    compute: Callable[[Means, int | float], Values]
    units: Literal["field", "field squared", "1"] = "field"
    axes: tuple[str, ...] = ()
    per_start: bool = False
    better: Literal["low", "high", "none"] = "none"


def ratio(numerator: Values, denominator: Values) -> Values:
    """Divides; NaN where the denominator is not positive: an estimate of a mean square may fall below zero."""
    numerator, denominator = np.broadcast_arrays(numerator, denominator)
    quotient: Values = np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator > 0)
    return quotient
