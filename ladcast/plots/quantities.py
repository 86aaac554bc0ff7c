"""What the panels show: titles, the units people read, and the way there from WeatherBench 2 fields."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import xarray as xr

from ladcast.constants import GRAVITY, ZERO_CELSIUS_K


@dataclass(frozen=True)
class Quantity:
    """What a panel shows, in the units people read, and how to get there from WeatherBench 2 fields.

    `step` is the distance between contours on a map, `floor` the lowest value that a plume's axis must show.
    """

    title: str
    units: str
    needs: tuple[str, ...]
    convert: Callable[..., xr.DataArray]
    step: float | None = None
    floor: float | None = None

    def missing(self, dataset: xr.Dataset) -> list[str]:
        """Returns the names of variables that the dataset lacks."""
        return [name for name in self.needs if name not in dataset]

    def of(self, dataset: xr.Dataset) -> xr.DataArray:
        """Converts SI fields; raises ValueError that names a missing variable or level, or counts NaN."""
        if missing := self.missing(dataset):
            has = ", ".join(map(str, dataset))
            raise ValueError(f"{self.title} needs {', '.join(missing)}, missing here; the dataset has {has}.")
        field = self.convert(*(dataset[name] for name in self.needs))
        if count := int(field.isnull().sum()):
            raise ValueError(f"{self.title}: {count} of {field.size} values are NaN ({', '.join(self.needs)}).")
        return field


def _height_500(geopotential: xr.DataArray) -> xr.DataArray:
    if "level" not in geopotential.dims or 500 not in geopotential["level"]:
        levels = geopotential["level"].values.tolist() if "level" in geopotential.coords else "no levels"
        raise ValueError(f"The map of 500 hPa needs geopotential at level 500, got {levels}.")
    return geopotential.sel(level=500) / GRAVITY / 10


MAPS = (
    Quantity("500 hPa height", "dam", ("geopotential",), _height_500, step=8.0),
    Quantity("Mean sea level pressure", "hPa", ("mean_sea_level_pressure",), lambda pressure: pressure / 100, step=5.0),
)
TEMPERATURE = Quantity("2 m temperature", "°C", ("2m_temperature",), lambda kelvin: kelvin - ZERO_CELSIUS_K)
WHERE_PRESENT = (
    Quantity("10 m wind speed", "m/s", ("10m_u_component_of_wind", "10m_v_component_of_wind"), np.hypot, floor=0.0),
    Quantity("Precipitation in 6 h", "mm", ("total_precipitation_6hr",), lambda metres: metres * 1000, floor=0.0),
)
