"""The variables and their behaviour, their order as channels, and the sets of channels that have a name.

A new variable is one row of `VARIABLES`, with what makes it differ from the others, and its name in the maps of the
sources that have it. This is also the only place that knows which 84 channels the standard set has.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ladcast.documents import describing, read_mapping

LEVELS_HPA = (50, 100, 150, 200, 250, 300, 400, 500, 600, 700, 850, 925, 1000)
SST = "sea_surface_temperature"
PRECIPITATION = "total_precipitation_6hr"
LAND_SEA_MASK = "land_sea_mask"
SURFACE_GEOPOTENTIAL = "geopotential_at_surface"
UNBOUNDED = (-math.inf, math.inf)
TYPED = {"2t": "t2m", "10u": "u10", "10v": "v10", "tp": "tp6h", "mslp": "msl", "prmsl": "msl", "sstk": "sst"}
"""Short names as people type them, and ours."""


@dataclass(frozen=True)
class Variable:
    """Describes one variable under its WeatherBench 2 name; all that is done differently for it follows from here.

    Attributes:
        short: the ECMWF short name, which tables and channel names use.
        standard_name: the CF standard name; empty where CF has none.
        plausible: bounds of the area mean of a correct field, in `units`: a mean outside says that the units are
            wrong, not that the weather is odd.
        extremes: bounds of single values, beyond the records: a value outside is damage, not weather.
        contrast: bounds of the standard deviation over the sphere, from 300 to 850 hPa where there are levels.
        on_levels: whether the variable has pressure levels.
        non_negative: whether negative values are clipped, which a network may produce.
        masked_on_land: whether the variable is NaN over land, and there alone.
        accumulated_hours: over how many hours before its time the variable is summed; 0 for an instantaneous one.
        smooth: whether neighbouring points resemble each other on every grid that resolves weather systems.
    """

    name: str
    short: str
    units: str
    standard_name: str = ""
    plausible: tuple[float, float] = UNBOUNDED
    extremes: tuple[float, float] = UNBOUNDED
    contrast: tuple[float, float] = UNBOUNDED
    on_levels: bool = False
    non_negative: bool = False
    masked_on_land: bool = False
    accumulated_hours: int = 0
    smooth: bool = False


def _by_name(*rows: Variable) -> dict[str, Variable]:
    return {row.name: row for row in rows}


# fmt: off
VARIABLES = _by_name(
    Variable("geopotential", "z", "m2 s-2", "geopotential", plausible=(-3e3, 2.3e5), extremes=(-2e4, 6e5),
             contrast=(100.0, 2e4), on_levels=True, smooth=True),
    Variable("specific_humidity", "q", "kg kg-1", "specific_humidity", plausible=(-1e-6, 0.03), extremes=(-1e-3, 0.06),
             on_levels=True, non_negative=True),
    Variable("temperature", "t", "K", "air_temperature", plausible=(170.0, 320.0), extremes=(130.0, 350.0),
             contrast=(1.0, 40.0), on_levels=True, smooth=True),
    Variable("u_component_of_wind", "u", "m s-1", "eastward_wind", plausible=(-40.0, 60.0), extremes=(-250.0, 250.0),
             contrast=(0.5, 60.0), on_levels=True, smooth=True),
    Variable("v_component_of_wind", "v", "m s-1", "northward_wind", plausible=(-20.0, 20.0), extremes=(-250.0, 250.0),
             contrast=(0.5, 60.0), on_levels=True, smooth=True),
    Variable("vertical_velocity", "w", "Pa s-1", "lagrangian_tendency_of_air_pressure",
             plausible=(-0.5, 0.5), extremes=(-60.0, 60.0), contrast=(0.008, 5.0), on_levels=True),
    Variable("10m_u_component_of_wind", "u10", "m s-1", "eastward_wind", plausible=(-20.0, 20.0),
             extremes=(-120.0, 120.0), contrast=(0.5, 30.0), smooth=True),
    Variable("10m_v_component_of_wind", "v10", "m s-1", "northward_wind", plausible=(-20.0, 20.0),
             extremes=(-120.0, 120.0), contrast=(0.5, 30.0), smooth=True),
    Variable("2m_temperature", "t2m", "K", "air_temperature", plausible=(240.0, 320.0), extremes=(160.0, 345.0),
             contrast=(2.0, 50.0), smooth=True),
    Variable("mean_sea_level_pressure", "msl", "Pa", "air_pressure_at_mean_sea_level", plausible=(9.5e4, 1.05e5),
             extremes=(8.4e4, 1.12e5), contrast=(50.0, 5e3), smooth=True),
    Variable(SST, "sst", "K", "sea_surface_temperature", plausible=(265.0, 310.0), extremes=(265.0, 320.0),
             masked_on_land=True),
    Variable(PRECIPITATION, "tp6h", "m", "lwe_thickness_of_precipitation_amount", plausible=(-1e-6, 0.01),
             extremes=(-1e-5, 2.0), non_negative=True, accumulated_hours=6),
)
"""The variables that change with time. Their order numbers them (a seed follows from it): add new ones at the end."""
STATIC_VARIABLES = _by_name(
    Variable(SURFACE_GEOPOTENTIAL, "z", "m2 s-2", "surface_geopotential"),
    Variable(LAND_SEA_MASK, "lsm", "1", "land_area_fraction"),
    Variable("standard_deviation_of_orography", "sdor", "m"),
    Variable("angle_of_sub_gridscale_orography", "anor", "rad"),
    Variable("anisotropy_of_sub_gridscale_orography", "isor", "1"),
    Variable("slope_of_sub_gridscale_orography", "slor", "1"),
)
"""The fields without time that a store may carry."""
# fmt: on
MASKED_ON_LAND = tuple(name for name, about in VARIABLES.items() if about.masked_on_land)


def find_variable(name: Hashable) -> Variable:
    """Returns what is known of a variable; nothing but its name where it is none of ours, such as a derived one."""
    known = VARIABLES.get(str(name)) or STATIC_VARIABLES.get(str(name))
    return known or Variable(str(name), str(name), units="")


@dataclass(frozen=True, order=True)
class Channel:
    """Names one horizontal field: a variable, and its level in hPa where it has levels."""

    variable: str
    level: int | None = None

    def __post_init__(self) -> None:
        known = VARIABLES.get(self.variable)
        if known is None:
            raise ValueError(f"Unknown variable '{self.variable}'. Known variables: {', '.join(VARIABLES)}.")
        if known.on_levels != (self.level is not None):
            needs = "needs a level in hPa" if known.on_levels else "has no levels"
            raise ValueError(f"'{self.variable}' {needs}, got level={self.level}.")

    @property
    def about(self) -> Variable:
        """Returns the variable's description."""
        return VARIABLES[self.variable]

    @property
    def name(self) -> str:
        """Returns the short name, such as `z500` or `t2m`."""
        return self.about.short + ("" if self.level is None else str(self.level))


@dataclass(frozen=True)
class ChannelSet:
    """Orders variables as channels: each upper-air variable's levels (top first), then the surface ones."""

    upper_air: tuple[str, ...]
    surface: tuple[str, ...]
    levels: tuple[int, ...] = LEVELS_HPA

    def __post_init__(self) -> None:
        if list(self.levels) != sorted(set(self.levels)):
            raise ValueError(f"Levels must increase (hPa, top first) without repeats, got {self.levels}.")
        if len(set(self.names)) != len(self):
            raise ValueError(f"A channel is named twice in {self.names}.")

    @cached_property
    def channels(self) -> tuple[Channel, ...]:
        """Returns the channels in tensor order."""
        upper = [Channel(name, level) for name in self.upper_air for level in self.levels]
        return (*upper, *(Channel(name) for name in self.surface))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Returns the short channel names in tensor order."""
        return tuple(channel.name for channel in self.channels)

    @property
    def variables(self) -> tuple[str, ...]:
        """Returns the variable names in tensor order."""
        return (*self.upper_air, *self.surface)

    def __len__(self) -> int:
        return len(self.channels)

    def __iter__(self) -> Iterator[Channel]:
        return iter(self.channels)

    def index(self, name: str) -> int:
        """Returns the position of the channel with this short name.

        Raises:
            KeyError: the set has no such channel.
        """
        if name not in self.names:
            raise KeyError(f"No channel '{name}'. This set has {', '.join(self.names)}.")
        return self.names.index(name)

    def rows(self, variable: str) -> slice:
        """Returns the positions of a variable's channels: its levels, or the one channel of the surface."""
        depth = len(self.levels)
        if variable in self.upper_air:
            first = self.upper_air.index(variable) * depth
            return slice(first, first + depth)
        first = len(self.upper_air) * depth + self.surface.index(variable)
        return slice(first, first + 1)

    @cached_property
    def masked_on_land(self) -> tuple[int, ...]:
        """Returns the positions of the channels that are NaN over land: that of the sea surface temperature."""
        return tuple(index for index, channel in enumerate(self.channels) if channel.about.masked_on_land)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain lists, as written to `channels.yaml`."""
        return {"upper_air": list(self.upper_air), "levels": list(self.levels), "surface": list(self.surface)}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> ChannelSet:
        """Builds the set from `to_dict`'s layout; raises ValueError for an unknown or missing key."""
        expected = {"upper_air", "levels", "surface"}
        if set(content) != expected:
            raise ValueError(f"A channel set has exactly the keys {sorted(expected)}, got {sorted(content)}.")
        return cls(tuple(content["upper_air"]), tuple(content["surface"]), tuple(content["levels"]))


def read_channels(source: str | Path) -> ChannelSet:
    """Reads a channel set: a name (`era5`, the standard set, or `headline`) or the path of a YAML file."""
    if str(source) in CHANNEL_SETS:
        return CHANNEL_SETS[str(source)]
    path = Path(source)
    if not path.is_file():
        known = ", ".join(map(repr, CHANNEL_SETS))
        raise FileNotFoundError(f"Expected a channel set ({known}) or a YAML file, got '{source}', which is no file.")
    with describing("a channel set", path):
        return ChannelSet.from_dict(read_mapping(path))


ERA5_CHANNELS = ChannelSet(
    upper_air=(
        "geopotential",
        "specific_humidity",
        "temperature",
        "u_component_of_wind",
        "v_component_of_wind",
        "vertical_velocity",
    ),
    surface=(
        "10m_u_component_of_wind",
        "10m_v_component_of_wind",
        "2m_temperature",
        "mean_sea_level_pressure",
        SST,
        PRECIPITATION,
    ),
)
"""The 84 channels of LaDCast (arXiv 2506.09193): z q t u v w on 13 levels, u10 v10 t2m msl sst tp6h."""
HEADLINE_CHANNELS = ChannelSet(
    upper_air=("geopotential", "temperature"),
    surface=tuple(name for name in ERA5_CHANNELS.surface if name != SST),
    levels=(500, 850),
)
"""The channels that forecasts are judged by first; small enough that their truth travels with the package."""
CHANNEL_SETS = {"era5": ERA5_CHANNELS, "headline": HEADLINE_CHANNELS}
"""Those that `--channels` knows by name."""
TABLE_CHANNELS = ("z500", "z850", "t500", "t850", "q700", "u850", "v850", "u10", "v10", "t2m", "msl", "tp6h")
"""What tables of scores show unless they are asked for other channels: the headline ones, with humidity and wind."""
VALIDATION_CHANNELS = ("z500", "t850", "q700")
"""What is logged while an autoencoder is trained: mass, temperature and moisture of the troposphere."""
