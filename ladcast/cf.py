"""CF attributes and coordinates (CF-1.11) of everything that is written: states, static fields and forecasts.

States carry the few attributes that tools need to know an axis; forecasts, which are exchanged with others, all of
them.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import xarray as xr

from ladcast.fields import VARIABLES, find_variable
from ladcast.grid import Grid
from ladcast.run import version_of
from ladcast.times import HOUR, Times

CONVENTIONS = "CF-1.11"
FORECAST_COORDINATES: dict[str, dict[str, str]] = {
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
    "quantile": {"long_name": "fraction of the members that lie below", "units": "1"},
    "quintile": {"long_name": "upper bound of a fifth of the climatology", "units": "1"},
}
"""Under the names of WeatherBench 2, where `time` is the initial time of a forecast."""
STATE_COORDINATES: dict[str, dict[str, str]] = {
    "time": {"standard_name": "time"},
    **{
        name: {
            key: FORECAST_COORDINATES[name][key]
            for key in ("units", "standard_name", "positive")
            if key in FORECAST_COORDINATES[name]
        }
        for name in ("level", "latitude", "longitude")
    },
}
Names = Literal["weatherbench2", "cf", "cdo"]
LEAD_BOUNDS = "prediction_timedelta_bounds"
QUINTILES_OF = "_quintile_probability"
"""Ends the name of the probability of a field's fifths."""
CF_DIMENSIONS = {
    "time": "forecast_reference_time",
    "prediction_timedelta": "forecast_period",
    "number": "realization",
    LEAD_BOUNDS: "forecast_period_bounds",
}
"""CF asks that names begin with a letter, and some checkers that `time` is the valid time."""
TIME_ENCODING = {"units": "hours since 1970-01-01 00:00:00", "calendar": "standard", "dtype": "int32"}


def state_coordinates(grid: Grid, times: Times | None = None, levels: tuple[int, ...] = ()) -> dict[str, xr.Variable]:
    """Returns the coordinates of states; without times or levels those of fields that have none."""
    values: dict[str, Any] = {"time": times if times is None else times.astype("datetime64[ns]")}
    values |= {"latitude": np.asarray(grid.latitude), "longitude": np.asarray(grid.longitude)}
    values["level"] = np.asarray(levels) if levels else None
    return {
        name: xr.Variable(name, points, STATE_COORDINATES[name])
        for name, points in values.items()
        if points is not None
    }


def state_attributes(name: Hashable) -> dict[str, str]:
    """Returns the attributes of a variable or static field; `units` and `standard_name` where they are known."""
    about = find_variable(name)
    known = {"units": about.units, "standard_name": about.standard_name}
    return {key: text for key, text in known.items() if text} | {"long_name": str(name).replace("_", " ")}


def with_state_metadata(states: xr.Dataset) -> xr.Dataset:
    """Returns states, or a climatology, with the attributes of a file that tools need and that are not there yet."""
    named = states.copy()
    for name, field in named.variables.items():
        known = FORECAST_COORDINATES.get(str(name), {}) if name in named.coords else state_attributes(name)
        field.attrs = {**known, **(STATE_COORDINATES["time"] if name == "time" else {}), **field.attrs}
    for name in {"latitude", "longitude"} & set(named.coords):
        named[name].encoding["_FillValue"] = None
    about = {"Conventions": CONVENTIONS, "title": "weather states", "history": f"written by {version_of('ladcast')}"}
    return named.assign_attrs(about | states.attrs)


def forecast_attributes(name: Hashable) -> dict[str, str]:
    """Returns the attributes of a forecast variable under its WeatherBench 2 name."""
    about = find_variable(name)
    attributes = {
        "standard_name": about.standard_name,
        "long_name": about.name.replace("_", " "),
        "units": about.units,
        "short_name": about.short,
        "cell_methods": f"prediction_timedelta: {'sum' if about.accumulated_hours else 'point'}",
    }
    return {**attributes, "units_metadata": "temperature: on_scale"} if about.units == "K" else attributes


def with_metadata(forecast: xr.Dataset, names: Names = "weatherbench2") -> xr.Dataset:
    """Returns the forecast with complete CF-1.11 metadata; values of the fields stay lazy.

    Lead times become whole hours with the units as text, since files know no time differences. `valid_time(time,
    prediction_timedelta)` is added, and where there is precipitation the bounds of its accumulation. `names="cf"`
    gives dimensions their CF standard names and variables their short ones, which begin with a letter; `cdo` also puts
    the fields of one forecast on one axis of valid times, as programs need that know no other.

    Raises:
        ValueError: with `cdo`, there are several initial times or members.
    """
    described = {name: _field(str(name), field) for name, field in forecast.data_vars.items()}
    complete = xr.Dataset(
        described, coords=_coordinates(forecast), attrs={**forecast.attrs, "Conventions": CONVENTIONS}
    )
    if names == "weatherbench2":
        return complete
    return _with_cf_names(complete) if names == "cf" else _on_one_time_axis(_with_cf_names(complete))


def with_product_metadata(product: xr.Dataset) -> xr.Dataset:
    """Returns an ensemble product with CF-1.11 metadata and names; that of one forecast on one axis of valid times."""
    described = {name: product[name].variable.copy(deep=False) for name in product.data_vars}
    for name, field in described.items():
        field.attrs = {"long_name": str(name).replace("_", " "), **field.attrs}
    attrs = {**product.attrs, "Conventions": CONVENTIONS}
    renamed = _with_cf_names(xr.Dataset(described, coords=_coordinates(product), attrs=attrs))
    return renamed if product.sizes["time"] > 1 else _on_one_time_axis(renamed)


def _of_variable(name: Hashable) -> str:
    """Returns the variable that a product such as `geopotential_mean` is of."""
    return re.sub("_(mean|spread|quintile_probability)$", "", str(name))


def _with_cf_names(complete: xr.Dataset) -> xr.Dataset:
    known = {name: _of_variable(name) for name in complete.data_vars if _of_variable(name) in VARIABLES}
    short = {name: str(name).replace(base, VARIABLES[base].short) for name, base in known.items()}
    short |= {n: str(n).replace("10m_wind_speed", "wind10") for n in complete.data_vars if n not in known}
    renamed = complete.rename(
        {**short, **{old: new for old, new in CF_DIMENSIONS.items() if old in complete.variables}}
    )
    lead = CF_DIMENSIONS["prediction_timedelta"]
    if LEAD_BOUNDS in complete.variables:
        renamed[lead].attrs["bounds"] = CF_DIMENSIONS[LEAD_BOUNDS]
    for field in renamed.data_vars.values():
        if (methods := field.attrs.get("cell_methods")) is not None:
            methods = methods.replace("prediction_timedelta", lead).replace("number:", "realization:")
            field.attrs["cell_methods"] = methods
    return renamed


def _on_one_time_axis(named: xr.Dataset) -> xr.Dataset:
    """Makes the valid time a dimension of fields with CF names, and scalars of initial time and member."""
    for dim, option in (("forecast_reference_time", "initial time"), ("realization", "member (--members)")):
        if named.sizes.get(dim, 1) > 1:
            raise ValueError(f"Expected one {option} for one time axis, got {named.sizes[dim]}. Choose one.")
    start, lead = CF_DIMENSIONS["time"], CF_DIMENSIONS["prediction_timedelta"]
    flat = named.isel({dim: 0 for dim in (start, CF_DIMENSIONS["number"]) if dim in named.dims})
    flat = flat.swap_dims({lead: "valid_time"}).rename(valid_time="time")
    flat["time"].attrs["axis"] = "T"
    for field in flat.data_vars.values():
        if "cell_methods" in field.attrs:
            field.attrs["cell_methods"] = field.attrs["cell_methods"].replace(f"{lead}:", "time:")
    return flat


def _field(name: str, field: xr.DataArray) -> xr.Variable:
    variable = field.variable.copy(deep=False)
    variable.attrs, variable.encoding = forecast_attributes(name), {}
    return variable


def _coordinates(forecast: xr.Dataset) -> dict[str, xr.Variable]:
    time, lead = forecast["time"].values, forecast["prediction_timedelta"].values
    values = {
        "time": (("time",), time),
        "prediction_timedelta": (("prediction_timedelta",), _hours(lead)),
        "valid_time": (("time", "prediction_timedelta"), time[:, None] + lead),
    }
    for name in ("number", "level", "latitude", "longitude", "quantile", "quintile"):
        if name in forecast.coords:
            whole = forecast[name].dtype.kind in "iu"
            values[name] = ((name,), forecast[name].values.astype(np.int32 if whole else np.float64))
    coordinates = {}
    for name, (dims, data) in values.items():
        encoding = dict(TIME_ENCODING) if data.dtype.kind == "M" else {"_FillValue": None}
        coordinates[name] = xr.Variable(dims, data, FORECAST_COORDINATES[name], encoding=encoding)
    for name in ("time", "valid_time"):
        coordinates[name].attrs["units_metadata"] = "leap_seconds: none"
    coordinates["prediction_timedelta"].attrs["units"] = "hours"
    if (accumulation := _accumulation(forecast)) is not None:
        bounds = _hours(np.stack([lead - accumulation, lead], axis=1))
        coordinates[LEAD_BOUNDS] = xr.Variable(("prediction_timedelta", "bound"), bounds, encoding={"_FillValue": None})
        coordinates["prediction_timedelta"].attrs["bounds"] = LEAD_BOUNDS
    return coordinates


def _accumulation(forecast: xr.Dataset) -> np.timedelta64 | None:
    """Returns the time over which variables of the forecast are summed, if any.

    Raises:
        ValueError: they are summed over different times, which the bounds of one coordinate cannot say.
    """
    variables = [VARIABLES[base] for base in map(_of_variable, forecast.data_vars) if base in VARIABLES]
    hours = {about.accumulated_hours for about in variables} - {0}
    if len(hours) > 1:
        raise ValueError(f"Expected variables summed over one time, got {sorted(hours)} h. Write them apart.")
    return hours.pop() * HOUR if hours else None


def _hours(leads: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    return np.round(leads / HOUR).astype(np.int32)
