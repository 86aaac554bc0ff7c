"""Reads best tracks: IBTrACS (CSV and netCDF), HURDAT2 and ATCF b-decks, all to the same table.

Winds come out in m/s and pressures in Pa. Agencies average winds over 1, 2 or 10 minutes: those of IBTrACS are its WMO
columns as they are, not mixed with others. Formats: Landsea and Franklin (2013, doi:10.1175/MWR-D-12-00254.1); ATCF
"best track" files of the Naval Research Laboratory.
"""

from __future__ import annotations

import csv
import gzip
import re
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Bool

from ladcast.cyclones.table import Columns, Record, best_track_table, missing_or
from ladcast.times import STEP
from ladcast.units import KNOT

HEMISPHERES = {"N": 1.0, "S": -1.0, "E": 1.0, "W": -1.0}
B_DECK_NAME = 27
"""Column of the storm's name; early rows end before it."""


def read_hurdat2(lines: Iterable[str], where: str) -> Iterator[Record]:
    """Yields the records of a HURDAT2 file: a header (storm, name, number of rows), then its rows, and so on."""
    storm, name, expected, seen, header = "", "", 0, 0, 1
    for number, line in enumerate(lines, start=1):
        cells = [cell.strip() for cell in line.split(",")]
        if cells == [""]:
            continue
        if re.fullmatch(r"[A-Z]{2}\d{6}", cells[0]):
            _require_rows(storm, expected, seen, f"{where}, line {header}")
            try:
                storm, name, expected = cells[0], cells[1], int(cells[2])
            except (ValueError, IndexError) as error:
                raise _broken(
                    line, "a header such as AL122005, KATRINA, 29,", f"{where}, line {number}", error
                ) from None
            seen, header = 0, number
            continue
        seen += 1
        record = _hurdat2_record(storm, name, cells, f"{where}, line {number}")
        if abs(record.longitude) > 180:
            warnings.warn(f"{where}, line {number}: takes {cells[5]} across the date line.", stacklevel=2)
        yield record
    _require_rows(storm, expected, seen, f"{where}, line {header}")


def read_b_deck(lines: Iterable[str], where: str) -> Iterator[Record]:
    """Yields the records of an ATCF b-deck (rows of type BEST; several for one time where wind radii are given).

    Rows of forecasts are left out, and a warning says so. A season of the southern hemisphere carries the year it ends
    in, which the file's name tells (`bsh182025.dat`).
    """
    told = re.fullmatch(r"b[a-z]{2}\d{2}(\d{4})", Path(where).name.split(".")[0])
    year = told[1] if told else ""
    name, forecasts = "", 0
    for number, line in enumerate(lines, start=1):
        cells = [cell.strip() for cell in line.split(",")]
        if cells == [""]:
            continue
        if len(cells) > 5 and (cells[4] != "BEST" or cells[5] not in ("", "0")):
            forecasts += 1
            continue
        try:
            year = year or cells[2][:4]
            name = cells[B_DECK_NAME] if len(cells) > B_DECK_NAME and cells[B_DECK_NAME] else name
            yield Record(
                f"{cells[0]}{int(cells[1]):02d}{year}",
                name,
                _time(cells[2]),
                _degrees(cells[6], scale=0.1),
                _degrees(cells[7], scale=0.1),
                missing_or(cells[8], KNOT),
                missing_or(cells[9], 100.0),
            )
        except (ValueError, IndexError) as error:
            wanted = "a b-deck row such as AL, 12, 2005082318, , BEST, 0, 231N, 751W, 30, 1008"
            raise _broken(line, wanted, f"{where}, line {number}", error) from None
    if forecasts:
        said = f"{where}: leaves out {forecasts} rows of forecasts; best tracks are BEST at hour 0."
        warnings.warn(said, stacklevel=2)


def _hurdat2_record(storm: str, name: str, cells: list[str], where: str) -> Record:
    try:
        return Record(
            storm,
            name,
            _time(cells[0] + cells[1]),
            _degrees(cells[4]),
            _degrees(cells[5]),
            missing_or(cells[6], KNOT),
            missing_or(cells[7], 100.0),
        )
    except (ValueError, IndexError) as error:
        expected = "a row such as 20050823, 1800, , TD, 23.1N, 75.1W, 30, 1008"
        raise _broken(", ".join(cells), expected, where, error) from None


def _require_rows(storm: str, expected: int, seen: int, where: str) -> None:
    if expected != seen:
        raise ValueError(
            f"{where}: the header of {storm} promises {expected} rows, {seen} follow. The file is cut off?"
        )


def _time(digits: str) -> np.datetime64:
    if not re.fullmatch(r"\d{10}(\d{2})?", digits):
        raise ValueError(f"'{digits}' is no time")
    minute = digits[10:12] or "00"
    return np.datetime64(f"{digits[:4]}-{digits[4:6]}-{digits[6:8]}T{digits[8:10]}:{minute}", "ns")


def _degrees(text: str, scale: float = 1.0) -> float:
    return float(text[:-1]) * scale * HEMISPHERES.get(text[-1:], np.nan)


def _broken(line: str, expected: str, where: str, error: Exception) -> ValueError:
    return ValueError(f"{where}: expected {expected}, got '{line.strip()[:70]}' ({error}).")


NAMES = {
    "storm": ("SID", "track_id"),
    "name": ("NAME", "name"),
    "time": ("ISO_TIME", "time"),
    "latitude": ("LAT", "lat"),
    "longitude": ("LON", "lon"),
    "wind": ("WMO_WIND", "wind"),
    "msl": ("WMO_PRES", "slp"),
    "kind": ("TRACK_TYPE",),
}
"""Our columns, under their names in IBTrACS and in extracts of it that others ship."""
OPTIONAL = ("name", "wind", "msl", "kind")
UNITS = ("degrees_north", "degrees_east")
"""What the second row of a list has for positions."""
IBTRACS_TEXTS = {"storm": "sid", "name": "name"}
IBTRACS_NUMBERS = {
    "lat": ("latitude", 1.0),
    "lon": ("longitude", 1.0),
    "wmo_wind": ("wind", KNOT),
    "wmo_pres": ("msl", 100.0),
}
"""Variables of IBTrACS as netCDF, with our names and the factor to our units."""


def read_best_tracks(path: Path, *, synoptic: bool = True) -> xr.Dataset:
    """Reads a file of best tracks; its format is recognised by its content.

    `synoptic` keeps 00, 06, 12 and 18 UTC alone. Of IBTrACS, spur tracks (positions that agencies disagree on) are left
    out. Files may be gzipped. What no storm has is left out, and a warning says so (`best_track_table`).

    Raises:
        FileNotFoundError: there is no file.
        ValueError: the format is none of these, or a row is broken; the message names the line.
    """
    if not path.is_file():
        raise FileNotFoundError(f"No best tracks at {path}: expected IBTrACS (.csv or .nc), HURDAT2 or a b-deck.")
    try:
        columns = _netcdf_columns(path) if path.suffix == ".nc" else _text_columns(path)
    except (OSError, EOFError, RuntimeError, zlib.error, csv.Error) as error:  # of netCDF, too
        raise ValueError(
            f"{path}: expected a file of best tracks, it cannot be read ({error}). Fetch it again."
        ) from None
    if synoptic:
        kept = (columns["time"] - columns["time"].astype("datetime64[D]")) % STEP == 0
        columns = {name: values[kept] for name, values in columns.items()}
    if not len(columns["time"]):
        raise ValueError(
            f"{path} holds no position at the times asked for. Read it with synoptic=False, or replace it."
        )
    return best_track_table(columns, path).assign_attrs(source=path.name)


def _text_columns(path: Path) -> Columns:
    opener: Callable[..., Any] = gzip.open if path.suffix == ".gz" else open
    # some editors and languages begin with a byte-order mark
    with opener(path, "rt", encoding="utf-8-sig", errors="replace") as file:
        first = file.readline()
        file.seek(0)
        if {"SID", "track_id"} & {cell.strip().strip('"') for cell in first.split(",")}:
            return _csv_columns(file, path)
        records = list(_reader_for(first, path)(file, str(path)))
    columns = {name: np.array([getattr(record, name) for record in records]) for name in Record.__dataclass_fields__}
    return columns | {name: columns[name].astype(object) for name in ("storm", "name")}


def _csv_columns(lines: Iterator[str], path: Path) -> Columns:
    """Reads an IBTrACS list (v04), whose second row holds units; columns that others have put before are no matter.

    Whole columns are converted at once: of all storms since 1842 there are 710,000 rows of 174 columns.
    """
    header = [name.strip().strip('"') for name in next(lines).split(",")]
    places = {
        ours: next((header.index(name) for name in theirs if name in header), None) for ours, theirs in NAMES.items()
    }
    if lacking := [NAMES[ours][0] for ours, place in places.items() if place is None and ours not in OPTIONAL]:
        raise ValueError(f"{path}: expected the columns of IBTrACS, {', '.join(lacking)} missing in line 1.")
    there = {ours: place for ours, place in places.items() if place is not None}
    cells, numbers = _cells(lines, list(there.values()), len(header), path)
    texts = dict(zip(there, cells, strict=True))
    columns: Columns = {name: np.array(texts[name], dtype=object) for name in ("storm", "name") if name in texts}
    try:
        columns["time"] = np.array(texts["time"], dtype="datetime64[ns]")
        columns |= {name: np.array(texts[name], dtype=float) for name in ("latitude", "longitude")}
        columns |= {
            name: np.array([missing_or(text, factor) for text in texts[name]], dtype=float)
            for name, factor in (("wind", KNOT), ("msl", 100.0))
            if name in texts
        }
        if not (_on_globe(columns) & (columns["storm"] != "") & ~np.isnat(columns["time"])).all():
            raise ValueError
    except ValueError:
        raise _broken_row(texts, numbers, path) from None
    spur = np.array([kind.startswith("spur") for kind in texts.get("kind", [""] * len(numbers))], dtype=bool)
    return {name: values[~spur] for name, values in columns.items()}


def _cells(lines: Iterator[str], places: list[int], width: int, path: Path) -> tuple[list[tuple[str, ...]], list[int]]:
    """Returns the columns at `places` as texts, and the number of the line of each row."""
    pick, last, numbers, picked = itemgetter(*places), max(places), [], []
    for number, line in enumerate(lines, start=2):
        if not line.strip():
            continue
        quoted = '"' in line
        row = next(csv.reader([line])) if quoted else line.rstrip("\r\n").split(",", last + 1)
        found = len(row) if quoted else line.count(",") + 1
        if found != width:
            raise ValueError(
                f"{path}, line {number}: expected {width} columns as in line 1, got {found}. The file is damaged or "
                "cut off: fetch it again."
            )
        cells = tuple(map(str.strip, pick(row)))
        if number > 2 or not any(cell in UNITS for cell in cells):
            numbers.append(number)
            picked.append(cells)
    return list(zip(*picked, strict=True)) or [()] * len(places), numbers


def _broken_row(texts: Mapping[str, Sequence[str]], numbers: list[int], path: Path) -> ValueError:
    """Returns the error of the first row that cannot be a position."""
    for number, cells in zip(numbers, zip(*texts.values(), strict=True), strict=True):
        row = {"name": "", "wind": "", "msl": ""} | dict(zip(texts, cells, strict=True))
        try:
            Record(
                row["storm"],
                row["name"],
                np.datetime64(row["time"].replace(" ", "T"), "ns"),
                float(row["latitude"]),
                float(row["longitude"]),
                missing_or(row["wind"], KNOT),
                missing_or(row["msl"], 100.0),
            )
        except ValueError as error:
            shown = ", ".join(f"{NAMES[name][0]} '{row[name][:40]}'" for name in texts if name != "kind")
            return ValueError(
                f"{path}, line {number}: expected a storm, a time and numbers, got {shown} ({str(error)[:80]})."
            )
    return ValueError(f"{path}: expected a storm, a time and numbers in each row.")


def _netcdf_columns(path: Path) -> Columns:
    """Reads IBTrACS as netCDF (v04), of many storms or of one, with what it has of the optional variables."""
    with xr.open_dataset(path, engine="netcdf4") as ds:
        if lacking := [name for name in ("sid", "time", "lat", "lon") if name not in ds.variables]:
            raise ValueError(f"{path}: expected the variables of IBTrACS, {', '.join(lacking)} missing.")
        there = [
            name for name in ("time", *IBTRACS_TEXTS.values(), "track_type", *IBTRACS_NUMBERS) if name in ds.variables
        ]
        ds = ds[there].load()
    shape = ds["lat"].shape
    columns = {ours: _texts(ds[name], shape).astype(object) for ours, name in IBTRACS_TEXTS.items() if name in ds}
    # Times are floats of days: rounding brings back whole minutes.
    minutes = (ds["time"].values.astype("datetime64[ns]") + np.timedelta64(30, "s")).astype("datetime64[m]")
    columns["time"] = minutes.astype("datetime64[ns]")
    columns |= {ours: ds[name].values * factor for name, (ours, factor) in IBTRACS_NUMBERS.items() if name in ds}
    there = np.isfinite(ds["lat"].values) & np.isfinite(ds["lon"].values) & ~np.isnat(minutes)
    if "track_type" in ds:
        there &= ~np.char.startswith(_texts(ds["track_type"], shape), "spur")
    if not _on_globe(columns)[there].all():
        raise ValueError(f"{path}: expected lat within 90 and lon within 360 degrees. Fetch it again.")
    return {name: values[there] for name, values in columns.items()}


def _on_globe(columns: Columns) -> Bool[np.ndarray, "*point"]:
    return (abs(columns["latitude"]) <= 90) & (abs(columns["longitude"]) <= 360)


def _reader_for(first: str, path: Path) -> Callable[[Iterable[str], str], Iterator[Record]]:
    if re.match(r"\s*[A-Z]{2}\d{6}\s*,", first):
        return read_hurdat2
    if re.match(r"\s*[A-Z]{2}\s*,\s*\d{1,2}\s*,\s*\d{10}\s*,", first):
        return read_b_deck
    raise ValueError(
        f"{path}: expected IBTrACS (a header with SID), HURDAT2 (AL012017, ...) or a b-deck (AL, 12, 2005082318, ...), "
        f"got a first line '{first.strip()[:60]}'."
    )


def _texts(texts: xr.DataArray, shape: tuple[int, ...]) -> np.ndarray:
    """Returns texts, one for each storm or for each position, as one for each position."""
    values = texts.values
    values = np.char.decode(values, "utf-8") if values.dtype.kind == "S" else values.astype("U")
    return np.broadcast_to(values.reshape(values.shape + (1,) * (len(shape) - values.ndim)), shape)
