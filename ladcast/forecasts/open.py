"""Opens forecasts of any system in the WeatherBench 2 layout: one store or many, in our order and names."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from ladcast.checksums import check_seal
from ladcast.data.lazy import LazyField, as_slice, lazy_variable
from ladcast.data.lexicon import canonical_names, check_units
from ladcast.fields import VARIABLES
from ladcast.files import is_zarr
from ladcast.forecasts.engine import LatentEngine
from ladcast.forecasts.manifest import is_latent_store

DIMENSIONS = {
    "prediction_timedelta": ("lead_time", "step"),
    "number": ("realization", "sample", "member"),
    "time": ("init_time", "forecast_reference_time"),
}
"""Ours, and what others call them."""
GO_ON = "Run the same `ladcast forecast` again to go on."


def open_forecast(path: Path, **decoding: Any) -> xr.Dataset:
    """Opens a forecast store lazily: of fields, or of latents, to which `decoding` applies (see `LatentEngine`).

    Raises:
        FileNotFoundError: there is none; where an unfinished one lies beside it, the message says how to go on.
        ValueError: what is there is unfinished, or no forecast store.
    """
    if is_latent_store(path):
        return xr.open_dataset(path, engine=LatentEngine, **decoding)
    if path.suffix == ".partial":
        raise ValueError(f"{path} is unfinished. {GO_ON}")
    if is_zarr(path):
        check_seal(path)
        forecast: xr.Dataset = xr.open_zarr(path, chunks=None, decode_timedelta=True)
        return forecast.assign({name: _guarded(field, path) for name, field in forecast.data_vars.items()})
    if path.exists():
        raise ValueError(
            f"{path} exists, but is no forecast store: expected a folder in Zarr, such as `ladcast forecast` writes. "
            f"Of what was exported, name the store that it came from."
        )
    hint = f" It is unfinished. {GO_ON}" if path.with_name(f"{path.name}.partial").is_dir() else ""
    raise FileNotFoundError(f"No forecast at {path}.{hint}")


def _guarded(field: xr.DataArray, path: Path) -> xr.Variable:
    """Returns a stored field whose damage ends in an error that names it."""
    read = partial(_read, field.variable, f"{path}: {field.name}")  # pickles
    return lazy_variable(
        [str(dim) for dim in field.dims], LazyField(field.shape, read, field.dtype), field.attrs, field.encoding
    )


def _read(stored: xr.Variable, where: str, *points: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    try:
        values: npt.NDArray[Any] = stored[tuple(map(as_slice, points))].values
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(f"{where} is damaged ({error}). Copy the store again, or make it again.") from error
    return values


def open_system(paths: Sequence[Path]) -> xr.Dataset:
    """Opens the stores of one system as one forecast, lazily, from south to north and eastward from 0 degrees.

    Raises:
        FileNotFoundError: a store is not there.
        ValueError: a dimension is missing, units differ from ours, or an initial time is in two stores.
    """
    stores = [in_our_layout(open_forecast(path), str(path)) for path in paths]
    if len(stores) == 1:
        return stores[0]
    init_times = np.concatenate([ds["time"].values for ds in stores])
    if len(np.unique(init_times)) < len(init_times):
        raise ValueError(f"{paths[0]} and others hold the same initial time twice. Give each of them once.")
    together: xr.Dataset = xr.concat(
        [ds.chunk() for ds in stores],
        dim="time",
        join="exact",
        data_vars="minimal",
        coords="minimal",
        compat="override",
    )
    return together.sortby("time")


def in_our_layout(ds: xr.Dataset, where: str) -> xr.Dataset:
    """Renames dimensions and variables, checks units, orders rows and columns; drops valid times, which follow."""
    ds = canonical_names(ds.drop_vars("valid_time", errors="ignore"))
    held = {theirs: ours for ours, names in DIMENSIONS.items() for theirs in names if theirs in ds.dims}
    ds = ds.rename({theirs: ours for theirs, ours in held.items() if ours not in ds.variables})
    if missing := [dim for dim in ("time", "prediction_timedelta", "latitude", "longitude") if dim not in ds.dims]:
        raise ValueError(f"{where}: expected a forecast in the WeatherBench 2 layout, which lacks {missing}.")
    if ds["prediction_timedelta"].dtype.kind != "m":
        raise ValueError(f"{where}: expected lead times as timedelta, got {ds['prediction_timedelta'].dtype}.")
    check_units(ds, where)
    return in_our_order(ds[[name for name in VARIABLES if name in ds]])


def in_our_order(ds: xr.Dataset) -> xr.Dataset:
    """Orders rows from south to north and columns eastward from 0 degrees."""
    ds = ds.assign_coords(
        latitude=ds["latitude"].astype(np.float64), longitude=ds["longitude"].astype(np.float64) % 360
    )
    for name in ("latitude", "longitude"):
        if (np.diff(ds[name].values) < 0).any():
            ds = ds.sortby(name)
    return ds


def find_stores(pattern: str) -> list[Path]:
    """Returns the stores that a path or a pattern with * names; raises FileNotFoundError where there are none."""
    path = Path(pattern)
    found = sorted(Path(path.anchor or ".").glob(str(path.relative_to(path.anchor)))) if "*" in pattern else [path]
    if not found:
        raise FileNotFoundError(f"Nothing matches {pattern}.")
    return found


def parse_system(text: str) -> tuple[str, list[Path]]:
    """Reads NAME=STORE; raises ValueError that shows the expected form."""
    name, equals, pattern = text.partition("=")
    if not (name and equals and pattern):
        raise ValueError(f"Expected another system as NAME=STORE such as ifs=ifs_ens.zarr, got '{text}'.")
    return name, find_stores(pattern)
