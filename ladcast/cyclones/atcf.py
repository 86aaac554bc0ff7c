"""Reads two comma-separated formats of the United States' warning centres: HURDAT2 and ATCF b-decks.

Formats: Landsea and Franklin (2013, doi:10.1175/MWR-D-12-00254.1); ATCF "best track" files of the Naval Research
Laboratory.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from ladcast.cyclones.table import Record, missing_or
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
            storm, name, expected = _header(cells, f"{where}, line {number}")
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
            raise _broken(
                line,
                "a b-deck row such as AL, 12, 2005082318, , BEST, 0, 231N, 751W, 30, 1008",
                f"{where}, line {number}",
                error,
            ) from None
    if forecasts:
        warnings.warn(
            f"{where}: leaves out {forecasts} rows of forecasts; best tracks are BEST at hour 0.", stacklevel=2
        )


def _header(cells: list[str], where: str) -> tuple[str, str, int]:
    try:
        return cells[0], cells[1], int(cells[2])
    except (ValueError, IndexError) as error:
        raise _broken(", ".join(cells), "a header such as AL122005, KATRINA, 29,", where, error) from None


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
