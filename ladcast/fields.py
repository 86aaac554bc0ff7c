"""Names, levels and units of the atmospheric fields, and their order as channels.

This is the only place that knows which 84 channels the standard set has.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

LEVELS_HPA = (50, 100, 150, 200, 250, 300, 400, 500, 600, 700, 850, 925, 1000)
SST = "sea_surface_temperature"
PRECIPITATION = "total_precipitation_6hr"
LAND_SEA_MASK = "land_sea_mask"


@dataclass(frozen=True)
class Variable:
    """Describes one variable under its WeatherBench 2 name.

    `plausible` bounds the area mean of a correct field in `units`: a value outside means wrong units, not odd
    weather. `short` is the ECMWF short name that tables and channel names use.
    """

    name: str
    short: str
    units: str
    standard_name: str
    plausible: tuple[float, float]
    on_levels: bool = False
    non_negative: bool = False


def _variables() -> dict[str, Variable]:
    level = {"on_levels": True}
    rows = (
        Variable("geopotential", "z", "m2 s-2", "geopotential", (-3e3, 2.3e5), **level),
        Variable(
            "specific_humidity",
            "q",
            "kg kg-1",
            "specific_humidity",
            (-1e-6, 0.03),
            non_negative=True,
            **level,
        ),
        Variable("temperature", "t", "K", "air_temperature", (170.0, 320.0), **level),
        Variable("u_component_of_wind", "u", "m s-1", "eastward_wind", (-40.0, 60.0), **level),
        Variable("v_component_of_wind", "v", "m s-1", "northward_wind", (-20.0, 20.0), **level),
        Variable("vertical_velocity", "w", "Pa s-1", "lagrangian_tendency_of_air_pressure", (-0.5, 0.5), **level),
        Variable("10m_u_component_of_wind", "u10", "m s-1", "eastward_wind", (-20.0, 20.0)),
        Variable("10m_v_component_of_wind", "v10", "m s-1", "northward_wind", (-20.0, 20.0)),
        Variable("2m_temperature", "t2m", "K", "air_temperature", (240.0, 320.0)),
        Variable("mean_sea_level_pressure", "msl", "Pa", "air_pressure_at_mean_sea_level", (9.5e4, 1.05e5)),
        Variable(SST, "sst", "K", "sea_surface_temperature", (265.0, 310.0)),
        Variable(PRECIPITATION, "tp6h", "m", "lwe_thickness_of_precipitation_amount", (-1e-6, 0.01), non_negative=True),
    )
    return {row.name: row for row in rows}


VARIABLES = _variables()


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

    @property
    def sst_index(self) -> int | None:
        """Returns the position of the sea surface temperature, the only field that is NaN over land."""
        return self.names.index(VARIABLES[SST].short) if SST in self.surface else None

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
    import yaml

    path = Path(source)
    if not path.is_file():
        known = ", ".join(map(repr, CHANNEL_SETS))
        raise FileNotFoundError(f"Expected a channel set ({known}) or a YAML file, got '{source}', which is no file.")
    return ChannelSet.from_dict(yaml.safe_load(path.read_text()))


ERA5_CHANNELS = ChannelSet(
    upper_air=tuple(name for name, about in VARIABLES.items() if about.on_levels),
    surface=tuple(name for name, about in VARIABLES.items() if not about.on_levels),
)
"""The 84 channels of LaDCast (arXiv 2506.09193): z q t u v w on 13 levels, u10 v10 t2m msl sst tp6h."""
HEADLINE_CHANNELS = ChannelSet(
    upper_air=("geopotential", "temperature"),
    surface=(
        "10m_u_component_of_wind",
        "10m_v_component_of_wind",
        "2m_temperature",
        "mean_sea_level_pressure",
        PRECIPITATION,
    ),
    levels=(500, 850),
)
"""The channels that forecasts are judged by first; small enough that their truth travels with the package."""
CHANNEL_SETS = {"era5": ERA5_CHANNELS, "headline": HEADLINE_CHANNELS}
"""Those that `--channels` knows by name."""
