"""Metadata of an exported forecast: CF attributes of variables and coordinates, valid times, accumulation bounds."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import xarray as xr

from ladcast.cf import CONVENTIONS, FORECAST_COORDINATES, forecast_attributes
from ladcast.fields import VARIABLES, find_variable
from ladcast.times import HOUR

Names = Literal["weatherbench2", "cf"]
LEAD_BOUNDS = "prediction_timedelta_bounds"
CF_DIMENSIONS = {
    "time": "forecast_reference_time",
    "prediction_timedelta": "forecast_period",
    "number": "realization",
    LEAD_BOUNDS: "forecast_period_bounds",
}
"""CF asks that names begin with a letter, and some checkers that `time` is the valid time."""
TIME_ENCODING = {"units": "hours since 1970-01-01 00:00:00", "calendar": "standard", "dtype": "int32"}


def with_metadata(forecast: xr.Dataset, names: Names = "weatherbench2") -> xr.Dataset:
    """Returns the forecast with complete CF-1.11 metadata; values of the fields stay lazy.

    Lead times become whole hours with the units as text, since files know no time differences. `valid_time(time,
    prediction_timedelta)` is added, and where there is precipitation the bounds of its accumulation. `names="cf"`
    gives dimensions their CF standard names and variables their short ones, which begin with a letter.
    """
    described = {name: _field(str(name), field) for name, field in forecast.data_vars.items()}
    complete = xr.Dataset(
        described, coords=_coordinates(forecast), attrs={**forecast.attrs, "Conventions": CONVENTIONS}
    )
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
    for name in ("number", "level", "latitude", "longitude"):
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
    hours = {find_variable(name).accumulated_hours for name in forecast.data_vars} - {0}
    if len(hours) > 1:
        raise ValueError(f"Expected variables summed over one time, got {sorted(hours)} h. Write them apart.")
    return hours.pop() * HOUR if hours else None


def _hours(leads: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    return np.round(leads / HOUR).astype(np.int32)
