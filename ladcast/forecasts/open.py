"""Opens forecasts in the WeatherBench 2 layout: of any system, one store or many, in our names; or a part of one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ladcast.checksums import check_seal
from ladcast.data.lazy import guarded
from ladcast.data.lexicon import canonical_names, check_units
from ladcast.fields import VARIABLES
from ladcast.files import is_zarr
from ladcast.forecasts.engine import CACHE_BYTES, LatentEngine
from ladcast.forecasts.manifest import is_latent_store
from ladcast.forecasts.options import Bounds, Selection
from ladcast.grid import TOLERANCE_DEG, eastward
from ladcast.times import HOUR, describe, parse_time

DIMENSIONS = {
    "prediction_timedelta": ("lead_time", "step"),
    "number": ("realization", "sample", "member"),
    "time": ("init_time", "forecast_reference_time"),
}
"""Ours, and what others call them."""
FORECAST_AXES = ("time", "prediction_timedelta", "number")
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
        return guarded(forecast, str(path))
    if path.exists():
        raise ValueError(
            f"{path} exists, but is no forecast store: expected a folder in Zarr, such as `ladcast forecast` writes. "
            f"Of what was exported, name the store that it came from."
        )
    hint = f" It is unfinished. {GO_ON}" if path.with_name(f"{path.name}.partial").is_dir() else ""
    raise FileNotFoundError(f"No forecast at {path}.{hint}")


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
    longitude = ds["longitude"]
    ds = ds.assign_coords(
        latitude=ds["latitude"].astype(np.float64), longitude=longitude.copy(data=eastward(longitude.values))
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


def open_part(source: Path, selection: Selection, *, times: Sequence[str] = (), **decoding: Any) -> xr.Dataset:
    """Opens a part of a forecast lazily, be it of fields or of latents.

    Of latents, only the variables wanted are kept, and the cache holds the members wanted of one lead time, so that
    no frame is decoded twice when all variables of one lead time are read after each other.

    Raises:
        ValueError: the forecast has no such part.
    """

    def opened(**options: Any) -> xr.Dataset:
        whole = open_forecast(source, **decoding, **options)
        if missing := [dim for dim in FORECAST_AXES if dim not in whole.dims]:
            raise ValueError(
                f"{source} lacks the dimensions {', '.join(missing)} of an ensemble forecast: it has "
                f"{', '.join(map(str, whole.dims))}. Give a store that `ladcast forecast` wrote."
            )
        return select(_at_times(_northward(whole), times, source), selection)

    part = opened()
    if not is_latent_store(source):
        return part
    # Opening decodes nothing, and only what is open says which variables and members the part has.
    one_frame = open_forecast(source, **decoding).isel(time=0, prediction_timedelta=0, number=0)
    needed = part.sizes["number"] * sum(one_frame[name].nbytes for name in part.data_vars)
    unwanted = [name for name in one_frame.data_vars if name not in part.data_vars]
    return opened(drop_variables=unwanted, cache_bytes=max(needed, CACHE_BYTES))


def _northward(forecast: xr.Dataset) -> xr.Dataset:
    """Returns a forecast, lazily, with rows from south to north, as ours are; those of others often run southward."""
    rows = forecast["latitude"].values if "latitude" in forecast.dims else np.empty(0)
    return forecast.isel(latitude=slice(None, None, -1)) if (np.diff(rows) < 0).any() else forecast


def select(forecast: xr.Dataset, selection: Selection) -> xr.Dataset:
    """Returns a part of a forecast lazily, in the order asked for; what is not named stays whole.

    Raises:
        ValueError: something is not in the forecast; the message lists what is.
    """
    if selection.variables:
        forecast = forecast[_names(forecast, selection.variables)]
    wanted: dict[str, Sequence[Any]] = {
        "level": selection.levels,
        "prediction_timedelta": [np.timedelta64(lead, "h").astype("timedelta64[ns]") for lead in selection.leads],
        "number": selection.members,
    }
    for dim, values in wanted.items():
        if len(values) and dim in forecast.dims:  # surface variables alone have no levels
            forecast = forecast.isel({dim: _positions(forecast[dim], values)})
    region = selection.bounds
    return forecast if region is None else crop(forecast, region)


def crop(forecast: xr.Dataset, region: Bounds) -> xr.Dataset:
    """Returns the points within a region, edges included; longitudes run eastward from its western edge.

    Raises:
        ValueError: the region is none, or has no points.
    """
    west, south, east, north = region
    if not (-90 <= south < north <= 90 and -360 <= west <= 360 and -360 <= east <= 360):
        raise ValueError(f"Expected a region as west,south,east,north in degrees such as -10,35,30,70, got {region}.")
    width = 360.0 if abs(east - west) >= 360 else (east - west) % 360
    latitude, longitude = forecast["latitude"].values, forecast["longitude"].values
    rows = np.flatnonzero((latitude >= south - TOLERANCE_DEG) & (latitude <= north + TOLERANCE_DEG))
    offset = (longitude - west + TOLERANCE_DEG) % 360 - TOLERANCE_DEG
    columns = np.flatnonzero(offset <= width + TOLERANCE_DEG)
    columns = columns[np.argsort(offset[columns])]
    if not rows.size or not columns.size:
        raise ValueError(f"No points of the grid lie in the region {region}. Choose a larger one.")
    unwrapped = west + offset[columns]
    part = forecast.isel(latitude=rows, longitude=columns)
    described = forecast["longitude"].attrs
    return part.assign_coords(longitude=("longitude", np.round(unwrapped - 360 * (unwrapped[0] >= 180), 6), described))


def _names(forecast: xr.Dataset, variables: Sequence[str]) -> list[str]:
    full = {about.short: name for name, about in VARIABLES.items()}
    names = [full.get(name, name) for name in variables]
    missing = [name for name in names if name not in forecast.data_vars]
    if missing:
        known = [str(name) for name in forecast.data_vars if name in VARIABLES]
        there = ", ".join(f"{name} ({VARIABLES[name].short})" for name in known)
        raise ValueError(f"The forecast has no variable {', '.join(missing)}; it has {there}.")
    return list(dict.fromkeys(names))


def _positions(coordinate: xr.DataArray, wanted: Sequence[Any]) -> list[int]:
    there = coordinate.values.tolist()
    values = list(dict.fromkeys(np.asarray(wanted, dtype=coordinate.dtype).tolist()))
    missing = [value for value in values if value not in there]
    if missing:
        raise ValueError(
            f"The forecast has no {coordinate.name} {_list(missing, coordinate)}; it has {_list(there, coordinate)}."
        )
    return [there.index(value) for value in values]


def _list(values: list[Any], coordinate: xr.DataArray) -> str:
    if coordinate.dtype.kind == "m":
        hours = np.asarray(values, dtype=coordinate.dtype) / HOUR
        return ", ".join(f"{hour:g} h" for hour in hours)
    return ", ".join(map(str, values))


def _at_times(forecast: xr.Dataset, times: Sequence[str], source: Path) -> xr.Dataset:
    if not times:
        return forecast
    wanted, there = np.array([parse_time(time) for time in times]), forecast["time"].values
    missing = np.setdiff1d(wanted, there)
    if missing.size:
        raise ValueError(f"{source} has no forecast from {describe(missing)}; it has {describe(there, limit=8)}.")
    return forecast.sel(time=wanted)
