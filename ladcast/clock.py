"""Times for tensors: seconds since 1970, and how far the year and the day have come."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ladcast.times import Times

DAYS_IN_400_YEARS, DAYS_FROM_MARCH_0000, DAYS_FROM_MARCH_TO_JANUARY = 146_097, 719_468, 306
"""Of the Gregorian calendar; the second counts from 1 March of the year 0 to 1970-01-01."""


def to_epoch_seconds(times: Times | np.datetime64) -> Int[Tensor, " batch"]:
    """Converts times to whole seconds since 1970-01-01 UTC; a single time becomes a batch of one."""
    return torch.from_numpy(np.atleast_1d(times).astype("datetime64[s]").astype(np.int64))


def year_progress(seconds: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """Returns the fraction of the calendar year that has passed, in [0, 1), as float64.

    Arithmetic of the Gregorian calendar on the tensor itself, without a table: a compiled network holds it too.
    """
    days = seconds // 86400 + DAYS_FROM_MARCH_0000
    # The mean length of a year is off by one year at most: of the three, the last that has begun.
    year = days * 400 // DAYS_IN_400_YEARS - 1
    year = year + (_march_first(year + 1) <= days).long() + (_march_first(year + 2) <= days).long()
    year = year + (days - _march_first(year) >= DAYS_FROM_MARCH_TO_JANUARY).long()
    first, following = (_march_first(y - 1) + DAYS_FROM_MARCH_TO_JANUARY for y in (year, year + 1))
    elapsed = seconds - (first - DAYS_FROM_MARCH_0000) * 86400
    return elapsed.double() / ((following - first) * 86400)


def _march_first(year: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
    """Returns the days from 1 March of the year 0 to that of `year`: leap days are the last of such years."""
    return 365 * year + year // 4 - year // 100 + year // 400


def day_progress(seconds: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """Returns the fraction of the UTC day that has passed, in [0, 1), as float64."""
    return (seconds % 86400).double() / 86400
