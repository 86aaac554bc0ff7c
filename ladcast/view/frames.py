"""What the page asks for: a field, what all members say at a point, tracks of cyclones; read when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from ladcast.cyclones import read_tracks, strike_probability
from ladcast.cyclones.report import VERIFIED_GRID
from ladcast.cyclones.strikes import STRIKE_RADIUS_KM
from ladcast.cyclones.table import group, rows, with_members
from ladcast.cyclones.tracker import TrackOptions, are_all_lows, find_tracks
from ladcast.grid import Grid, Place
from ladcast.plots.quantities import (
    FEWEST_IN_BOXES,
    METEOGRAM,
    PALETTES,
    QUANTITIES,
    ROUNDING,
    Quantity,
    spread_of,
)
from ladcast.times import HOUR, parse_time
from ladcast.view.sources import Source

KINDS = {
    "mean": "ensemble mean",
    "spread": "ensemble spread",
    "member": "member",
    "minimum": "lowest member",
    "maximum": "highest member",
    "probability": "probability",
    "anomaly": "anomaly of the mean from climatology",
    "difference": "mean minus",
}


@dataclass(frozen=True)
class FieldRequest:
    """One map: what of which source, and when.

    Attributes:
        source: number of the source.
        valid: the time that the map is valid at.
        quantity: a key of `QUANTITIES`.
        kind: a key of `KINDS`.
        init: the initial time, where the source has several that reach the valid time.
        level: pressure in hPa, for what has levels.
        member: number of the member.
        threshold: the value that a probability is about, in shown units.
        below: whether the probability is that of values below.
        other: number of the source that is subtracted for a difference.
    """

    source: int
    valid: np.datetime64
    quantity: Quantity
    kind: str = "mean"
    init: np.datetime64 | None = None
    level: int | None = None
    member: int = 0
    threshold: float = 0.0
    below: bool = False
    other: int = 0

    @classmethod
    def parse(cls, words: dict[str, str]) -> FieldRequest:
        """Reads the words of an address.

        Raises:
            ValueError: a word is missing or says nothing that there is.
        """
        quantity, kind = words.get("quantity", ""), words.get("kind", "mean")
        if quantity not in QUANTITIES:
            raise ValueError(f"Expected a quantity of {', '.join(QUANTITIES)}, got '{quantity}'.")
        if kind not in KINDS:
            raise ValueError(f"Expected a kind of map of {', '.join(KINDS)}, got '{kind}'.")
        threshold = float(words.get("threshold", 0))
        if not np.isfinite(threshold):
            raise ValueError(f"Expected a threshold that is a number, got {threshold}.")
        return cls(
            source=int(words.get("source", 0)),
            valid=parse_time(words.get("valid", "")),
            quantity=QUANTITIES[quantity],
            kind=kind,
            init=parse_time(words["init"]) if "init" in words else None,
            level=int(words["level"]) if words.get("level") else None,
            member=int(words.get("member", 0)),
            threshold=threshold,
            below=words.get("below") == "1",
            other=int(words.get("other", 0)),
        )


Plane = Float[np.ndarray, "lat lon"]


class Frames:
    """Answers the page: what there is, one field, one series. Threads may share it."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources = list(sources)

    def describe(self) -> dict[str, Any]:
        """Returns what there is, as plain data."""
        return {
            "sources": [_describe(source) for source in self.sources],
            "quantities": {
                name: {"title": one.title, "units": one.units, "palette": one.palette, "edges": list(one.edges)}
                for name, one in QUANTITIES.items()
                if any(source.levels(one) is not None for source in self.sources)
            },
            "kinds": KINDS,
            "palettes": PALETTES,
        }

    def source(self, number: int) -> Source:
        """Returns a source; raises ValueError where there is none of this number."""
        if not 0 <= number < len(self.sources):
            raise ValueError(f"There are {len(self.sources)} sources, from 0, and no number {number}.")
        return self.sources[number]

    def field(self, request: FieldRequest) -> tuple[Plane, dict[str, Any]]:
        """Returns a map (rows from the south, columns eastward) in shown units, and what to write above it.

        Raises:
            ValueError: there is no such frame, quantity, level or member, or it is damaged.
        """
        source = self.source(request.source)
        place = source.locate(request.valid, request.init)
        plane, size = self._reduce(source, request, place)
        lead_hours = float(source.leads[place[1]] / HOUR) if source.is_forecast else None
        about = {"init": _minutes(source.times[place[0]]), "lead_hours": lead_hours, "least": ROUNDING * size}
        return np.ascontiguousarray(plane, dtype="<f4"), about

    def _reduce(self, source: Source, request: FieldRequest, place: tuple[int, int]) -> tuple[Plane, float]:
        """Returns a map, and the magnitude of the values that a spread or a difference is of (else 0)."""
        if request.kind == "member":
            return self._member(source, request, place), 0.0
        members = source.members_of(request.quantity, request.level, place)
        if request.kind == "spread":
            if len(members) < 2:
                raise ValueError(f"{source.name} has one member, and the spread needs 2.")
            return np.asarray(spread_of(members)), request.quantity.size_of(members)
        if request.kind == "probability":
            happens = members < request.threshold if request.below else members > request.threshold
            return np.asarray(np.where(np.isnan(members).any(0), np.nan, 100 * happens.mean(0))), 0.0
        if request.kind in ("minimum", "maximum"):
            return np.asarray(members.min(0) if request.kind == "minimum" else members.max(0)), 0.0
        mean = _mean(members)
        if request.kind == "mean":
            return mean, 0.0
        other = self._climate if request.kind == "anomaly" else self._other_mean
        return np.asarray(mean - other(source, request)), request.quantity.size_of(mean)

    def _member(self, source: Source, request: FieldRequest, place: tuple[int, int]) -> Plane:
        if request.member not in source.members:
            raise ValueError(f"{source.name} has no member {request.member}; it has {_span(source.members)}.")
        one = source.dataset
        if "number" in one.dims:  # of latents, nothing else is decoded
            index = source.members.index(request.member)
            one = one.isel(number=slice(index, index + 1))
        return np.asarray(Source(source.name, one).members_of(request.quantity, request.level, place)[0])

    def _climate(self, source: Source, request: FieldRequest) -> Plane:
        quantity, held = request.quantity, source.anomaly_levels(request.quantity)
        if held is None or source.climatology is None or (quantity.on_levels and request.level not in held):
            raise ValueError(f"There is no climatology of {quantity.title.lower()} for {source.name} to compare with.")
        means = source.climatology.at("mean", np.array([request.valid]), quantity.variables)
        return np.asarray(Source("climatology", means).members_of(quantity, request.level, (0, 0))[0])

    def _other_mean(self, source: Source, request: FieldRequest) -> Plane:
        other = self.source(request.other)
        if any(not np.array_equal(source.dataset[name], other.dataset[name]) for name in ("latitude", "longitude")):
            raise ValueError(f"{source.name} and {other.name} lie on different grids: there is no difference of maps.")
        place = other.locate(request.valid, request.init)
        return _mean(other.members_of(request.quantity, request.level, place))

    def series(self, number: int, init: np.datetime64, where: Place) -> Iterator[dict[str, Any]]:
        """Yields the nearest grid point, and then, lead time by lead time, the members and the analysis there.

        At lead time 0 a box has no members: all are the analysis there, and sums are of the hours before.

        Raises:
            ValueError: there is no such initial time.
        """
        source = self.source(number)
        truth = next((other for other in self.sources if not other.is_forecast and other is not source), None)
        shown = [name for name in METEOGRAM if source.levels(QUANTITIES[name]) is not None]
        row, column = where.nearest(source.dataset)
        at = {name: float(source.dataset[name].values[i]) for name, i in (("latitude", row), ("longitude", column))}
        yield {**at, "quantities": shown, "count": len(source.leads) if source.is_forecast else len(source.times)}
        valid = init + source.leads if source.is_forecast else source.times
        for time in valid:
            begins = source.is_forecast and time == init
            summed = {name for name in shown if begins and QUANTITIES[name].accumulated_hours}
            boxed = set(shown) if begins and len(source.members) >= FEWEST_IN_BOXES else summed
            values = {name: [] if name in boxed else _at(source, name, time, init, where) for name in shown}
            known: dict[str, list[float | None]] = {}
            if truth is not None:
                known = {name: _at(truth, name, time, None, where)[:1] for name in shown if name not in summed}
            yield {"valid": _minutes(time), "values": values, "truth": {name: v[0] for name, v in known.items() if v}}


def _mean(members: Float[np.ndarray, "member lat lon"]) -> Plane:
    """Returns the mean of members, taken about the first: exactly the analysis where all of them are."""
    return np.asarray(members[0] + (members - members[0]).mean(0))


def _at(source: Source, name: str, time: np.datetime64, init: np.datetime64 | None, where: Place) -> list[float | None]:
    """Returns the members at the nearest point, None for NaN; none where the source has no such frame."""
    try:
        place = source.locate(time, init)
        values = source.members_of(QUANTITIES[name], None, place, where.nearest(source.dataset))
    except ValueError:
        if source.is_forecast:
            raise
        return []
    return [None if np.isnan(value) else round(float(value), 4) for value in values]


def _describe(source: Source) -> dict[str, Any]:
    ds = source.dataset
    held = {name: source.levels(quantity) for name, quantity in QUANTITIES.items()}
    anomalies = {name: source.anomaly_levels(quantity) for name, quantity in QUANTITIES.items()}
    return {
        "name": source.name,
        "about": str(ds.attrs.get("source", "")),
        "unreal": bool(ds.attrs.get("unreal")),
        "forecast": source.is_forecast,
        "times": [_minutes(time) for time in source.times],
        "lead_hours": [float(lead / HOUR) for lead in source.leads],
        "members": source.members,
        "latitude": ds["latitude"].values.round(4).tolist(),
        "longitude": ds["longitude"].values.round(4).tolist(),
        "quantities": {name: levels for name, levels in held.items() if levels is not None},
        "anomalies": {name: levels for name, levels in anomalies.items() if levels is not None},
    }


def _minutes(time: np.datetime64) -> str:
    return str(time.astype("datetime64[m]"))


def _span(numbers: Sequence[int]) -> str:
    return f"{numbers[0]} to {numbers[-1]}"


@dataclass
class Storms:
    """The tracks of one forecast: of a file that `ladcast track --all` made of it, else found when first asked for."""

    source: Source
    file: Path | None = None
    _found: dict[np.datetime64, xr.Dataset] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def of(self, init: np.datetime64) -> xr.Dataset:
        """Returns the table of tracks from an initial time."""
        with self._lock:
            if init not in self._found:
                self._found[init] = self._read(init)
            return self._found[init]

    def _read(self, init: np.datetime64) -> xr.Dataset:
        if self.file is not None:
            tracks = read_tracks(self.file)
            if are_all_lows(tracks, self.source.dataset, init):  # not of one storm, nor of what the store held before
                return rows(tracks, tracks["start"].values == init)
        return find_tracks(self.source.dataset.sel(time=[init]), TrackOptions(), None)

    def lines(self, init: np.datetime64) -> dict[str, Any]:
        """Returns the tracks as lists: one for each storm of each member, with hours since the initial time."""
        table = self.of(init)
        _, owner = group(table, ("storm", "number"))
        lines = []
        for index in range(int(owner.max(initial=-1)) + 1):
            one = rows(table, owner == index)
            lines.append(
                {
                    "storm": str(one["storm"].values[0]),
                    "member": int(one["number"].values[0]),
                    "hours": ((one["time"].values - init) / HOUR).tolist(),
                    "latitude": one["latitude"].values.round(2).tolist(),
                    "longitude": one["longitude"].values.round(2).tolist(),
                    "msl": (one["msl"].values / 100).round(1).tolist() if "msl" in one else [],
                }
            )
        return {"tracks": lines, "members": with_members(table)}

    def strikes(self, init: np.datetime64) -> tuple[Plane, Grid]:
        """Returns the share of members, in per cent, that pass within 120 km of each point on a grid of 1 degree."""
        grid, table = Grid.parse(VERIFIED_GRID), self.of(init)
        return 100 * strike_probability(table, grid, every=True).values, grid


ABOUT_STRIKES = f"share of members with a low within {STRIKE_RADIUS_KM:g} km, at any lead time"
