"""Opens a part of a forecast, of fields or of latents: variables, levels, initial and lead times, members, a region."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ladcast.fields import VARIABLES
from ladcast.forecasts.engine import CACHE_BYTES
from ladcast.forecasts.formats.base import FORECAST_AXES
from ladcast.forecasts.manifest import is_latent_store
from ladcast.forecasts.open import open_forecast
from ladcast.forecasts.options import Bounds, Selection
from ladcast.grid import TOLERANCE_DEG
from ladcast.times import HOUR, describe, parse_time


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
    eastward = west + offset[columns]
    part = forecast.isel(latitude=rows, longitude=columns)
    described = forecast["longitude"].attrs
    return part.assign_coords(longitude=("longitude", np.round(eastward - 360 * (eastward[0] >= 180), 6), described))


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
