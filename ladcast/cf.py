"""CF attributes and coordinates (CF-1.11) of everything that is written: states, static fields and forecasts.

States carry the few attributes that tools need to know an axis; forecasts, which are exchanged with others, all of
them.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np
import xarray as xr

from ladcast.fields import find_variable
from ladcast.grid import Grid
from ladcast.times import Times

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
