"""Reads GRIB files, edition 1 and 2, through cfgrib: an index of the headers, and fields decoded when they are read.

Fields are named as ecCodes names them (`gh`, `t`, `10u`, `lsm` ...), except that the temperature of the surface is
`skt` and its geopotential `zs`. Times are valid times. Precipitation, of any accumulation, becomes `tp6h` in metres
where it adds up to six hours.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from ladcast.data.derive import Window, accumulate, six_hour_parts
from ladcast.data.lazy import HORIZONTAL, lazy_maps
from ladcast.data.lexicon import ECCODES_NAMES
from ladcast.data.sources.base import need
from ladcast.fields import VARIABLES
from ladcast.times import describe, parse_time

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
    *("startStep", "endStep", "stepUnits", "gridType", "md5GridSection", "jPointsAreConsecutive"),
    *("iScansNegatively", "alternativeRowScanning"),
]
# ecCodes keeps global state while it reads messages that hold several fields, as GFS writes u and v.
_decoding = Lock()


@dataclass(frozen=True)
class Message:
    """One field of a GRIB file: where it lies, and what its header claims."""

    path: Path
    offset: Any
    header: dict[str, Any]

    @property
    def name(self) -> str:
        """Returns the ecCodes short name, but for what is the surface's own."""
        short = str(self.header["shortName"])
        return OF_THE_SURFACE.get(short, short) if self.header["typeOfLevel"] == "surface" else short

    @property
    def valid(self) -> np.datetime64:
        """Returns the time at which the field is valid, the end of an accumulation."""
        date, clock = f"{self.header['validityDate']:08d}", f"{self.header['validityTime']:04d}"
        return parse_time(f"{date[:4]}-{date[4:6]}-{date[6:]}T{clock[:2]}:{clock[2:]}")

    @property
    def window(self) -> Window:
        """Returns the interval of an accumulation."""
        hours = int(self.header["endStep"]) - int(self.header["startStep"])
        return Window(self.valid - np.timedelta64(hours, "h"), self.valid)

    def values(self) -> npt.NDArray[np.float32]:
        """Decodes the field, shape (latitude, longitude), NaN where the file has no value."""
        stream = need("cfgrib", "Reading GRIB", "grib").messages.FileStream(str(self.path))
        with _decoding:
            message = stream[self.offset]
            values = np.asarray(message["values"])
            shape, missing = (message["Ny"], message["Nx"]), message["missingValue"]
        return np.where(values == missing, np.nan, values).reshape(shape).astype(np.float32)


def is_grib(path: Path) -> bool:
    """Says whether a file begins as GRIB does, whatever it is called."""
    with path.open("rb") as file:
        return file.read(4) == MAGIC


def open_grib(paths: Iterable[Path], where: str, member: int | None = None) -> xr.Dataset:
    """Opens the known fields of GRIB files as one lazy dataset; what a level or time lacks is NaN.

    Raises:
        ValueError: no known field, another grid than regular or Gaussian, several grids or ensemble members, or a
            field that is there twice.
    """
    found = [message for path in paths for message in read_headers(path) if _known(message)]
    if not found:
        known = ", ".join((*UPPER, *SURFACE, *STATIC, PRECIPITATION))
        raise ValueError(f"{where}: expected GRIB fields such as {known}, got none of them. Choose another file.")
    coordinates = _horizontal(found, where)
    messages = _without_repeats(_one_member(found, member, where), where)
    times = np.unique([message.valid for message in messages if message.name not in STATIC])
    levels = np.unique([m.header["level:float"] for m in messages if m.name in UPPER])
    axes = {"time": times, "level": levels} | coordinates
    names = [name for name in (*UPPER, *SURFACE, *STATIC) if any(m.name == name for m in messages)]
    fields = {name: _field([m for m in messages if m.name == name], axes) for name in names}
    rain = _precipitation([m for m in messages if m.name == PRECIPITATION], axes)
    # Static fields alone need no time.
    used = {dim for field in (*fields.values(), *rain.values()) for dim in field.dims}
    coords = {dim: values for dim, values in axes.items() if dim in used}
    return xr.Dataset(fields | rain, coords, {"centre": str(messages[0].header["centre"])})


def read_headers(path: Path) -> Iterator[Message]:
    """Yields every field of a file, without decoding it; nothing is written beside the file.

    Raises:
        ValueError: the file cannot be read as GRIB.
    """
    messages, eccodes = need("cfgrib", "Reading GRIB", "grib").messages, need("eccodes", "Reading GRIB", "grib")
    try:
        stream = messages.FileStream(str(path), errors="raise")
        with _decoding:
            index = messages.FileIndex.from_fieldset(stream, HEADERS)
    except (EOFError, ValueError, eccodes.CodesInternalError) as error:
        raise ValueError(f"{path}: expected whole GRIB messages, got '{error}'. Download the file again.") from error
    for header, offsets in index.iter_index():
        for offset in offsets:
            yield Message(path, offset, dict(zip(index.index_keys, header, strict=True)))


def _known(message: Message) -> bool:
    if message.name in UPPER:
        return bool(message.header["typeOfLevel"] == "isobaricInhPa")
    return message.name in (*SURFACE, *STATIC, PRECIPITATION)


def _one_member(messages: Sequence[Message], member: int | None, where: str) -> list[Message]:
    present = sorted({int(m.header["number"]) for m in messages if m.header["number"] != "undef"})
    if len(present) > 1 and member is None:
        raise ValueError(
            f"{where}: expected one state, got an ensemble of {len(present)} members "
            f"({present[0]}..{present[-1]}). Choose one with member={present[0]} of open_store, or name a store that "
            "`ladcast forecast` wrote."
        )
    if member is not None and member not in present:
        raise ValueError(
            f"{where}: expected member {member}, got the members {present or 'of no ensemble'}. Choose another."
        )
    return [m for m in messages if member is None or m.header["number"] in ("undef", member)]


def _horizontal(messages: Sequence[Message], where: str) -> dict[str, npt.NDArray[Any]]:
    kinds = {str(m.header["gridType"]) for m in messages}
    if not kinds <= {"regular_ll", "regular_gg"}:
        raise ValueError(
            f"{where}: expected a regular latitude-longitude or Gaussian grid, got {', '.join(sorted(kinds))}. "
            "Interpolate it to a global grid first."
        )
    # The hash of the grid's own section is equal where the grids are, and cheap to compare.
    if len({m.header["md5GridSection"] for m in messages}) > 1:
        raise ValueError(f"{where}: expected one grid, got several in one set of files. Open them apart.")
    odd = [key for key in HEADERS[-3:] if messages[0].header[key] not in (0, "undef")]
    if odd:
        raise ValueError(f"{where}: expected rows from west to east, got the scanning mode {odd}. Rewrite the file.")
    stream = need("cfgrib", "Reading GRIB", "grib").messages.FileStream(str(messages[0].path))
    with _decoding:
        first = stream[messages[0].offset]
        longitude = np.array(first["distinctLongitudes"], dtype=np.float64)
        west = first["longitudeOfFirstGridPointInDegrees"]
        around = np.abs((longitude - west + 180) % 360 - 180)
        return {
            "latitude": np.array(first["distinctLatitudes"], dtype=np.float64),
            "longitude": np.roll(longitude, -around.argmin()),  # ecCodes sorts them where the grid begins east of 0
        }


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
        return _stacked(table[np.ix_(*points)] if points else table, shape)

    units = {"units": str(messages[0].header["units"])}
    return lazy_maps((*leading, *HORIZONTAL), (*table.shape, *shape), read, units)


def _stacked(chosen: npt.NDArray[np.object_], shape: tuple[int, ...]) -> npt.NDArray[Any]:
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
                metres = {number: _in_metres(messages[number]) for number, _ in parts[time]}
                block[place] = accumulate(metres, parts[time])
        return block

    attrs = {"units": "m", "derived": "tp over six hours"}
    return {"tp6h": lazy_maps(("time", *HORIZONTAL), (len(times), *shape), read, attrs)}


def _in_metres(message: Message) -> npt.NDArray[Any]:
    return message.values().astype(np.float64) * METRES_PER_UNIT[str(message.header["units"])]
