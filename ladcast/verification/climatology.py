"""A climatology by day of the year, and where it has them by hour of the day, read at any valid time.

Days of the year and hours of the day are circles: what lies around a time may be on the other side of the seam.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
import numpy.typing as npt
import xarray as xr

from ladcast.times import HOUR, Times, day_of_year
from ladcast.verification.statistics.events import DRY_M

STD, QUANTILE, DRY_FRACTION, WET_THRESHOLD = "_std", "_quantile", "_seeps_dry_fraction", "_seeps_threshold"
"""Suffixes; the last two are those of WeatherBench 2."""
DRY_LIMIT = "dry_limit_m"
"""Attribute of a fitted dry fraction: what amount counted as dry."""
DAYS = 366
"""December 31 is day 365 or 366; the year closes after day 366."""
HOURS = 24


@dataclass(frozen=True)
class Climatology:
    """The mean and, for its own score, the standard deviation by day of the year: `<variable>`, `<variable>_std`.

    `dataset` has (dayofyear[, hour][, level], latitude, longitude); `dayofyear` and `hour` may hold every k-th day and
    hour. It may also hold `<variable>_quantile` (with the dimension `quantile`), and of the precipitation
    `_seeps_dry_fraction` and `_seeps_threshold`: WeatherBench 2 climatologies can be read. Load it first if it is
    small: it is read at every look-up.

    Raises:
        ValueError: `dayofyear` is missing or does not increase within 1..366, `hour` does not increase within 0..23.
    """

    dataset: xr.Dataset

    def __post_init__(self) -> None:
        if "dayofyear" not in self.dataset.coords:
            raise ValueError(f"A climatology needs the coordinate 'dayofyear', got {list(self.dataset.coords)}.")
        _require_increasing("dayofyear", self.dataset["dayofyear"].values, 1, DAYS)
        if "hour" in self.dataset.dims:
            _require_increasing("hour", self.dataset["hour"].values, 0, HOURS - 1)

    @cached_property
    def means(self) -> xr.Dataset:
        """Returns the means by day of the year."""
        others = (STD, QUANTILE, DRY_FRACTION, WET_THRESHOLD)
        return self.dataset[[name for name in self.dataset.data_vars if not str(name).endswith(others)]]

    @cached_property
    def stds(self) -> xr.Dataset:
        """Returns the standard deviations by day of the year, named as the means."""
        return self._named(STD)

    @property
    def parts(self) -> tuple[str, ...]:
        """Says what there is: `mean`, and where it was fitted `quantiles` and `dry_fraction`."""
        parts = {"quantiles": QUANTILE, "dry_fraction": DRY_FRACTION}
        held = [part for part, suffix in parts.items() if any(str(name).endswith(suffix) for name in self.dataset)]
        return ("mean", *held)

    @property
    def probabilities(self) -> tuple[float, ...]:
        """Returns the probabilities of the quantiles, none where there are no quantiles."""
        return tuple(self.dataset["quantile"].values.tolist()) if "quantile" in self.dataset.coords else ()

    def mean_at(self, times: Times, variables: Sequence[str] | None = None) -> xr.Dataset:
        """Interpolates the means linearly to the day and hour of each time: (time[, level], latitude, longitude).

        `variables` are those wanted, all by default; one that the climatology lacks is left out.
        """
        return _at(self.means, times, variables)

    def std_at(self, times: Times, variables: Sequence[str] | None = None) -> xr.Dataset:
        """Interpolates the standard deviations as `mean_at` does."""
        return _at(self.stds, times, variables)

    def quantiles_at(self, times: Times, variables: Sequence[str] | None = None) -> xr.Dataset:
        """Interpolates the quantiles as `mean_at` does; they have the dimension `quantile`."""
        return _at(self._named(QUANTILE), times, variables)

    def dry_fraction_at(self, times: Times, variables: Sequence[str] | None = None) -> xr.Dataset:
        """Interpolates how often it is dry, as `mean_at` does.

        Raises:
            ValueError: it was fitted with another limit than `DRY_M`; files of our own without the limit had 0.25 mm.
        """
        assumed = 0.25e-3 if "window_days" in self.dataset.attrs else DRY_M
        for name in (name for name in self.dataset if str(name).endswith(DRY_FRACTION)):
            limit = self.dataset[name].attrs.get(DRY_LIMIT, assumed)
            if not np.isclose(limit, DRY_M, atol=0):
                raise ValueError(
                    f"'{name}' counts up to {1e3 * limit:g} mm as dry, SEEPS {1e3 * DRY_M:g} mm. Fit the climatology "
                    "again with `ladcast-data climatology`."
                )
        return _at(self._named(DRY_FRACTION), times, variables)

    def wet_threshold_at(self, times: Times, variables: Sequence[str] | None = None) -> xr.Dataset:
        """Interpolates the amount between light and heavy precipitation, as `mean_at` does."""
        return _at(self._named(WET_THRESHOLD), times, variables)

    def _named(self, suffix: str) -> xr.Dataset:
        """Returns the fields of one kind, named as the means."""
        names = [str(name) for name in self.dataset.data_vars if str(name).endswith(suffix)]
        return xr.Dataset({name.removesuffix(suffix): self.dataset[name] for name in names})


def _require_increasing(name: str, values: npt.NDArray[np.generic], first: int, last: int) -> None:
    points = values.astype(np.int64)
    if not points.size or points[0] < first or points[-1] > last or (np.diff(points) <= 0).any():
        raise ValueError(f"'{name}' must increase within {first}..{last}, got {values}.")


def _at(ds: xr.Dataset, times: Times, variables: Sequence[str] | None) -> xr.Dataset:
    """Interpolates linearly between stored days and hours."""
    wanted = ds if variables is None else ds.drop_vars([name for name in ds if name not in variables])
    if not wanted.data_vars:
        return wanted
    # corner by corner: a lazy store is read at the points that are needed, and nowhere else
    total: xr.Dataset | None = None
    for indices, weight in _corners(ds, times):
        part = wanted.isel(indices).drop_vars([*indices]) * weight
        total = part if total is None else total + part
    assert total is not None, "the weights of the corners sum to 1"
    return total.assign_coords(time=times)


def _corners(ds: xr.Dataset, times: Times) -> Iterator[tuple[dict[str, xr.DataArray], xr.DataArray]]:
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


def hour_of_day(times: Times) -> npt.NDArray[np.int64]:
    """Returns the UTC hour, 0 to 23."""
    hours: npt.NDArray[np.int64] = (times.astype("datetime64[ns]") - times.astype("datetime64[D]")) // HOUR
    return hours
