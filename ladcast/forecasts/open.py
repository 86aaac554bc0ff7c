"""Opens forecasts of any system: fields or latents, Zarr, netCDF or GRIB, one store or many; or a part of one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ladcast.cf import CF_DIMENSIONS, LEAD_BOUNDS
from ladcast.checksums import check_seal
from ladcast.data.lazy import guarded
from ladcast.data.lexicon import SPOKEN, canonical_names, check_units
from ladcast.data.sources.grib import is_grib
from ladcast.data.store import open_where_present
from ladcast.documents import UNREADABLE
from ladcast.fields import VARIABLES
from ladcast.files import GO_ON, is_zarr, matching, require_forecast
from ladcast.forecasting.ensemble import FORECAST_DIMS
from ladcast.forecasts import FORECAST_AXES, WHOLE, Selection
from ladcast.forecasts.engine import CACHE_BYTES, LatentEngine
from ladcast.forecasts.manifest import is_latent_store
from ladcast.grid import TOLERANCE_DEG, Region, circles_globe, eastward, require_region
from ladcast.times import HOUR, AnyTime, describe, leads_ahead, parse_time

DIMENSIONS = {
    "prediction_timedelta": ("lead_time", "step", CF_DIMENSIONS["prediction_timedelta"]),
    "number": ("realization", "sample", "member"),
    "time": ("init_time", "forecast_reference_time"),
}
"""Ours, and what others call them, as we do in exports with CF names."""
PRESSURE = "mean_sea_level_pressure"
AnyForecast = str | os.PathLike[str] | xr.Dataset
"""The path of a forecast, or one that is opened."""


def open_forecast(forecast: AnyForecast, **decoding: Any) -> xr.Dataset:
    """Opens a forecast lazily: a store of fields, one of latents, what `ladcast export` wrote, or that of others.

    Names, dimensions and the order of rows are ours; a single member, lead time or initial time keeps its dimension.
    A dataset of a forecast is returned as it would be opened.

    Args:
        forecast: Zarr store, netCDF or GRIB file, a folder of either that make up one forecast, or a dataset of one.
        decoding: options of `LatentEngine`, such as `model` and `cache_bytes`, where latents are decoded.

    Raises:
        FileNotFoundError: there is none; where an unfinished one lies beside it, the message says how to go on.
        ValueError: what is there is unfinished, or no forecast.
    """
    if isinstance(forecast, xr.Dataset):
        return in_our_axes(forecast, _name(forecast))
    path = Path(forecast)
    if is_latent_store(path):
        return xr.open_dataset(path, engine=LatentEngine, **decoding)
    if (parts := _files_in(path)) and not is_zarr(path):
        return open_system(parts)
    if path.suffix == ".partial":
        raise ValueError(f"{path} is unfinished. {GO_ON}")
    require_forecast(path)
    opened = in_our_axes(_open_fields(path), str(path))
    if "prediction_timedelta" not in opened.dims:
        raise ValueError(
            f"{path} exists, but is no forecast: expected lead times (prediction_timedelta), got the dimensions "
            f"{', '.join(map(str, opened.dims)) or 'none'}. Name what `ladcast forecast` or `ladcast export` wrote."
        )
    return opened


def _files_in(path: Path) -> list[Path]:
    """Returns the GRIB files of a folder, or else its netCDF files."""
    files = sorted(file for file in path.iterdir() if file.name[0] != "." and file.is_file()) if path.is_dir() else []
    return [file for file in files if is_grib(file)] or [file for file in files if file.suffix in (".nc", ".nc4")]


def _open_fields(path: Path) -> xr.Dataset:
    if is_zarr(path):
        check_seal(path)
        forecast: xr.Dataset = xr.open_zarr(path, chunks=None, decode_timedelta=True)
        return guarded(forecast, str(path))
    if path.is_file() and is_grib(path):
        from ladcast.forecasts.grib import open_grib_forecast

        return open_grib_forecast([path])
    try:
        # Named, because xarray would otherwise try every engine, and cfgrib leaves an index beside the file.
        return guarded(xr.open_dataset(path, chunks=None, engine="netcdf4", decode_timedelta=True), str(path))
    except UNREADABLE as error:
        raise ValueError(
            f"{path} is no forecast: expected a Zarr store such as `ladcast forecast` writes, a netCDF or a GRIB file "
            f"({type(error).__name__}: {error})."
        ) from None


def in_our_axes(ds: xr.Dataset, where: str) -> xr.Dataset:
    """Returns a forecast under our names of dimensions, in our order; one time, lead time or member keeps its own.

    What is no forecast, such as a series of analyses, is returned as it is.
    """
    lead = next((n for n in ("prediction_timedelta", *DIMENSIONS["prediction_timedelta"]) if n in ds.variables), None)
    if lead is None:
        return ds
    has_members = any(name in ds.variables for name in ("number", *DIMENSIONS["number"]))
    # Of analyses cfgrib says `step` 0, with a `number`, and the CDS `forecast_period` 0 without.
    if ds[lead].ndim == 0 and not leads_ahead(ds[lead].values).size and (lead == "step" or not has_members):
        return ds
    if ds[lead].dims == ("time",) and "forecast_reference_time" in ds.variables:  # one axis of valid times, as for cdo
        ds = ds.swap_dims(time=lead).drop_vars("time")
    if ds[lead].dims not in ((), (lead,)):  # such as tracks
        return ds
    foreign = {
        theirs: ours
        for ours, names in DIMENSIONS.items()
        for theirs in names
        if theirs in ds.variables and ours not in ds.variables
    }
    if foreign:
        implied = ["valid_time", LEAD_BOUNDS, CF_DIMENSIONS[LEAD_BOUNDS]]
        ds = canonical_names(ds.drop_vars(implied, errors="ignore").rename(foreign), where)
    if single := [dim for dim in FORECAST_AXES if dim in ds.coords and dim not in ds.dims]:
        ds = ds.drop_vars("valid_time", errors="ignore").expand_dims(single)
    # Others have members before lead times; what products add, such as fifths, stays between members and levels.
    ds = ds.transpose(*FORECAST_DIMS[:3], ..., *FORECAST_DIMS[3:], missing_dims="ignore")
    rows, columns = (ds[dim].values if dim in ds.dims else np.empty(0) for dim in ("latitude", "longitude"))
    from_180 = (columns < -TOLERANCE_DEG).any() and circles_globe(columns)
    return in_our_order(ds) if (np.diff(rows) < 0).any() or from_180 else ds


def open_tracked(source: AnyForecast, times: Sequence[AnyTime] = (), *, regular: bool = True) -> xr.Dataset:
    """Opens what cyclones are tracked in: a forecast, from these initial times, or a series of analyses.

    Of analyses, the times at which there is a mean sea level pressure, evenly spaced unless not `regular`.
    """
    try:
        opened = in_our_axes(source, "The dataset") if isinstance(source, xr.Dataset) else open_forecast(source)
    except ValueError:  # such as GRIB analyses, which `open_store` knows
        opened = xr.Dataset()
    if "prediction_timedelta" in opened.dims and PRESSURE in opened:
        return at_times(opened, times, _name(source))
    return opened if isinstance(source, xr.Dataset) else open_where_present(Path(source), PRESSURE, regular=regular)


def open_system(paths: Sequence[AnyForecast]) -> xr.Dataset:
    """Opens the stores of one system as one forecast, lazily, from south to north and eastward from 0 degrees.

    They hold different initial times, or the same ones and different members or lead times, such as a file for each.
    GRIB files may share their fields in any way.

    Raises:
        FileNotFoundError: a store is not there.
        ValueError: a dimension is missing, units differ from ours, or two stores hold the same.
    """
    if files := _all_grib(paths):
        from ladcast.forecasts.grib import open_grib_forecast

        return in_our_layout(open_grib_forecast(files), _name(paths[0]))
    stores = [in_our_layout(open_forecast(path), _name(path)) for path in paths]
    if len(stores) == 1:
        return stores[0]
    dim = next((dim for dim in FORECAST_AXES if _differ_along(dim, stores)), None)
    if dim is None:
        raise ValueError(
            f"{_name(paths[0])} and others cannot be joined: expected files that differ in one of initial time, member "
            "and lead time, got some that differ in more than one of them, or in none. Give each file once; put those "
            "of one variable each, or of several times and members, together first (`xr.combine_by_coords`)."
        )
    together: xr.Dataset = xr.concat(
        [ds.chunk() for ds in stores],
        dim=dim,
        join="exact",
        data_vars="minimal",
        coords="minimal",
        compat="override",
    )
    return together.sortby(dim).transpose(*FORECAST_DIMS, ..., missing_dims="ignore")


def _all_grib(paths: Sequence[AnyForecast]) -> list[Path]:
    """Returns several paths where all are GRIB files, else none."""
    files = [Path(path) for path in paths if not isinstance(path, xr.Dataset) and Path(path).is_file()]
    return files if 1 < len(files) == len(paths) and all(map(is_grib, files)) else []


def _differ_along(dim: str, stores: Sequence[xr.Dataset]) -> bool:
    """Says whether stores share no value of a dimension, and all values of the others that make a forecast.

    Of different initial times the others are not compared: these are the forecasts of one system, and where their
    members or lead times differ, `xr.concat` names the dimension.
    """
    if not all(dim in ds.dims for ds in stores):
        return False
    values = np.concatenate([ds[dim].values for ds in stores])
    if len(np.unique(values)) < len(values):
        return False
    others = [] if dim == "time" else [other for other in FORECAST_AXES if other != dim and other in stores[0].dims]
    return all(np.array_equal(ds[other], stores[0][other]) for ds in stores for other in others if other in ds.dims)


def without_analysis(forecast: xr.Dataset) -> xr.Dataset:
    """Returns a forecast without lead time 0: what it starts from is no forecast.

    Raises:
        ValueError: it has no other lead time.
    """
    leads = forecast["prediction_timedelta"].values.astype(int)
    if leads.size and not leads.any():
        raise ValueError(
            f"{_name(forecast)}: expected lead times after 0 h, got 0 h alone: an analysis is no forecast. Name others."
        )
    return forecast if leads.all() else forecast.isel(prediction_timedelta=leads != 0)


def _name(forecast: AnyForecast) -> str:
    """Returns what messages call a forecast."""
    return str(forecast.encoding.get("source", "The dataset") if isinstance(forecast, xr.Dataset) else forecast)


def in_our_layout(ds: xr.Dataset, where: str) -> xr.Dataset:
    """Renames variables, checks units, orders rows and columns; drops valid times, which follow."""
    ds = canonical_names(in_our_axes(ds, where).drop_vars("valid_time", errors="ignore"), where)
    if missing := [dim for dim in ("time", "prediction_timedelta", "latitude", "longitude") if dim not in ds.dims]:
        raise ValueError(f"{where}: expected a forecast in the WeatherBench 2 layout, which lacks {missing}.")
    if ds["prediction_timedelta"].dtype.kind != "m":
        raise ValueError(f"{where}: expected lead times as timedelta, got {ds['prediction_timedelta'].dtype}.")
    check_units(ds, where)
    return in_our_order(ds[[name for name in VARIABLES if name in ds]])


def in_our_order(ds: xr.Dataset) -> xr.Dataset:
    """Orders rows from south to north and columns eastward, those of the whole globe from 0 degrees."""
    for name in (dim for dim in ("latitude", "longitude") if dim in ds.dims):  # a zonal mean has no columns
        points = ds[name].astype(np.float64)
        if name == "longitude" and circles_globe(points.values):
            points = points.copy(data=eastward(points.values))
        ds = ds.assign_coords({name: points})
        if (np.diff(points.values) < 0).any():
            ds = ds.sortby(name)
    return ds


def find_stores(pattern: str) -> list[Path]:
    """Returns the stores that a path or a pattern with * names; raises FileNotFoundError where there are none."""
    if found := matching(pattern):
        return found
    raise FileNotFoundError(f"Nothing matches {pattern}.")


def parse_system(text: str) -> tuple[str, list[Path]]:
    """Reads NAME=STORE; raises ValueError that shows the expected form."""
    name, equals, pattern = text.partition("=")
    if not (name and equals and pattern):
        raise ValueError(f"Expected another system as NAME=STORE such as ifs=ifs_ens.zarr, got '{text}'.")
    return name, find_stores(pattern)


def open_part(source: AnyForecast, selection: Selection = WHOLE, **decoding: Any) -> xr.Dataset:
    """Opens a part of a forecast lazily, be it of fields or of latents; one without members is member 0.

    Of latents, only the variables wanted are kept, and the cache holds the members wanted of one lead time, so that
    no frame is decoded twice when all variables of one lead time are read after each other.

    Raises:
        ValueError: the forecast has no such part.
    """

    def opened(**options: Any) -> xr.Dataset:
        whole = _with_members(open_forecast(source, **decoding, **options))
        if missing := [dim for dim in FORECAST_AXES if dim not in whole.dims]:
            raise ValueError(
                f"{_name(source)} lacks the dimensions {', '.join(missing)} of an ensemble forecast: it has "
                f"{', '.join(map(str, whole.dims))}. Give a store that `ladcast forecast` wrote."
            )
        return select(at_times(whole, selection.times, _name(source)), selection)

    part = opened()
    if isinstance(source, xr.Dataset) or not is_latent_store(Path(source)):
        return part
    # Opening decodes nothing, and only what is open says which variables and members the part has.
    one_frame = open_forecast(source, **decoding).isel(time=0, prediction_timedelta=0, number=0)
    needed = part.sizes["number"] * sum(one_frame[name].nbytes for name in part.data_vars)
    unwanted = [name for name in one_frame.data_vars if name not in part.data_vars]
    return opened(drop_variables=unwanted, cache_bytes=max(needed, CACHE_BYTES))


def _with_members(forecast: xr.Dataset) -> xr.Dataset:
    """Returns a forecast of our variables that has no members as member 0; what was made of members stays as it is."""
    ours = [forecast[name] for name in VARIABLES if name in forecast]
    if "number" in forecast.dims or not ours or not all(set(field.dims) <= set(FORECAST_DIMS) for field in ours):
        return forecast
    # In chunks of a frame, as `expand_dims` reads all of what is opened without.
    frames = forecast.chunk({dim: 1 for dim in ("time", "prediction_timedelta") if dim in forecast.dims})
    return frames.expand_dims(number=[0]).transpose(*FORECAST_DIMS, ..., missing_dims="ignore")


def select(forecast: xr.Dataset, selection: Selection) -> xr.Dataset:
    """Returns a part of a forecast lazily, of all initial times, in the order asked for; what is not named stays whole.

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


def crop(forecast: xr.Dataset, region: Region) -> xr.Dataset:
    """Returns the points within a region, edges included; longitudes run eastward from its western edge.

    Raises:
        ValueError: the region is none, or has no points.
    """
    west, south, east, north = require_region(region)
    width = 360.0 if abs(east - west) == 360 else (east - west) % 360
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
    names = [SPOKEN.get(name, name) for name in variables]
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


def at_times(forecast: xr.Dataset, times: Sequence[AnyTime], where: str) -> xr.Dataset:
    """Returns the forecasts from these initial times, of none from all; ValueError says which are not there."""
    if not times:
        return forecast
    wanted, there = np.array([parse_time(time) for time in times]), forecast["time"].values
    missing = np.setdiff1d(wanted, there)
    if missing.size:
        raise ValueError(f"{where} has no forecast from {describe(missing)}; it has {describe(there, limit=8)}.")
    return forecast.sel(time=wanted)
