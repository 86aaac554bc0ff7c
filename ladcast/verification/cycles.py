"""The circles of the year and the day: days of the year, hours of the day, and what lies around a time on them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
import numpy.typing as npt
import xarray as xr

from ladcast.times import HOUR, Times, day_of_year

DAYS = 366
"""December 31 is day 365 or 366; the year closes after day 366."""
HOURS = 24


def hour_of_day(times: Times) -> npt.NDArray[np.int64]:
    """Returns the UTC hour, 0 to 23."""
    hours: npt.NDArray[np.int64] = (times.astype("datetime64[ns]") - times.astype("datetime64[D]")) // HOUR
    return hours


def day_windows(centres: npt.NDArray[np.int64], days: int) -> npt.NDArray[np.int64]:
    """Returns for each centre (a day of the year) the `days` days around it, as indices from 0: [centre, day]."""
    window: npt.NDArray[np.int64] = (centres[:, None] - 1 + np.arange(-(days // 2), days // 2 + 1)) % DAYS
    return window


def corners(ds: xr.Dataset, times: Times) -> Iterator[tuple[dict[str, xr.DataArray], xr.DataArray]]:
    """Yields the stored points around each time, as indices by dimension, with their weights, which sum to 1.

    Both circles close: the last day of the year and the first are neighbours, and so are the last hour and the first.
    A corner that no time needs is left out, so that it need not be read.
    """
    circles = [("dayofyear", _around(ds["dayofyear"].values, day_of_year(times), DAYS))]
    if "hour" in ds.dims:
        circles.append(("hour", _around(ds["hour"].values, hour_of_day(times), HOURS)))
    for sides in product((0, 1), repeat=len(circles)):
        indices, weight = {}, xr.DataArray(np.ones(len(times)), dims="time")
        for side, (dim, (before, after, fraction)) in zip(sides, circles, strict=True):
            indices[dim] = xr.DataArray(after if side else before, dims="time")
            weight = weight * (fraction if side else 1 - fraction)
        if weight.any():
            yield indices, weight


def _around(
    stored: npt.NDArray[np.generic], wanted: npt.NDArray[np.int64], period: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """Returns the indices of the stored points before and after, and how far on the way each wanted one lies."""
    points = stored.astype(np.int64)
    before = (np.searchsorted(points, wanted, side="right") - 1) % len(points)
    after = (before + 1) % len(points)
    gap = (points[after] - points[before] - 1) % period + 1
    return before, after, (wanted - points[before]) % period / gap
