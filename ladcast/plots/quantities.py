"""What maps and the viewer show of a state, in units that people read, and in colours that all can tell apart."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from ladcast.fields import PRECIPITATION, SST, TYPED, VARIABLES
from ladcast.units import GRAVITY, ZERO_CELSIUS_K

ROUNDING = 1e-5
"""Share of the values below which a spread or a difference is that of 32-bit numbers, and not shaded."""


@dataclass(frozen=True)
class Quantity:
    """A variable, or the speed of a wind, in units that people read: `value * scale + offset`.

    Attributes:
        name: short name, such as `t2m`, or `z` for all levels.
        title: what people call it.
        units: units that it is shown in.
        variables: what it is made of: one variable, or the two components whose speed it is.
        palette: colours of its values, a key of `PALETTES`.
        edges: bounds of the colours where they are not even steps.
    """

    name: str
    title: str
    units: str
    variables: tuple[str, ...]
    scale: float = 1.0
    offset: float = 0.0
    palette: str = "sequential"
    edges: tuple[float, ...] = ()

    @property
    def on_levels(self) -> bool:
        """Says whether it has pressure levels."""
        return VARIABLES[self.variables[0]].on_levels

    @property
    def difference_units(self) -> str:
        """Returns the units of a difference or a spread: those of temperatures are kelvin."""
        return "K" if self.units == "°C" else self.units

    @property
    def accumulated_hours(self) -> int:
        """Returns over how many hours before its time it is summed; 0 for what is instantaneous."""
        return VARIABLES[self.variables[0]].accumulated_hours

    def title_at(self, level: int | None) -> str:
        """Returns the title with the level."""
        return self.title if level is None else f"{self.title} at {level} hPa"

    def size_of(self, values: Any) -> float:
        """Returns the largest magnitude of shown values before their offset, which their rounding errors follow."""
        return float(np.nanmax(np.abs(np.asarray(values) - self.offset), initial=0.0))

    def of(self, ds: xr.Dataset, level: int | None = None) -> xr.DataArray:
        """Returns it of a dataset, in shown units.

        Raises:
            ValueError: the dataset lacks a variable or the level.
        """
        lacking = [name for name in self.variables if name not in ds]
        if lacking:
            has = ", ".join(name for name, one in QUANTITIES.items() if all(part in ds for part in one.variables))
            raise ValueError(f"There is no {', '.join(lacking)} for {self.title.lower()}; there is {has}.")
        parts = [ds[name] for name in self.variables]
        if self.on_levels:
            levels = ds["level"].values.tolist()
            if level not in levels:
                raise ValueError(f"{self.title} has the levels {', '.join(map(str, levels))} hPa, and not {level}.")
            parts = [part.sel(level=level, drop=True) for part in parts]
        value = parts[0] if len(parts) == 1 else xr.DataArray(np.hypot(parts[0], parts[1]))
        return value.astype(np.float64) * self.scale + self.offset


def spread_of(members: Any, axis: int = 0) -> Any:
    """Returns the standard deviation of members (divisor M - 1), which is 0 where they are identical; lazily of dask.

    It is taken about the first member: a rounded mean would leave a spread of 1e-16 of the values.
    """
    return np.std(members - np.take(members, [0], axis), axis=axis, ddof=1)


def _by_name(*rows: Quantity) -> dict[str, Quantity]:
    return {row.name: row for row in rows}


WIND = ("10m_u_component_of_wind", "10m_v_component_of_wind")
RAIN_MM = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 30.0, 50.0, 100.0)
# fmt: off
QUANTITIES = _by_name(
    Quantity("t2m", "2 m temperature", "°C", ("2m_temperature",), offset=-ZERO_CELSIUS_K, palette="thermal"),
    Quantity("msl", "Mean sea level pressure", "hPa", ("mean_sea_level_pressure",), scale=0.01, palette="pressure"),
    Quantity("wind10", "10 m wind speed", "m/s", WIND),
    Quantity("tp6h", "Precipitation in 6 h", "mm", (PRECIPITATION,), scale=1000.0, edges=RAIN_MM),
    Quantity("sst", "Sea surface temperature", "°C", (SST,), offset=-ZERO_CELSIUS_K, palette="thermal"),
    Quantity("u10", "10 m eastward wind", "m/s", WIND[:1], palette="diverging"),
    Quantity("v10", "10 m northward wind", "m/s", WIND[1:], palette="diverging"),
    Quantity("z", "Height", "dam", ("geopotential",), scale=0.1 / GRAVITY, palette="thermal"),
    Quantity("t", "Temperature", "°C", ("temperature",), offset=-ZERO_CELSIUS_K, palette="thermal"),
    Quantity("wind", "Wind speed", "m/s", ("u_component_of_wind", "v_component_of_wind")),
    Quantity("q", "Specific humidity", "g/kg", ("specific_humidity",), scale=1000.0),
    Quantity("u", "Eastward wind", "m/s", ("u_component_of_wind",), palette="diverging"),
    Quantity("v", "Northward wind", "m/s", ("v_component_of_wind",), palette="diverging"),
    Quantity("w", "Vertical velocity (down is positive)", "Pa/s", ("vertical_velocity",), palette="diverging"),
)
"""In the order in which the page lists them."""
# fmt: on


def find_quantity(text: str) -> tuple[Quantity, int | None]:
    """Finds a quantity, and its level where it has levels, by a name such as `t2m`, `z500` or `wind850`.

    Raises:
        ValueError: there is none of this name.
    """
    text = TYPED.get(text.lower(), text.lower())
    parts = re.fullmatch(r"(\D+)(\d*)", text)
    name, level = (text, "") if text in QUANTITIES or parts is None else parts.groups()
    found = QUANTITIES.get(name)
    if found is None or found.on_levels != bool(level):
        names = ", ".join(name + ("500" if one.on_levels else "") for name, one in QUANTITIES.items())
        raise ValueError(f"Expected a field such as {names}, got '{text}'.")
    return found, int(level) if level else None


def held_by(ds: xr.Dataset) -> Iterator[tuple[Quantity, int | None]]:
    """Yields what a dataset holds, in the order of the page, each at 500 hPa or its highest level."""
    for quantity in QUANTITIES.values():
        if set(quantity.variables) <= set(ds):
            levels = ds["level"].values.tolist() if quantity.on_levels else []
            yield quantity, (500 if 500 in levels else levels[0]) if levels else None


METEOGRAM = ("t2m", "wind10", "tp6h", "msl")
"""What a meteogram shows, from top to bottom."""
FEWEST_IN_BOXES = 5
"""Of fewer members a meteogram shows each."""
PALETTES = {
    "sequential": ("#ffffff", "#e8f4e6", "#b9dfd0", "#84c5c8", "#52a3c4", "#3279b3", "#1c4f8f", "#0b2559"),
    "diverging": ("#053061", "#2f79b5", "#85bcd9", "#d5e7f0", "#ffffff", "#fbd9c3", "#ec8f6b", "#c13639", "#67001f"),
    "thermal": ("#313695", "#5183bb", "#90c3dd", "#d4edf4", "#fffebe", "#feda8a", "#fa9656", "#e34933", "#a50026"),
    "pressure": ("#2d004b", "#6149a0", "#a8a2cc", "#dddcea", "#f8f4ee", "#fdd6a5", "#f1a340", "#b86208", "#7f3b08"),
}
"""From low to high: ours, and RdBu, RdYlBu and PuOr of ColorBrewer (Apache 2.0), which are safe for colour vision."""
