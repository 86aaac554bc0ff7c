"""The distribution of a climatology: quantiles of every variable, and of precipitation what SEEPS needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import xarray as xr
from jaxtyping import Float

from ladcast.fields import find_variable
from ladcast.times import day_of_year
from ladcast.verification.cycles import day_windows
from ladcast.verification.precipitation import DRY_M, WET_QUANTILE

QUANTILE, DRY_FRACTION, WET_THRESHOLD = "_quantile", "_seeps_dry_fraction", "_seeps_threshold"
"""Suffixes; the last two are those of WeatherBench 2."""
DRY_LIMIT = "dry_limit_m"
"""Attribute of a fitted dry fraction: what amount counted as dry."""

Fields = Float[np.ndarray, "..."]


def fit_distribution(
    field: xr.DataArray, centres: npt.NDArray[np.int64], days: int, quantiles: Sequence[float]
) -> dict[str, xr.DataArray]:
    """Returns the quantiles of the frames in each window, and of precipitation dry fraction and wet threshold.

    `field` has (time[, level], latitude, longitude). Where every frame is NaN, so is the quantile; else NaN is left
    out. What is held at once is one window of one level.
    """
    attrs = {"units": field.attrs["units"]} if "units" in field.attrs else {}
    levels = np.sort(np.asarray(quantiles))

    def quantiles_of(frames: Fields) -> Fields:
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
    field: xr.DataArray, centres: npt.NDArray[np.int64], days: int, reduce: Callable[[Fields], Fields]
) -> xr.DataArray:
    """Applies `reduce` (time, ...) -> (kind, ...) to the frames in the window around each centre."""
    ordered = field.transpose("time", ...)
    day = day_of_year(ordered["time"].values) - 1
    values = np.stack(
        [_reduce(ordered.isel(time=np.isin(day, window)), reduce) for window in day_windows(centres, days)]
    )
    dims = ("dayofyear", "kind", *ordered.dims[1:])
    coords = {"dayofyear": centres} | {dim: ordered[dim].values for dim in dims[2:] if dim in ordered.coords}
    return xr.DataArray(values, coords, dims)


def _reduce(frames: xr.DataArray, reduce: Callable[[Fields], Fields]) -> Fields:
    """Reads and reduces one level after the other."""
    if "level" not in frames.dims:
        return reduce(frames.values)
    axis = frames.get_axis_num("level")
    parts = [reduce(frames.isel(level=[level]).values) for level in range(frames.sizes["level"])]
    return np.concatenate(parts, axis)


def _nan_quantile(frames: Fields, levels: npt.NDArray[np.float64]) -> Fields:
    """Leaves NaN out, without the warning of NumPy where nothing else is there."""
    empty = np.isnan(frames).all(0)
    values: Fields = np.nanquantile(np.where(empty, 0, frames), levels, axis=0)
    return np.where(empty, np.nan, values)


def _dry_and_wet(frames: Fields) -> Fields:
    """Returns how often it is dry, and the amount that a third of the wet frames exceed; never wet: the dry limit."""
    dry = frames <= DRY_M
    amounts = _nan_quantile(np.where(dry, np.nan, frames), np.array([WET_QUANTILE]))[0]
    return np.stack([dry.mean(0), np.nan_to_num(amounts, nan=DRY_M)]).astype(np.float32)
