"""A forecast of two starts, three lead times and three members on a coarse grid, as `ladcast forecast` stores it."""

import numpy as np
import pytest
import xarray as xr

from ladcast.fields import PRECIPITATION, SST, VARIABLES
from ladcast.grid import Grid

DIMS = ("time", "prediction_timedelta", "number", "level", "latitude", "longitude")
TYPICAL = {"geopotential": (5e4, 3e3), "mean_sea_level_pressure": (1e5, 1e3), PRECIPITATION: (0.0, 2e-3)}


@pytest.fixture
def forecast() -> xr.Dataset:
    grid, generator = Grid.parse("16x9-south"), np.random.default_rng(0)
    coordinates = {
        "time": np.array(["2011-10-11T00", "2011-10-11T12"], dtype="datetime64[ns]"),
        "prediction_timedelta": (np.arange(1, 4) * np.timedelta64(6, "h")).astype("timedelta64[ns]"),
        "number": np.arange(3),
        "level": np.array([500, 850]),
        "latitude": np.array(grid.latitude),
        "longitude": np.array(grid.longitude),
    }
    fields = {}
    for name in ("geopotential", "specific_humidity", "10m_u_component_of_wind", "2m_temperature", SST, PRECIPITATION):
        dims = tuple(dim for dim in DIMS if dim != "level" or VARIABLES[name].on_levels)
        mean, spread = TYPICAL.get(name, (280.0, 10.0) if VARIABLES[name].units == "K" else (0.0, 1.0))
        values = generator.normal(mean, spread, [coordinates[dim].size for dim in dims]).astype(np.float32)
        fields[name] = (dims, np.maximum(values, 0.0) if VARIABLES[name].non_negative else values)
    fields[SST][1][..., :2, 3:7] = np.nan
    attributes = {"title": "ladcast ensemble forecast", "source": "ladcast model tiny@0", "history": "{}"}
    return xr.Dataset(fields, coordinates, attributes)
