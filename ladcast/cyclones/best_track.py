"""Reads best tracks: IBTrACS (CSV and netCDF), HURDAT2 and ATCF b-decks, all to the same table.

Winds come out in m/s and pressures in Pa. Agencies average winds over 1, 2 or 10 minutes: those of IBTrACS are its WMO
columns as they are, not mixed with others.
"""

from __future__ import annotations

import csv
import gzip
import re
from collections.abc import Callable, Iterable, Iterator
from io import TextIOWrapper
from pathlib import Path

import numpy as np
import xarray as xr

from ladcast.constants import KNOT
from ladcast.cyclones.atcf import read_b_deck, read_hurdat2
from ladcast.cyclones.records import Record, best_track_table, missing_or
from ladcast.cyclones.table import rows
from ladcast.times import STEP

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


def read_best_tracks(path: Path, *, synoptic: bool = True) -> xr.Dataset:
    """Reads a file of best tracks; its format is recognised by its content.

    `synoptic` keeps 00, 06, 12 and 18 UTC alone. Of IBTrACS, spur tracks (positions that agencies disagree on) are left
    out. Files may be gzipped.

    Raises:
        FileNotFoundError: there is no file.
        ValueError: the format is none of these, or a row is broken; the message names the line.
    """
    if not path.is_file():
        raise FileNotFoundError(f"No best tracks at {path}: expected IBTrACS (.csv or .nc), HURDAT2 or a b-deck.")
    table = read_ibtracs_netcdf(path) if path.suffix == ".nc" else _read_text(path)
    if synoptic:
        table = rows(table, (table["time"].values - table["time"].values.astype("datetime64[D]")) % STEP == 0)
    if not table.sizes["point"]:
        raise ValueError(
            f"{path} holds no position at the times asked for. Read it with synoptic=False, or replace it."
        )
    return table.assign_attrs(source=path.name)


def read_ibtracs_csv(lines: Iterable[str], where: str) -> Iterator[Record]:
    """Yields the records of an IBTrACS list (v04), whose second row holds units."""
    reader = csv.reader(lines)
    header = [name.strip() for name in next(reader, [])]
    columns = {
        ours: next((header.index(name) for name in theirs if name in header), None) for ours, theirs in NAMES.items()
    }
    if lacking := [NAMES[ours][0] for ours, column in columns.items() if column is None and ours not in OPTIONAL]:
        raise ValueError(f"{where}: expected the columns of IBTrACS, {', '.join(lacking)} missing in line 1.")
    for number, row in enumerate(reader, start=2):
        if not row or (number == 2 and not row[0].strip()):
            continue
        if len(row) != len(header):
            raise ValueError(
                f"{where}, line {number}: expected {len(header)} columns as in line 1, got {len(row)}. The file is "
                "damaged or cut off: fetch it again."
            )
        cells = {ours: "" if column is None else row[column].strip() for ours, column in columns.items()}
        if not cells["kind"].startswith("spur"):
            yield _ibtracs_record(cells, f"{where}, line {number}")


def read_ibtracs_netcdf(path: Path) -> xr.Dataset:
    """Reads IBTrACS as netCDF (v04), with dimensions storm and date_time."""
    with xr.open_dataset(path, engine="netcdf4") as ds:
        if lacking := [name for name in ("sid", "time", "lat", "lon") if name not in ds.variables]:
            raise ValueError(f"{path}: expected the variables of IBTrACS, {', '.join(lacking)} missing.")
        ds = ds.load()
    shape = ds["lat"].shape
    spur = np.char.startswith(_texts(ds, "track_type", shape), "spur")
    there = np.isfinite(ds["lat"].values) & np.isfinite(ds["lon"].values) & ~spur
    # Times are floats of days: rounding brings back whole minutes.
    minutes = (ds["time"].values.astype("datetime64[ns]") + np.timedelta64(30, "s")).astype("datetime64[m]")
    columns = {
        "storm": _texts(ds, "sid", shape),
        "name": _texts(ds, "name", shape),
        "time": minutes,
        "latitude": ds["lat"].values,
        "longitude": ds["lon"].values,
        "wind": ds["wmo_wind"].values * KNOT,
        "msl": ds["wmo_pres"].values * 100,
    }
    return best_track_table({name: values[there] for name, values in columns.items()})


def _read_text(path: Path) -> xr.Dataset:
    with _open_text(path) as file:
        first = file.readline()
        file.seek(0)
        records = list(_reader_for(first, path)(file, str(path)))
    columns = {name: [getattr(record, name) for record in records] for name in Record.__dataclass_fields__}
    return best_track_table(columns)


def _open_text(path: Path) -> TextIOWrapper:
    if path.suffix == ".gz":
        return gzip.open(path, "rt")
    return path.open(newline="")


def _reader_for(first: str, path: Path) -> Callable[[Iterable[str], str], Iterator[Record]]:
    if re.match(r"\s*[A-Z]{2}\d{6}\s*,", first):
        return read_hurdat2
    if re.match(r"\s*[A-Z]{2}\s*,\s*\d{1,2}\s*,\s*\d{10}\s*,", first):
        return read_b_deck
    if "," in first and {"SID", "track_id"} & {cell.strip() for cell in first.split(",")}:
        return read_ibtracs_csv
    raise ValueError(
        f"{path}: expected IBTrACS (a header with SID), HURDAT2 (AL012017, ...) or a b-deck (AL, 12, 2005082318, ...), "
        f"got a first line '{first.strip()[:60]}'."
    )


def _ibtracs_record(cells: dict[str, str], where: str) -> Record:
    try:
        return Record(
            storm=cells["storm"],
            name=cells["name"],
            time=np.datetime64(cells["time"].replace(" ", "T"), "ns"),
            latitude=float(cells["latitude"]),
            longitude=float(cells["longitude"]),
            wind=missing_or(cells["wind"], KNOT),
            msl=missing_or(cells["msl"], 100.0),
        )
    except ValueError as error:
        shown = ", ".join(f"{NAMES[name][0]} '{value}'" for name, value in cells.items() if name != "kind")
        raise ValueError(f"{where}: expected a storm, a time and numbers, got {shown} ({error}).") from None


def _texts(ds: xr.Dataset, name: str, shape: tuple[int, ...]) -> np.ndarray:
    values = ds[name].values
    texts = np.char.decode(values, "utf-8") if values.dtype.kind == "S" else values.astype("U")
    return np.broadcast_to(texts.reshape(texts.shape + (1,) * (len(shape) - texts.ndim)), shape)
