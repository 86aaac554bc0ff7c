"""A climatology by day of the year, and by hour of the day where it has them: read at any valid time, and fitted.

Days of the year and hours of the day are circles: what lies around a time may be on the other side of the seam.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import product
from operator import add

import numpy as np
import numpy.typing as npt
import xarray as xr
from jaxtyping import Float

from ladcast.fields import MASKED_ON_LAND, find_variable
from ladcast.times import HOUR, Times, day_of_year, describe
from ladcast.verification.statistics.base import FloatArray
from ladcast.verification.statistics.categories import DRY_M, WET_QUANTILE

STD, QUANTILE, DRY_FRACTION, WET_THRESHOLD = "_std", "_quantile", "_seeps_dry_fraction", "_seeps_threshold"
SUFFIXES = {"std": STD, "quantiles": QUANTILE, "dry_fraction": DRY_FRACTION, "wet_threshold": WET_THRESHOLD}
"""Of the names of variables, by part; the last two are those of WeatherBench 2. Means have none."""
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

    def at(self, part: str, times: Times, variables: Sequence[str] | None = None) -> xr.Dataset:
        """Interpolates a part linearly to the day and hour of each time: (time[, level], latitude, longitude).

        A part is `mean`, `std`, `quantiles` (with the dimension `quantile`), `dry_fraction`, how often it is dry, or
        `wet_threshold`, the amount between light and heavy precipitation. `variables` are those wanted, all by default;
        one that the climatology lacks is left out.

        Raises:
            ValueError: the dry fraction was fitted with another limit than `DRY_M`; files of our own without the limit
                had 0.25 mm.
        """
        held = self.part(part)
        assumed = 0.25e-3 if "window_days" in self.dataset.attrs else DRY_M
        for name, field in held.items() if part == "dry_fraction" else ():
            limit = field.attrs.get(DRY_LIMIT, assumed)
            if not np.isclose(limit, DRY_M, atol=0):
                raise ValueError(
                    f"'{name}{DRY_FRACTION}' counts up to {1e3 * limit:g} mm as dry, SEEPS {1e3 * DRY_M:g} mm. Fit the "
                    "climatology again with `ladcast-data climatology`."
                )
        wanted = held if variables is None else held.drop_vars([name for name in held if name not in variables])
        if not wanted.data_vars:
            return wanted
        # corner by corner: a lazy store is read at the points that are needed, and nowhere else
        corners = (wanted.isel(at).drop_vars([*at]) * weight for at, weight in _corners(self.dataset, times))
        return reduce(add, corners).assign_coords(time=times)

    def part(self, part: str) -> xr.Dataset:
        """Returns the fields of one part, named as the means."""
        if part == "mean":
            others = tuple(SUFFIXES.values())
            return self.dataset[[name for name in self.dataset.data_vars if not str(name).endswith(others)]]
        names = [str(name) for name in self.dataset.data_vars if str(name).endswith(SUFFIXES[part])]
        return xr.Dataset({name.removesuffix(SUFFIXES[part]): self.dataset[name] for name in names})


def _require_increasing(name: str, values: npt.NDArray[np.generic], first: int, last: int) -> None:
    points = values.astype(np.int64)
    if not points.size or points[0] < first or points[-1] > last or (np.diff(points) <= 0).any():
        raise ValueError(f"'{name}' must increase within {first}..{last}, got {values}.")


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
    return np.asarray((times.astype("datetime64[ns]") - times.astype("datetime64[D]")) // HOUR)


READ_AT_ONCE_BYTES = 64 * 2**20

Samples = Float[np.ndarray, "..."]


def fit_climatology(
    ds: xr.Dataset, *, days: int = 61, step: int = 5, hourly: bool = False, quantiles: Sequence[float] = ()
) -> xr.Dataset:
    """Computes mean and standard deviation over all years in a window of `days` around every `step`-th day.

    `ds` has (time[, level], latitude, longitude) and is read once, in chunks of time; the result does not
    depend on the chunks. NaN is left out of the sea surface temperature, cell by cell. `hourly` keeps the hours of the
    day apart, as the dimension `hour`; else all are taken together. `quantiles` also fits these, and what SEEPS needs
    of the precipitation; frames are then read once for each window that they are in.

    Raises:
        ValueError: `days` is even or not in 1..366, another variable has a NaN, or a window holds fewer than
            two frames.
    """
    if not (1 <= days <= DAYS and days % 2 and 1 <= step <= DAYS):
        raise ValueError(f"Expected an odd window of 1..{DAYS} days and a step of 1..{DAYS}, got {days} and {step}.")
    if not all(0 < quantile < 1 for quantile in quantiles):
        raise ValueError(f"Expected quantiles between 0 and 1, got {list(quantiles)}.")
    centres = np.arange(1, DAYS + 1, step)
    times = ds["time"].values
    attrs = {"window_days": days, "first_time": describe(times[0]), "last_time": describe(times[-1])}
    hours = hour_of_day(times)
    if not hourly:
        return _fit(ds, centres, days, quantiles).assign_attrs(attrs)
    stored = np.unique(hours)
    each = [_fit(ds.isel(time=hours == hour), centres, days, quantiles) for hour in stored]
    return xr.concat(each, xr.DataArray(stored, dims="hour", name="hour")).assign_attrs(attrs)


def _fit(ds: xr.Dataset, centres: npt.NDArray[np.int64], days: int, quantiles: Sequence[float]) -> xr.Dataset:
    fields = {}
    for name in (name for name in ds.data_vars if "time" in ds[name].dims):
        mean, std = _fit_field(ds[name], centres, days)
        attrs = _kept(ds[name])
        fields[str(name)], fields[f"{name}{STD}"] = mean.assign_attrs(attrs), std.assign_attrs(attrs)
        if quantiles:
            fields |= _fit_distribution(ds[name], centres, days, quantiles)
    return xr.Dataset(fields)


def _kept(field: xr.DataArray) -> dict[str, str]:
    """Returns what a climatology says of the fields that it is of: units, and whether they are means over time."""
    return {name: field.attrs[name] for name in ("units", "cell_methods") if name in field.attrs}


def _fit_field(field: xr.DataArray, centres: npt.NDArray[np.int64], days: int) -> tuple[xr.DataArray, xr.DataArray]:
    ordered = field.transpose("time", ...)
    # sums are taken about the first state: squares of full fields would cancel
    reference = np.nan_to_num(ordered.isel(time=0).values.astype(np.float64))
    window = _day_windows(centres, days)
    count, first, second = (np.stack([daily[w].sum(0) for w in window]) for daily in _daily_sums(ordered, reference))
    most = count.reshape(len(centres), -1).max(1)
    if empty := centres[most < 2].tolist():
        raise ValueError(
            f"'{field.name}' has fewer than two frames within {days // 2} days of the days of year {empty}. "
            "Fit the climatology to whole years, or widen the window."
        )
    count = np.where(count == 0, np.nan, count)
    anomaly = first / count
    square = (second - count * anomaly**2) / np.where(count == 1, np.nan, count - 1)
    dims = ("dayofyear", *ordered.dims[1:])
    coords = {"dayofyear": centres} | {dim: ordered[dim].values for dim in dims[1:] if dim in ordered.coords}
    mean = xr.DataArray((reference + anomaly).astype(np.float32), coords, dims)
    return mean, mean.copy(data=np.sqrt(square.clip(0)).astype(np.float32))


def _daily_sums(field: xr.DataArray, reference: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Returns count, sum and sum of squares of field minus reference for each day of the year.

    Frames are added one by one in order of time, so chunks do not change a bit of the result; the reference
    keeps the sum of squares small.
    """
    count, first, second = (np.zeros((DAYS, *reference.shape)) for _ in range(3))
    for times, values in _chunks(field):
        present = ~np.isnan(values)
        if field.name not in MASKED_ON_LAND and not present.all():
            bad = times[~present.reshape(len(times), -1).all(1)]
            raise ValueError(
                f"'{field.name}' has NaN at {describe(bad)}; only '{', '.join(MASKED_ON_LAND)}' may. "
                "Repair or cut the store."
            )
        anomaly = np.where(present, values - reference, 0.0)
        for day, here, value, square in zip(day_of_year(times) - 1, present, anomaly, anomaly**2, strict=True):
            count[day] += here
            first[day] += value
            second[day] += square
    return count, first, second


def stored_chunk(field: xr.DataArray, dim: str) -> int:
    """Returns the length of a field's chunks along a dimension, as they are stored or were opened; 1 where unknown."""
    stored = field.encoding.get("preferred_chunks", {}).get(dim, 1)
    return int(max(field.chunksizes.get(dim, (stored,))))


def _chunks(field: xr.DataArray) -> Iterator[tuple[Times, Float[np.ndarray, "time ..."]]]:
    """Reads consecutive times, in whole stored chunks where they fit `READ_AT_ONCE_BYTES`."""
    num_times = field.sizes["time"]
    length = int(max(READ_AT_ONCE_BYTES * num_times // max(field.nbytes, 1), 1))
    stored = stored_chunk(field, "time")
    length -= length % stored if stored < length else 0
    for first in range(0, num_times, length):
        some = field.isel(time=slice(first, first + length))
        yield some["time"].values, some.values


def _fit_distribution(
    field: xr.DataArray, centres: npt.NDArray[np.int64], days: int, quantiles: Sequence[float]
) -> dict[str, xr.DataArray]:
    """Returns the quantiles of the frames in each window, and of precipitation dry fraction and wet threshold.

    `field` has (time[, level], latitude, longitude). Where every frame is NaN, so is the quantile; else NaN is left
    out. What is held at once is one window of one level.
    """
    attrs = _kept(field)
    levels = np.sort(np.asarray(quantiles))

    def quantiles_of(frames: Samples) -> Samples:
        with_gap = np.isnan(frames).any()
        values = _nan_quantile(frames, levels) if with_gap else np.quantile(frames, levels, axis=0)
        return values.astype(np.float32)

    spread = _over_windows(field, centres, days, quantiles_of)
    fitted = {f"{field.name}{QUANTILE}": spread.rename(kind="quantile").assign_coords(quantile=levels)}
    if find_variable(field.name).accumulated_hours:
        seeps = _over_windows(field, centres, days, _dry_and_wet)
        fitted[f"{field.name}{DRY_FRACTION}"] = seeps.isel(kind=0)
        fitted[f"{field.name}{WET_THRESHOLD}"] = seeps.isel(kind=1)
    return {
        name: values.assign_attrs({DRY_LIMIT: DRY_M} if name.endswith(DRY_FRACTION) else attrs)
        for name, values in fitted.items()
    }


def _over_windows(
    field: xr.DataArray, centres: npt.NDArray[np.int64], days: int, reduce: Callable[[Samples], Samples]
) -> xr.DataArray:
    """Applies `reduce` (time, ...) -> (kind, ...) to the frames in the window around each centre."""
    ordered = field.transpose("time", ...)
    day = day_of_year(ordered["time"].values) - 1
    values = np.stack(
        [_reduce(ordered.isel(time=np.isin(day, window)), reduce) for window in _day_windows(centres, days)]
    )
    dims = ("dayofyear", "kind", *ordered.dims[1:])
    coords = {"dayofyear": centres} | {dim: ordered[dim].values for dim in dims[2:] if dim in ordered.coords}
    return xr.DataArray(values, coords, dims)


def _reduce(frames: xr.DataArray, reduce: Callable[[Samples], Samples]) -> Samples:
    """Reads and reduces one level after the other."""
    if "level" not in frames.dims:
        return reduce(frames.values)
    axis = frames.get_axis_num("level")
    parts = [reduce(frames.isel(level=[level]).values) for level in range(frames.sizes["level"])]
    return np.concatenate(parts, axis)


def _nan_quantile(frames: Samples, levels: npt.NDArray[np.float64]) -> Samples:
    """Leaves NaN out, without the warning of NumPy where nothing else is there."""
    empty = np.isnan(frames).all(0)
    values: Samples = np.nanquantile(np.where(empty, 0, frames), levels, axis=0)
    return np.where(empty, np.nan, values)


def _dry_and_wet(frames: Samples) -> Samples:
    """Returns how often it is dry, and the amount that a third of the wet frames exceed; never wet: the dry limit."""
    dry = frames <= DRY_M
    amounts = _nan_quantile(np.where(dry, np.nan, frames), np.array([WET_QUANTILE]))[0]
    return np.stack([dry.mean(0), np.nan_to_num(amounts, nan=DRY_M)]).astype(np.float32)


def _day_windows(centres: npt.NDArray[np.int64], days: int) -> npt.NDArray[np.int64]:
    """Returns for each centre (a day of the year) the `days` days around it, as indices from 0: [centre, day]."""
    return np.asarray((centres[:, None] - 1 + np.arange(-(days // 2), days // 2 + 1)) % DAYS)
