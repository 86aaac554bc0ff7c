"""What every source of weather states can do, what it says it has, and the rules that make our variables of it.

Some answer requests with files, which have names of their own and come to be whole or not at all.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import xarray as xr
from jaxtyping import Shaped

from ladcast.data import derive
from ladcast.data.lazy import elementwise, six_hour_sums
from ladcast.fields import (
    LAND_SEA_MASK,
    LEVELS_HPA,
    PRECIPITATION,
    SST,
    STATIC_VARIABLES,
    SURFACE_GEOPOTENTIAL,
    VARIABLES,
    Channel,
    ChannelSet,
)
from ladcast.files import whole_file
from ladcast.times import STEP, Times, describe
from ladcast.units import GRAVITY

ALL_LEVELS = frozenset(float(level) for level in LEVELS_HPA)
SURFACE: frozenset[float] = frozenset()
CYCLE = np.timedelta64(6, "h")
"""Time between the cycles of operational models."""
RAIN_FROM = "tp, first 6 h of the cycle 6 h before"
"""How precipitation comes about where a cycle begins without any."""
NO_DELAY = np.timedelta64(0, "h")


@dataclass(frozen=True)
class Rule:
    """How `target`, one of our variables, is made of the source's fields `needs`.

    Attributes:
        make: turns these fields, read lazily, into ours; None where ours is the source's as it is.
        how: what is done, for tables and for the attribute `derived`; empty where nothing is.
        approximate: ours is not what the source's own model has.
    """

    target: str
    needs: tuple[str, ...]
    make: Callable[..., xr.DataArray] | None = None
    how: str = ""
    approximate: bool = False


def same(**names: str) -> tuple[Rule, ...]:
    """Returns rules that only rename: `same(temperature="t")`."""
    return tuple(Rule(ours, (theirs,)) for ours, theirs in names.items())


def translate(raw: xr.Dataset, rules: Iterable[Rule], targets: Sequence[str] | None = None) -> xr.Dataset:
    """Returns the variables that the first fitting rule of each target makes of `raw`, lazily, in our names.

    `targets` restricts them; variables that no rule can make are left out: `open_store` says which are missing.
    """
    fields: dict[str, xr.DataArray] = {}
    for rule in rules:
        wanted = targets is None or rule.target in targets
        if not wanted or rule.target in fields or any(name not in raw for name in rule.needs):
            continue
        needed = [raw[name] for name in rule.needs]
        if rule.make is None:
            fields[rule.target] = needed[0]
        else:
            said = {"derived": rule.how} | ({"approximate": "yes"} if rule.approximate else {})
            fields[rule.target] = rule.make(*needed).assign_attrs(said)
    return xr.Dataset(fields, attrs=raw.attrs)


@dataclass(frozen=True)
class Supply:
    """How a source makes one channel: of which of its fields, and what is done to them."""

    source: str
    fields: tuple[str, ...]
    how: str = ""
    approximate: bool = False


@dataclass(frozen=True)
class Offer:
    """What a source has at one time.

    Attributes:
        fields: the source's own fields, with their levels (hPa); no levels for a field of the surface.
        rules: how they become ours.
        gaps: fields that are listed and cannot be used at a level (None: the surface), and why.
        refusal: why nothing can be had at that time; empty where something can.
    """

    source: str
    fields: Mapping[str, frozenset[float]]
    rules: tuple[Rule, ...]
    gaps: Mapping[tuple[str, float | None], str] = field(default_factory=dict)
    refusal: str = ""

    def supply(self, channel: Channel) -> Supply | str:
        """Returns how the channel is had, by the first rule that fits, or the reason why it is not."""
        if self.refusal:
            return self.refusal
        reasons = []  # of each rule: why a channel is missing is the first question of who misses it
        for rule in (rule for rule in self.rules if rule.target == channel.variable):
            obstacles = [self._obstacle(name, channel.level) for name in rule.needs]
            if not any(obstacles):
                return Supply(self.source, rule.needs, rule.how, rule.approximate)
            reasons.append(" and ".join(obstacle for obstacle in obstacles if obstacle))
        return "; ".join(dict.fromkeys(reasons)) or f"no rule makes '{channel.variable}'"

    def needs(self, channels: Iterable[Channel]) -> list[str]:
        """Returns the source's own fields that these channels are made of; channels that cannot be had need none."""
        supplies = [self.supply(channel) for channel in channels]
        return list(dict.fromkeys(name for had in supplies if isinstance(had, Supply) for name in had.fields))

    def _obstacle(self, name: str, level: int | None) -> str:
        if name not in self.fields:
            return f"has no '{name}'"
        levels = self.fields[name]
        if level is not None and levels and float(level) not in levels:
            return f"'{name}' not at {level} hPa"
        return self.gaps.get((name, level if levels else None), "")


@runtime_checkable
class Source(Protocol):
    """Weather states of one archive."""

    @property
    def name(self) -> str:
        """Returns the name in `SOURCES`."""

    def offer(self, time: np.datetime64) -> Offer:
        """Says what can be had for one time, without the network."""

    def fetch(self, times: Times, channels: ChannelSet) -> list[Path]:
        """Downloads what `open` reads; returns the files. Nothing, where `open` reads the archive itself."""
        return []

    def open(self, times: Times, channels: ChannelSet) -> xr.Dataset:
        """Opens the variables of `channels` that can be had, lazily, in our names and units; see `open_store`."""


@dataclass(frozen=True)
class Coverage:
    """The times that an archive has states of: from `first` on, to `last` or to `delay` before now."""

    first: str
    last: str | None = None
    delay: np.timedelta64 = NO_DELAY
    step: np.timedelta64 = STEP

    def refusal(self, time: np.datetime64, now: np.datetime64 | None = None) -> str:
        """Returns why there is nothing at `time`, or an empty text."""
        present = np.datetime64("now") if now is None else now
        end = np.datetime64(self.last) if self.last else present - self.delay
        if not np.datetime64(self.first) <= time <= end:
            return f"covers {self.first} to {describe(end)}, not {describe(time)}"
        if (time - np.datetime64(self.first)) % self.step != np.timedelta64(0):
            return f"has states every {self.step / np.timedelta64(1, 'h'):g} h, not at {describe(time)}"
        return ""


def at_times(ds: xr.Dataset, times: Times, where: str) -> xr.Dataset:
    """Returns the states at `times`; raises ValueError that lists those that are not there."""
    require_times(ds, times, where)
    return ds.sel(time=times)


def require_times(ds: xr.Dataset, times: Times, where: str) -> None:
    """Raises ValueError that lists those of `times` that are not there."""
    missing = np.setdiff1d(times, ds["time"].values)
    if missing.size:
        held = f"{describe(ds['time'].values[0])} to {describe(ds['time'].values[-1])}" if ds.sizes["time"] else "none"
        raise ValueError(f"{where}: expected {describe(times)}, lacks {describe(missing)}; it holds {held}.")


def needed_times(raw: xr.Dataset, times: Times, channels: ChannelSet, where: str) -> xr.Dataset:
    """Returns the states at `times`, with the hours that six-hour precipitation is summed from where it must be.

    Raises:
        ValueError: some of `times` are not there.
    """
    require_times(raw, times, where)
    wanted = np.asarray(times)
    if PRECIPITATION in channels.surface and PRECIPITATION not in raw:
        wanted = np.union1d(wanted, precipitation_times(times))
    return raw.isel(time=np.flatnonzero(np.isin(raw["time"].values, wanted)))


def precipitation_times(times: Times) -> Shaped[np.ndarray, " hour"]:
    """Returns every hour that ends within the six hours before one of `times`."""
    hours = np.arange(6) * np.timedelta64(1, "h")
    return np.unique(np.asarray(times)[:, None] - hours).astype("datetime64[ns]")


def with_how(rules: Sequence[Rule], target: str, how: str) -> tuple[Rule, ...]:
    """Returns the rules with what is said of how `target` comes about, for the table of a plan."""
    return tuple(replace(rule, how=how) if rule.target == target else rule for rule in rules)


def variables_of(channels: ChannelSet) -> list[str]:
    """Returns the variables of a channel set and the static fields, which come along where a source has them."""
    return [*channels.variables, *STATIC_VARIABLES]


def era5_fields(precipitation: str) -> dict[str, frozenset[float]]:
    """Returns the fields of an archive of ERA5 under our names, with its name of precipitation."""
    fields = {name: ALL_LEVELS if about.on_levels else SURFACE for name, about in VARIABLES.items()}
    del fields[PRECIPITATION]
    return fields | dict.fromkeys((precipitation, SURFACE_GEOPOTENTIAL, LAND_SEA_MASK), SURFACE)


def date_and_hour(time: np.datetime64) -> tuple[str, str]:
    """Returns the date and the hour of a cycle as file names have them, such as ("20200101", "06")."""
    return str(time.astype("datetime64[D]")).replace("-", ""), str(time.astype("datetime64[h]"))[-2:]


def need(module: str, purpose: str, package: str) -> Any:
    """Returns a module that only some sources need; raises ImportError that names the package, or extra, with it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{purpose} needs '{module}', which is not installed ({error}). Install it with: pip install '{package}'."
        ) from error


def from_height(target: str, height: str) -> Rule:
    """Returns the rule: geopotential = standard gravity x geopotential height."""
    return Rule(target, (height,), partial(elementwise, derive.geopotential), f"{GRAVITY} m s-2 x {height}")


def from_relative_humidity(phase: derive.Phase) -> Rule:
    """Returns the rule: specific humidity from RH and T, saturated as the centre does."""
    how = f"r, t and p, saturation over {'water' if phase == 'water' else f'the water-ice mix of {phase}'}"

    def make(humidity: xr.DataArray, temperature: xr.DataArray) -> xr.DataArray:
        return derive.specific_humidity(humidity, temperature, humidity["level"] * 100.0, phase)

    return Rule("specific_humidity", ("r", "t"), partial(elementwise, make), how, approximate=True)


def from_skin(*needs: str) -> Rule:
    """Returns the rule: SST from skin temperature, land share and (where given) ice share."""
    how = f"{needs[0]} over sea ({', '.join(needs[1:])}), at least {derive.FREEZING_SEA_K} K"
    return Rule(SST, needs, partial(elementwise, derive.sea_surface_temperature), how, approximate=True)


from_geometric_wind = Rule(
    "vertical_velocity",
    ("wz", "t"),
    partial(elementwise, lambda wind, warmth: derive.vertical_velocity(wind, warmth, wind["level"] * 100.0)),
    "-p g wz / (R t)",
    approximate=True,
)
"""The rule: omega from the geometric vertical wind, hydrostatically."""

from_hourly = Rule(PRECIPITATION, ("total_precipitation",), six_hour_sums, "sum of 6 hourly totals")
"""The rule: six-hour precipitation from hourly totals."""

WEATHERBENCH_NAMES = same(**{name: name for name in (*VARIABLES, *STATIC_VARIABLES)})
"""The names of WeatherBench 2 are ours."""


@dataclass(frozen=True)
class Delivery:
    """A request, and the name of the file that answers it."""

    file: str
    request: Mapping[str, Any]


Download = Callable[[Delivery, Path], None]
"""Writes the answer to a request to a file."""


@runtime_checkable
class DeliveringSource(Source, Protocol):
    """A source whose states are files in a folder: downloaded by `fetch`, or brought there under the same names."""

    @property
    def folder(self) -> Path:
        """Returns where the files lie."""

    @property
    def origin(self) -> str:
        """Returns the archive as messages name it."""
        return self.name

    def deliveries(self, times: Times, channels: ChannelSet) -> Iterator[Delivery]:
        """Yields the requests, each with the file that answers it."""

    def connect(self) -> Download:
        """Returns what downloads one file; raises ImportError where the client of the archive is missing."""

    def fetch(self, times: Times, channels: ChannelSet) -> list[Path]:
        """Downloads the files that are not in `folder` yet, each under its name only when it is whole.

        Connects only where something is missing.

        Raises:
            ConnectionError: a download failed; the message says what was asked for, and what to do.
        """
        deliveries = list(self.deliveries(times, channels))
        missing = [delivery for delivery in deliveries if not (self.folder / delivery.file).is_file()]
        if missing:
            download = self.connect()
            for delivery in missing:
                self._download(delivery, download)
        return [self.folder / delivery.file for delivery in deliveries]

    def delivered(self, times: Times, channels: ChannelSet) -> list[Path]:
        """Returns the files in `folder`; raises FileNotFoundError that lists those that are not there."""
        deliveries = list(self.deliveries(times, channels))
        missing = [delivery.file for delivery in deliveries if not (self.folder / delivery.file).is_file()]
        if missing:
            shown = ", ".join(missing[:4]) + (f" and {len(missing) - 4} more" if len(missing) > 4 else "")
            raise FileNotFoundError(
                f"{self.folder} lacks {len(missing)} of {len(deliveries)} files from {self.name}: {shown}. Download "
                "them with `fetch` (it needs the network), or copy them there under these names."
            )
        return [self.folder / delivery.file for delivery in deliveries]

    def _download(self, delivery: Delivery, download: Download) -> None:
        path = self.folder / delivery.file
        try:
            with whole_file(path) as partial:
                download(delivery, partial)
        except ImportError:
            raise
        except Exception as error:  # each client raises its own kinds, obstore with a page of its insides
            said = f"{type(error).__name__}: {error}".partition("\n")[0]
            raise ConnectionError(
                f"Expected to download {delivery.file} from {self.origin} over the network, got "
                f"{said}. Run it again: what has arrived stays. Offline, put the file at {path}."
            ) from error
