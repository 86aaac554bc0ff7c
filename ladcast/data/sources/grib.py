"""Reads GRIB files, edition 1 and 2, through cfgrib: an index of the headers, and fields decoded when they are read.

Fields are named as ecCodes names them (`gh`, `t`, `10u`, `lsm` ...), except that the temperature of the surface is
`skt` and its geopotential `zs`. Times are valid times. Precipitation, of any accumulation, becomes `tp6h` in metres
where it adds up to six hours.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
import xarray as xr

from ladcast.data.derive import Window, accumulate, six_hour_parts
from ladcast.data.lazy import HORIZONTAL, lazy_maps
from ladcast.data.lexicon import ECCODES_NAMES
from ladcast.data.sources.base import need
from ladcast.fields import VARIABLES
from ladcast.grid import TOLERANCE_DEG
from ladcast.times import HOUR, describe, parse_time

MAGIC = b"GRIB"
UPPER = (*(ECCODES_NAMES[name] for name, about in VARIABLES.items() if about.on_levels), "gh", "wz", "r")
SURFACE = (
    *(ECCODES_NAMES[name] for name, about in VARIABLES.items() if not (about.on_levels or about.accumulated_hours)),
    *("prmsl", "skt", "ci"),
)
STATIC = ("lsm", "orog", "zs")
"""What is read: our variables and what they can be derived from."""
OF_THE_SURFACE = {"t": "skt", "z": "zs"}
PRECIPITATION = "tp"
METRES_PER_UNIT = {"kg m**-2": 1e-3, "m": 1.0, "mm": 1e-3}
HEADERS = [
    *("shortName", "typeOfLevel", "level:float", "number", "validityDate", "validityTime", "units", "centre"),
    *("startStep", "endStep", "dataDate", "dataTime", "gridType", "md5GridSection", "jPointsAreConsecutive"),
    *("iScansNegatively", "alternativeRowScanning"),
]
SCANNING = HEADERS[-3:]
FORECAST = "ladcast_forecast"
"""The attribute of an opened dataset that says of which forecast its fields are, if they are no analyses."""
SHOWN_FORECASTS = 3
MISSING = 2**32 - 1
"""Four bytes of edition 2 that say nothing."""
LEAST_BYTES = {1: 21, 2: 5, 3: 14, 4: 9, 5: 11, 6: 6, 7: 5}
"""Of the sections of edition 2, by number."""
# ecCodes keeps global state while it reads messages that hold several fields, as GFS writes u and v.
_decoding = Lock()


@contextmanager
def decoding(path: Path) -> Iterator[Any]:
    """Yields the messages of a file to one thread at a time; raises ValueError where they make no sense to ecCodes."""
    cfgrib, eccodes = (need(name, "Reading GRIB", "ladcast[grib]") for name in ("cfgrib", "eccodes"))
    try:
        with _decoding:
            yield cfgrib.messages.FileStream(str(path), errors="raise")
    except (EOFError, KeyError, TypeError, ValueError, eccodes.CodesInternalError) as error:
        raise ValueError(f"{path}: expected whole GRIB messages, got '{error}'. Download the file again.") from error


@dataclass(frozen=True)
class Message:
    """One field of a GRIB file: where it lies, and what its header claims.

    `flipped` says that its rows run the other way than those of the first message.
    """

    path: Path
    offset: Any
    header: dict[str, Any]
    flipped: bool = False

    @property
    def name(self) -> str:
        """Returns the ecCodes short name, but for what is the surface's own."""
        short = str(self.header["shortName"])
        return OF_THE_SURFACE.get(short, short) if self.header["typeOfLevel"] == "surface" else short

    @cached_property
    def valid(self) -> np.datetime64:
        """Returns the time at which the field is valid, the end of an accumulation."""
        return self._time("validityDate", "validityTime")

    @cached_property
    def initial(self) -> np.datetime64:
        """Returns the time that a forecast starts from, or that of an analysis."""
        return self._time("dataDate", "dataTime")

    @cached_property
    def lead(self) -> np.timedelta64:
        """Returns the time from there to the field, or to the end of an accumulation."""
        return self._step("endStep")

    @cached_property
    def window(self) -> Window:
        """Returns the interval of an accumulation."""
        return Window(self.valid - (self.lead - self._step("startStep")), self.valid)

    @cached_property
    def forecast(self) -> str:
        """Returns of which forecast the field is; an analysis, a sum or what does not change is of none."""
        if not self.lead or self.name in (*STATIC, PRECIPITATION):
            return ""
        return f"{self.lead / HOUR:g} h from {describe(self.initial)}"

    def _time(self, date: str, clock: str) -> np.datetime64:
        day, hour = f"{self.header[date]:08d}", f"{self.header[clock]:04d}"
        return parse_time(f"{day[:4]}-{day[4:6]}-{day[6:]}T{hour[:2]}:{hour[2:]}")

    def _step(self, key: str) -> np.timedelta64:
        """Returns a step as a duration; ecCodes writes `6` for hours and `360m` for minutes."""
        found = re.fullmatch(r"(-?\d+)([hmsD]?)", str(self.header[key]))
        if found is None:
            raise ValueError(
                f"{self.path}: expected a step in days, hours, minutes or seconds, got {self.header[key]}."
            )
        unit = cast(Literal["D", "h", "m", "s"], found[2] or "h")
        return np.timedelta64(int(found[1]), unit)

    def values(self) -> npt.NDArray[np.float32]:
        """Decodes the field, shape (latitude, longitude), NaN where the file has no value."""
        with decoding(self.path) as stream:
            message = stream[self.offset]
            values = np.asarray(message["values"])
            shape, missing = (message["Ny"], message["Nx"]), message["missingValue"]
        rows = np.where(values == missing, np.nan, values).reshape(shape).astype(np.float32)
        return rows[::-1] if self.flipped else rows


def is_grib(path: Path) -> bool:
    """Says whether a file begins as GRIB does, whatever it is called."""
    with path.open("rb") as file:
        return file.read(4) == MAGIC


def open_grib(paths: Iterable[Path], where: str, member: int | None = None) -> xr.Dataset:
    """Opens the known fields of GRIB files as one lazy dataset; what a level or time lacks is NaN.

    Raises:
        ValueError: no known field, another grid than regular or Gaussian, several grids, ensemble members or lead
            times, or a field that is there twice.
    """
    found = [message for path in paths for message in read_headers(path) if is_known(message)]
    if not found:
        known = ", ".join((*UPPER, *SURFACE, *STATIC, PRECIPITATION))
        raise ValueError(f"{where}: expected GRIB fields such as {known}, got none of them. Choose another file.")
    coordinates, found = common_grid(found, where)
    messages = _without_repeats(_one_member(found, member, where), where)
    attrs = {"centre": str(messages[0].header["centre"]), **_forecast(messages, where)}
    times = np.unique([message.valid for message in messages if message.name not in STATIC])
    levels = np.unique([m.header["level:float"] for m in messages if m.name in UPPER])
    axes = {"time": times, "level": levels} | coordinates
    names = [name for name in (*UPPER, *SURFACE, *STATIC) if any(m.name == name for m in messages)]
    fields = {name: _field([m for m in messages if m.name == name], axes) for name in names}
    rain = _precipitation([m for m in messages if m.name == PRECIPITATION], axes)
    # Static fields alone need no time.
    used = {dim for field in (*fields.values(), *rain.values()) for dim in field.dims}
    coords = {dim: values for dim, values in axes.items() if dim in used}
    return xr.Dataset(fields | rain, coords, attrs)


def _forecast(messages: Sequence[Message], where: str) -> dict[str, str]:
    """Returns the attribute that says of which forecast the fields are; analyses have none."""
    states = [message for message in messages if message.name not in (*STATIC, PRECIPITATION)]
    lead_times = sorted({message.forecast.partition(" from")[0] for message in states})
    if len(lead_times) > 1:
        listed = ", ".join(lead or "analysis" for lead in lead_times)
        raise ValueError(f"{where}: expected states of one lead time, got those of several: {listed}. Open them apart.")
    forecasts = sorted({message.forecast for message in states} - {""})
    return {FORECAST: "; ".join(forecasts[:SHOWN_FORECASTS])} if forecasts else {}


def read_headers(path: Path) -> Iterator[Message]:
    """Yields every field of a file, without decoding it; nothing is written beside the file.

    Raises:
        ValueError: the file cannot be read as GRIB.
    """
    check_sections(path)
    with decoding(path) as stream:
        index = need("cfgrib", "Reading GRIB", "ladcast[grib]").messages.FileIndex.from_fieldset(stream, HEADERS)
    for header, offsets in index.iter_index():
        for offset in offsets:
            yield Message(path, offset, dict(zip(index.index_keys, header, strict=True)))


def check_sections(path: Path) -> None:
    """Walks through the sections of all messages: ecCodes ends the whole process where their lengths are damaged.

    Raises:
        ValueError: lengths or numbers of points contradict each other; the message says where.
    """
    if not path.stat().st_size:
        raise ValueError(f"{path}: expected GRIB messages, got an empty file. Download the file again.")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        at = content.find(MAGIC)
        while at >= 0:
            first, length = (8, 8) if content[at + 7 : at + 8] == b"\2" else (4, 3)
            size = int.from_bytes(content[at + first : at + first + length], "big")
            fault = f"ends after {len(content) - at} of {size} bytes" if at + max(size, 8) > len(content) else ""
            fault = fault or (_fault_of_edition_2 if content[at + 7] == 2 else _fault_of_edition_1)(content, at, size)
            if fault:
                raise ValueError(
                    f"{path}: expected whole GRIB messages, got one at byte {at} that {fault}. Download the file again."
                )
            at = content.find(MAGIC, at + max(size, 8))


def _fault_of_edition_1(content: mmap.mmap, at: int, size: int) -> str:
    if content[at + 7] != 1:
        return f"is of edition {content[at + 7]}"
    if size & 0x800000:  # the length of very long messages is written in another way
        return ""
    flags, place = content[at + 15], at + 8
    least = [28, *([32] if flags & 0x80 else []), *([6] if flags & 0x40 else []), 11]
    for shortest in least:
        length = int.from_bytes(content[place : place + 3], "big")
        if not shortest <= length <= at + size - place:
            return f"has a section of {length} bytes"
        place += length
    return "" if content[place : place + 4] == b"7777" and place + 4 == at + size else "does not end where it says"


def _fault_of_edition_2(content: mmap.mmap, at: int, size: int) -> str:
    place, before, points, values = at + 16, 0, 0, 0
    while place < at + size - 4:
        length, number = int.from_bytes(content[place : place + 4], "big"), content[place + 4]
        if length < LEAST_BYTES.get(number, size) or length > at + size - place:
            return f"has a section {number} of {length} bytes"
        if not (number > before or (before == 7 and number > 1)):
            return f"has section {number} after section {before}"
        if number == 3:
            points = int.from_bytes(content[place + 6 : place + 10], "big")
            template = int.from_bytes(content[place + 12 : place + 14], "big")
            columns, rows = (int.from_bytes(content[place + k : place + k + 4], "big") for k in (30, 34))
            # Of a reduced grid, which is named later on, the number of columns is missing.
            if template in (0, 40) and columns != MISSING and columns * rows != points:
                return f"has {columns} x {rows} points, or {points}"
        if number == 5:
            values = int.from_bytes(content[place + 5 : place + 9], "big")
            if values > points:
                return f"has {values} values at {points} points"
        place, before = place + length, number
    return "" if before == 7 and content[place : place + 4] == b"7777" else "does not end where it says"


def is_known(message: Message) -> bool:
    """Says whether a field is one of ours, or what ours are derived from."""
    if message.name in UPPER:
        return bool(message.header["typeOfLevel"] == "isobaricInhPa")
    if message.name == PRECIPITATION:
        return message.header["units"] in METRES_PER_UNIT
    return message.name in (*SURFACE, *STATIC)


def _one_member(messages: Sequence[Message], member: int | None, where: str) -> list[Message]:
    present = sorted({int(m.header["number"]) for m in messages if m.header["number"] != "undef"})
    if len(present) > 1 and member is None:
        raise ValueError(
            f"{where}: expected one state, got an ensemble of {len(present)} members "
            f"({present[0]}..{present[-1]}). Cut one out (`grib_copy -w number={present[0]}`), or name a "
            "forecast where one is meant."
        )
    if member is not None and member not in present:
        raise ValueError(
            f"{where}: expected member {member}, got the members {present or 'of no ensemble'}. Choose another."
        )
    return [m for m in messages if member is None or m.header["number"] in ("undef", member)]


def common_grid(messages: Sequence[Message], where: str) -> tuple[dict[str, npt.NDArray[np.float64]], list[Message]]:
    """Returns the coordinates of the one grid that all messages lie on, and the messages with their order of rows."""
    kinds = {str(m.header["gridType"]) for m in messages}
    if not kinds <= {"regular_ll", "regular_gg"}:
        raise ValueError(
            f"{where}: expected a regular latitude-longitude or Gaussian grid, got {', '.join(sorted(kinds))}. "
            "Interpolate it to a global grid first."
        )
    # The hash of the grid's section tells whose points must be compared: editions write the same grid differently.
    one_each = {message.header["md5GridSection"]: message for message in messages}
    grids = {section: _points(message) for section, message in one_each.items()}
    odd = [key for message in one_each.values() for key in SCANNING if message.header[key] not in (0, "undef")]
    if odd:
        raise ValueError(f"{where}: expected rows from west to east, got the scanning mode {odd}. Rewrite the file.")
    latitude, longitude = first = grids[messages[0].header["md5GridSection"]]
    flipped = {section: _same(grid, (latitude[::-1], longitude)) for section, grid in grids.items()}
    if not all(_same(grid, first) or flipped[section] for section, grid in grids.items()):
        raise ValueError(f"{where}: expected one grid, got several in one set of files. Open them apart.")
    ordered = [replace(message, flipped=flipped[message.header["md5GridSection"]]) for message in messages]
    return {"latitude": latitude, "longitude": longitude}, ordered


GridPoints = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]


def _points(message: Message) -> GridPoints:
    """Returns latitudes and longitudes in the order of a message's rows and columns."""
    with decoding(message.path) as stream:
        field = stream[message.offset]
        longitude = np.array(field["distinctLongitudes"], dtype=np.float64)
        west = field["longitudeOfFirstGridPointInDegrees"]
        around = np.abs((longitude - west + 180) % 360 - 180)
        # ecCodes sorts them where the grid begins east of 0.
        return np.array(field["distinctLatitudes"], dtype=np.float64), np.roll(longitude, -around.argmin())


def _same(one: GridPoints, other: GridPoints) -> bool:
    return all(a.shape == b.shape and abs(a - b).max() < TOLERANCE_DEG for a, b in zip(one, other, strict=True))


def _without_repeats(messages: Sequence[Message], where: str) -> list[Message]:
    """Drops a field that is there again with the same values, as GFS writes the height of 1000 hPa twice."""
    kept: dict[tuple[Any, ...], Message] = {}
    for message in messages:
        level = message.header["level:float"] if message.name in UPPER else None
        time = None if message.name in STATIC else message.window if message.name == PRECIPITATION else message.valid
        first = kept.setdefault((message.name, level, time), message)
        if first is message or message.name in STATIC:
            continue
        if not np.array_equal(first.values(), message.values(), equal_nan=True):
            at = f"{describe(message.valid)}{f' at {level:g} hPa' if level else ''}"
            raise ValueError(
                f"{where}: '{message.name}' of {at} is there twice, with other values, in {first.path.name} and "
                f"{message.path.name}. Keep the fields of one analysis or one forecast."
            )
    return list(kept.values())


def _field(messages: Sequence[Message], axes: dict[str, npt.NDArray[Any]]) -> xr.Variable:
    """Arranges the messages of one name by time and level; nothing is decoded until it is read."""
    name = messages[0].name
    leading = () if name in STATIC else ("time", "level") if name in UPPER else ("time",)
    table = np.full([len(axes[dim]) for dim in leading], None, dtype=object)
    for message in messages:
        key = {"time": message.valid, "level": message.header["level:float"]}
        table[tuple(int(np.searchsorted(axes[dim], key[dim])) for dim in leading)] = message
    shape = tuple(len(axes[dim]) for dim in HORIZONTAL)

    def read(*points: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        return stacked(table[np.ix_(*points)] if points else table, shape)

    units = {"units": str(messages[0].header["units"])}
    return lazy_maps((*leading, *HORIZONTAL), (*table.shape, *shape), read, units)


def stacked(chosen: npt.NDArray[np.object_], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Decodes an array of messages, on a grid of this shape; NaN where there is none."""
    block = np.full((*chosen.shape, *shape), np.nan, dtype=np.float32)
    for place, message in np.ndenumerate(chosen):
        if message is not None:
            block[place] = message.values()
    return block


def _precipitation(messages: Sequence[Message], axes: dict[str, npt.NDArray[Any]]) -> dict[str, xr.Variable]:
    parts = six_hour_parts([message.window for message in messages])
    if not parts:
        return {}
    times, shape = axes["time"], tuple(len(axes[dim]) for dim in HORIZONTAL)

    def read(points: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        block = np.full((len(points), *shape), np.nan, dtype=np.float32)
        for place, time in enumerate(times[points]):
            if time in parts:
                metres = {number: in_metres(messages[number]) for number, _ in parts[time]}
                block[place] = accumulate(metres, parts[time])
        return block

    attrs = {"units": "m", "derived": "tp over six hours"}
    return {"tp6h": lazy_maps(("time", *HORIZONTAL), (len(times), *shape), read, attrs)}


def in_metres(message: Message) -> npt.NDArray[Any]:
    """Returns the field of a sum of precipitation in metres."""
    return message.values().astype(np.float64) * METRES_PER_UNIT[str(message.header["units"])]
