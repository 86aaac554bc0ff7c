"""Selects a part of a forecast: variables, levels, lead times, members and a region."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import xarray as xr

from ladcast.fields import VARIABLES
from ladcast.grid import TOLERANCE_DEG
from ladcast.times import HOUR

Region = tuple[float, float, float, float]
"""West, south, east and north in degrees; a region whose west lies east of its east crosses the meridian of 0."""


def select(
    forecast: xr.Dataset,
    *,
    variables: Sequence[str] = (),
    levels: Sequence[int] = (),
    leads: Sequence[int] = (),
    members: Sequence[int] = (),
    region: Region | None = None,
) -> xr.Dataset:
    """Returns a part of a forecast lazily, in the order asked for; an empty sequence keeps all.

    Args:
        variables: WeatherBench 2 names or short names, such as geopotential or z.
        levels: pressure levels in hPa; surface variables stay.
        leads: lead times in hours.
        members: ensemble members.
        region: part of the globe, see `Region`.

    Raises:
        ValueError: something is not in the forecast; the message lists what is.
    """
    if variables:
        forecast = forecast[_names(forecast, variables)]
    wanted: dict[str, Sequence[Any]] = {
        "level": levels,
        "prediction_timedelta": [np.timedelta64(lead, "h").astype("timedelta64[ns]") for lead in leads],
        "number": members,
    }
    for dim, values in wanted.items():
        if len(values) and dim in forecast.dims:  # surface variables alone have no levels
            forecast = forecast.isel({dim: _positions(forecast[dim], values)})
    return forecast if region is None else crop(forecast, region)


def crop(forecast: xr.Dataset, region: Region) -> xr.Dataset:
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
        there = ", ".join(f"{name} ({VARIABLES[str(name)].short})" for name in _known(forecast))
        raise ValueError(f"The forecast has no variable {', '.join(missing)}; it has {there}.")
    return list(dict.fromkeys(names))


def _known(forecast: xr.Dataset) -> list[Hashable]:
    return [name for name in forecast.data_vars if name in VARIABLES]


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
