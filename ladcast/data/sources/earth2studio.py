"""The data sources of earth2studio (of its version 0.19), by the name of their class: `earth2studio:GFS`.

What an archive has follows from its lexicon and its own check of times; any other source, such as a file, is asked.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from itertools import compress
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from ladcast.data.lazy import elementwise, lazy_maps
from ladcast.data.lexicon import EARTH2STUDIO_NAMES
from ladcast.data.sources.base import (
    ALL_LEVELS,
    SURFACE,
    Offer,
    Rule,
    Source,
    from_skin,
    need,
    same,
    translate,
    variables_of,
)
from ladcast.fields import LAND_SEA_MASK, SST, VARIABLES, ChannelSet
from ladcast.times import Times, describe

FAMILY = "earth2studio"
DIMENSIONS = ("time", "variable", "lat", "lon")
PARAMETERS = ["self", "time", "variable"]
"""What a class takes that gives fields; forecasts and tables of stations take more."""


def over_sea(temperature: xr.DataArray, *land: xr.DataArray) -> xr.DataArray:
    """Returns the SST: as it is where it has NaN, as over land, otherwise masked by the share of land.

    Raises:
        ValueError: it has values everywhere, and no share of land is given: that would be a globe of water.
    """
    if bool(temperature.isnull().any()):
        return temperature
    if not land:
        raise ValueError(
            "Expected 'sst' of earth2studio with NaN over land, got values everywhere, and no 'lsm' to mask it by. "
            "Mask it (`sst.where(lsm < 0.5)`), or name a source of it before this one."
        )
    return temperature.where(land[0] < 0.5)


NAMES = {name: EARTH2STUDIO_NAMES.get(about.short, about.short) for name, about in VARIABLES.items()}
LEVELS = {theirs: ALL_LEVELS if VARIABLES[ours].on_levels else SURFACE for ours, theirs in NAMES.items()}
LEVELS |= dict.fromkeys(("skt", "lsm"), SURFACE)
"""Their names of all that is asked for, but for the level that follows it, as in t500."""
RULES: tuple[Rule, ...] = (
    *same(**{LAND_SEA_MASK: "lsm"} | {ours: theirs for ours, theirs in NAMES.items() if ours != SST}),
    Rule(SST, ("sst", "lsm"), partial(elementwise, over_sea), "sst over sea (lsm)"),
    Rule(SST, ("sst",), partial(elementwise, over_sea), "sst, NaN over land"),
    from_skin("skt", "lsm"),
)


def named(name: str, **options: Any) -> Earth2Studio:
    """Makes the source `earth2studio:CLASS`; what follows more colons are its arguments, such as the path of a file.

    Raises:
        ImportError: earth2studio is not installed, or what this source needs of it.
        ValueError: there is no such class, or it takes other arguments.
    """
    module = need(f"{FAMILY}.data", f"The source '{name}'", f"{FAMILY}[data]<1")
    kind, *arguments = name.split(":")[1:] or [""]
    classes = {known: made for known, made in vars(module).items() if isinstance(made, type) and _gives_fields(made)}
    if kind not in classes:
        folded = {known.casefold(): known for known in classes}
        near = [folded[known] for known in get_close_matches(kind.casefold(), folded)] or sorted(classes)
        raise ValueError(
            f"Expected {FAMILY}:CLASS with a class of {FAMILY}.data that gives fields at a time, got '{name}'. "
            f"Name one such as {', '.join(near)}."
        )
    try:
        return Earth2Studio(classes[kind](*arguments, **options), name)
    except ImportError as error:
        raise ImportError(f"{name} needs more: {error}. Install it with: pip install '{FAMILY}[data]<1'.") from error
    except (LookupError, TypeError) as error:
        taken = inspect.signature(classes[kind])
        raise ValueError(f"Source '{name}' does not take these options: {error}. It takes {taken}.") from error


def _gives_fields(made: type) -> bool:
    return list(inspect.signature(made.__call__).parameters) == PARAMETERS and not getattr(made, "_is_protocol", False)


@dataclass(frozen=True)
class Earth2Studio(Source):
    """Opens what a data source of earth2studio gives, of any class with its protocol.

    Attributes:
        data: takes times and names of its lexicon, and returns an array with dimensions time, variable, lat, lon.
    """

    data: Callable[[Times, npt.NDArray[np.str_]], xr.DataArray]
    name: str = FAMILY

    def offer(self, time: np.datetime64) -> Offer:
        """Says what the lexicon of an archive has, without the network, or what a source without one gives."""
        known, refusal = self._lexicon(), self._refusal(time)
        if not known:
            reasons = {name: self._reason(time, name) for key, levels in LEVELS.items() for name in _names(key, levels)}
            known = frozenset(name for name, reason in reasons.items() if not reason)
            refusal = "" if known else f"gives nothing at {describe(time)} ({next(iter(reasons.values()))})"
        there = {key: [name in known for name in _names(key, levels)] for key, levels in LEVELS.items()}
        fields = {key: frozenset(compress(LEVELS[key], found)) for key, found in there.items() if any(found)}
        return Offer(self.name, fields, RULES, refusal=refusal)

    def open(self, times: Times, channels: ChannelSet) -> xr.Dataset:
        """Opens the variables of `channels` that can be had; each field is asked for when it is read.

        Raises:
            ConnectionError: the source cannot be reached.
            ValueError: it has not the first of `times`; when they are read, it lacks others, or has NaN everywhere.
        """
        offer, targets = self.offer(times[0]), variables_of(channels)
        if offer.refusal:
            raise ValueError(f"{self.name} {offer.refusal}. Choose another time or source.")
        needed = {key for rule in RULES if rule.target in targets for key in rule.needs}
        there = {key: _names(key, levels) for key, levels in offer.fields.items() if key in needed}
        names = {key: [name for name in _names(key, channels.levels) if name in there[key]] for key in there}
        first = next((name for found in names.values() for name in found), None)
        if first is None:
            return xr.Dataset()
        grid = self._ask(times[:1], [first])
        coords = {"time": times, "level": list(channels.levels)}
        coords |= {"latitude": grid["lat"].values, "longitude": grid["lon"].values}
        fields = {key: self._field(key, found, coords) for key, found in names.items() if found}
        return translate(xr.Dataset(fields, coords), RULES, targets)

    def _field(self, key: str, there: Sequence[str], coords: Mapping[str, Any]) -> xr.Variable:
        """Returns one of their fields, on all levels where it has some: NaN on those where it is not `there`."""
        names = _names(key, coords["level"])
        dims = ("time", *(["level"] if LEVELS[key] else []), "latitude", "longitude")

        def read(*points: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
            chosen = [names[place] for place in points[1]] if LEVELS[key] else names
            block = np.full((len(points[0]), len(chosen), *sizes[-2:]), np.nan, dtype=np.float32)
            found = [name in there for name in chosen]
            if any(found):
                block[:, found] = self._values(coords["time"][points[0]], list(compress(chosen, found)))
            return block if LEVELS[key] else block[:, 0]

        sizes = [len(coords[dim]) for dim in dims]
        return lazy_maps(dims, sizes, read)

    def _values(self, times: Times, names: Sequence[str]) -> npt.NDArray[Any]:
        values: npt.NDArray[Any] = self._ask(times, names).values
        for time, name in np.argwhere(np.isnan(values).all(axis=(-2, -1))):
            raise ValueError(
                f"{self.name}: expected '{names[name]}' at {describe(times[time])}, got NaN everywhere. "
                "Name a source that has it before this one."
            )
        return values

    def _ask(self, times: Times, names: Sequence[str]) -> xr.DataArray:
        asked = f"{self.name}: expected {', '.join(names)} at {describe(times)}"
        try:
            answer = self.data(times, np.array(names))
            dims = getattr(answer, "dims", (type(answer).__name__,))
            if set(dims) != set(DIMENSIONS):
                raise ValueError(f"the dimensions {', '.join(map(str, dims))} instead of {', '.join(DIMENSIONS)}")
            return answer.sel(variable=list(names)).transpose(*DIMENSIONS)
        except (LookupError, TypeError, ValueError) as error:
            raise ValueError(f"{asked}, got {_said(error)}. Choose another time or source.") from error
        except Exception as error:  # each network raises its own kinds
            raise ConnectionError(f"{asked}, got {_said(error)}. Check the network, and run it again.") from error

    def _reason(self, time: np.datetime64, name: str) -> str:
        """Says why a source gives no such field, or nothing where it does."""
        try:
            self._ask(np.array([time]), [name])
        except (ConnectionError, ValueError) as error:
            return _said(error.__cause__ or error)
        return ""

    def _lexicon(self) -> frozenset[str]:
        """Returns the names that an archive knows: its class holds their table, or the module of its class does."""
        kind = type(self.data)
        tables = {n: t for n, t in vars(sys.modules[kind.__module__]).items() if hasattr(t, "VOCAB")}
        own = getattr(kind, "LEXICON", None) or tables.get(f"{kind.__name__}Lexicon")
        return frozenset(name for table in ([own] if own else tables.values()) for name in table.VOCAB)

    def _refusal(self, time: np.datetime64) -> str:
        check = getattr(self.data, "_validate_time", None)
        if check is not None and len(inspect.signature(check).parameters) == 1:  # more where it asks the network
            try:
                check([time.astype("datetime64[us]").item()])
            except ValueError as error:
                return f"has not this time: {error}"
        return ""


def _names(key: str, levels: Iterable[int | float]) -> list[str]:
    """Returns their names of a field: one for each level where it has levels."""
    return [f"{key}{level:g}" for level in levels] if LEVELS[key] else [key]


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
