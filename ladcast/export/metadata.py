"""Metadata of an exported forecast: CF attributes of variables and coordinates, valid times, accumulation bounds."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import xarray as xr

from ladcast.fields import PRECIPITATION, VARIABLES
from ladcast.times import HOUR, STEP

Names = Literal["weatherbench2", "cf"]
LEAD_BOUNDS = "prediction_timedelta_bounds"
CF_DIMENSIONS = {
    "time": "forecast_reference_time",
    "prediction_timedelta": "forecast_period",
    "number": "realization",
    LEAD_BOUNDS: "forecast_period_bounds",
}
"""CF asks that names begin with a letter, and some checkers that `time` is the valid time."""
COORDINATES: dict[str, dict[str, str]] = {
    "time": {"standard_name": "forecast_reference_time", "long_name": "initial time"},
    "prediction_timedelta": {"standard_name": "forecast_period", "long_name": "lead time"},
    "valid_time": {"standard_name": "time", "long_name": "time at which the forecast is valid"},
    "number": {"standard_name": "realization", "long_name": "ensemble member", "units": "1"},
    "level": {
        "standard_name": "air_pressure",
        "long_name": "pressure",
        "units": "hPa",
        "positive": "down",
        "axis": "Z",
    },
    "latitude": {"standard_name": "latitude", "long_name": "latitude", "units": "degrees_north", "axis": "Y"},
    "longitude": {"standard_name": "longitude", "long_name": "longitude", "units": "degrees_east", "axis": "X"},
}
TIME_ENCODING = {"units": "hours since 1970-01-01 00:00:00", "calendar": "standard", "dtype": "int32"}


def with_metadata(forecast: xr.Dataset, names: Names = "weatherbench2") -> xr.Dataset:
    """Returns the forecast with complete CF-1.11 metadata; values of the fields stay lazy.

    Lead times become whole hours with the units as text, since files know no time differences. `valid_time(time,
    prediction_timedelta)` is added, and where there is precipitation the bounds of its accumulation. `names="cf"`
    gives dimensions their CF standard names and variables their short ones, which begin with a letter.
    """
    described = {name: _field(str(name), field) for name, field in forecast.data_vars.items()}
    complete = xr.Dataset(described, coords=_coordinates(forecast), attrs={**forecast.attrs, "Conventions": "CF-1.11"})
    if names == "weatherbench2":
        return complete
    short = {name: VARIABLES[str(name)].short for name in complete.data_vars if name in VARIABLES}
    renamed = complete.rename(
        {**short, **{old: new for old, new in CF_DIMENSIONS.items() if old in complete.variables}}
    )
    lead = CF_DIMENSIONS["prediction_timedelta"]
    if LEAD_BOUNDS in complete.variables:
        renamed[lead].attrs["bounds"] = CF_DIMENSIONS[LEAD_BOUNDS]
    for field in renamed.data_vars.values():
        field.attrs["cell_methods"] = field.attrs["cell_methods"].replace("prediction_timedelta", lead)
    return renamed


def field_attributes(name: str) -> dict[str, str]:
    """Returns the CF attributes of a forecast variable under its WeatherBench 2 name."""
    about = VARIABLES[name]
    accumulated = name == PRECIPITATION
    attributes = {
        "standard_name": about.standard_name,
        "long_name": about.name.replace("_", " "),
        "units": about.units,
        "short_name": about.short,
        "cell_methods": f"prediction_timedelta: {'sum' if accumulated else 'point'}",
    }
    return {**attributes, "units_metadata": "temperature: on_scale"} if about.units == "K" else attributes


def _field(name: str, field: xr.DataArray) -> xr.Variable:
    variable = field.variable.copy(deep=False)
    variable.attrs, variable.encoding = dict(field_attributes(name)), {}
    return variable


def _coordinates(forecast: xr.Dataset) -> dict[str, xr.Variable]:
    time, lead = forecast["time"].values, forecast["prediction_timedelta"].values
    values = {
        "time": (("time",), time),
        "prediction_timedelta": (("prediction_timedelta",), _hours(lead)),
        "valid_time": (("time", "prediction_timedelta"), time[:, None] + lead),
    }
    for name in ("number", "level", "latitude", "longitude"):
        if name in forecast.coords:
            whole = forecast[name].dtype.kind in "iu"
            values[name] = ((name,), forecast[name].values.astype(np.int32 if whole else np.float64))
    coordinates = {}
    for name, (dims, data) in values.items():
        encoding = dict(TIME_ENCODING) if data.dtype.kind == "M" else {"_FillValue": None}
        coordinates[name] = xr.Variable(dims, data, dict(COORDINATES[name]), encoding=encoding)
    for name in ("time", "valid_time"):
        coordinates[name].attrs["units_metadata"] = "leap_seconds: none"
    coordinates["prediction_timedelta"].attrs["units"] = "hours"
    if PRECIPITATION in forecast:
        bounds = _hours(np.stack([lead - STEP, lead], axis=1))
        coordinates[LEAD_BOUNDS] = xr.Variable(("prediction_timedelta", "bound"), bounds, encoding={"_FillValue": None})
        coordinates["prediction_timedelta"].attrs["bounds"] = LEAD_BOUNDS
    return coordinates


def _hours(leads: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    return np.round(leads / HOUR).astype(np.int32)
