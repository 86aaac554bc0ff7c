"""Reads ensemble tracks of tropical cyclones as ECMWF publishes them, in BUFR: a system to compare with.

One message holds one storm, and a subset per member. Descriptors: analysed position, then for each forecast period the
centre with its pressure and the place of the strongest wind (WMO template 3 16 082).
"""

from __future__ import annotations

import faulthandler
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from ladcast.cyclones.table import make_table
from ladcast.times import HOUR

CENTRES = (1, 4)
"""Code table 0 08 005: 1 centre of the storm, 4 its centre in the perturbed analysis."""
PERTURBED_MEMBERS = 50
"""Beyond them come the control (51) and the high-resolution forecast (52)."""
MISSING_INTEGER, LARGEST = 2**31 - 1, 1e20
"""What stands for a missing value: this integer, or a number beyond this one."""
LONGEST_HOURS = 1000
HEADING_BYTES = 256

Columns = dict[str, npt.NDArray[Any]]


def is_bufr(path: Path) -> bool:
    """Says whether a file begins with a BUFR message, before which there may be the heading of a bulletin."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return b"BUFR" in file.read(HEADING_BYTES)


def read_ensemble_tracks(path: Path, *, perturbed: bool = True) -> xr.Dataset:
    """Reads forecast tracks of all storms in a BUFR file; needs the package `eccodes`.

    Storms carry ECMWF's identifiers (`27W`); `identify` finds their best tracks. `perturbed` keeps members 1 to 50.

    Raises:
        FileNotFoundError: there is no file.
        ValueError: the file holds no message with cyclone tracks, or a damaged one.
    """
    if not path.is_file():
        raise FileNotFoundError(f"No file at {path}: expected BUFR with ensemble tracks of tropical cyclones.")
    parts = _decode_apart(path)
    if not parts:
        raise ValueError(f"{path} holds no BUFR message with cyclone tracks. Check what was fetched.")
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    asked = (columns["number"] <= PERTURBED_MEMBERS) | (not perturbed)
    kept = np.isfinite(columns["latitude"]) & asked
    return make_table(
        {name: values[kept] for name, values in columns.items()},
        members=len(np.unique(columns["number"][asked])),
        source=f"ECMWF ensemble ({path.name})",
        rules="tracks as ECMWF found them",
    )


def _decode_apart(path: Path) -> list[Columns]:
    """Decodes a file in a process of its own: eccodes ends the process, or corrupts its memory, on some damage."""
    with ProcessPoolExecutor(1, get_context("fork"), initializer=faulthandler.disable) as apart:
        try:
            return apart.submit(_decode, path).result()
        except BrokenProcessPool:
            raise _damaged(path, "eccodes ended the process") from None


def _decode(path: Path) -> list[Columns]:
    """Returns the columns of each storm at each of its times.

    Raises:
        ValueError: a message cannot be decoded, or holds what no cyclone has; the error names it.
    """
    eccodes = _eccodes()
    parts: list[Columns] = []
    with path.open("rb") as file:
        for number in count(1):
            try:
                message = eccodes.codes_bufr_new_from_file(file)
                if message is None:
                    break
                try:
                    eccodes.codes_set(message, "unpack", 1)
                    parts.extend(_storm(message))
                finally:
                    eccodes.codes_release(message)
            except (eccodes.CodesInternalError, ValueError) as error:
                raise _damaged(path, f"message {number}: {error}") from None
    return parts


def _damaged(path: Path, why: str) -> ValueError:
    return ValueError(
        f"{path}: expected BUFR with tracks of cyclones, got what cannot be read as that ({why}). The file is "
        "damaged, or holds other data: fetch it again."
    )


def _storm(message: int) -> Iterator[Columns]:
    """Yields the columns of one storm at each of its times, the analysis first."""
    members = _values(message, "ensembleMemberNumber", 1)
    date = [int(_stated(message, name, 1)) for name in ("year", "month", "day", "hour")]
    start = np.datetime64("{:04d}-{:02d}-{:02d}T{:02d}".format(*date), "ns")
    for step, (centre, hours) in enumerate(_periods(message), start=1):
        columns = {
            "latitude": _values(message, "latitude", centre),
            "longitude": _values(message, "longitude", centre),
            "msl": _values(message, "pressureReducedToMeanSeaLevel", step),
            "wind": _values(message, "windSpeedAt10M", step),
            "storm": np.array([_text(message, "stormIdentifier")], dtype=object),
            "name": np.array([_text(message, "longStormName")], dtype=object),
            "number": members.astype(int),
            "start": np.array([start]),
            "time": np.array([start + hours * HOUR]),
        }
        wrong = (abs(columns["latitude"]) > 90) | (abs(columns["longitude"]) > 360)  # NaN where a member has lost it
        if wrong.any() or not np.isfinite(members).all() or not 0 <= hours <= LONGEST_HOURS:
            raise ValueError(f"no place, member or lead time at step {step}")
        yield {name: np.broadcast_to(values, members.shape) for name, values in columns.items()}


def _periods(message: int) -> Iterator[tuple[int, int]]:
    """Yields the occurrence of each predicted centre among all positions, and its forecast period in hours.

    The first position is the observed one; the first centre after it belongs to the analysis.
    """
    eccodes, step = _eccodes(), 0
    for occurrence in count(2):
        if not eccodes.codes_is_defined(message, f"#{occurrence}#latitude"):
            return
        if _stated(message, "meteorologicalAttributeSignificance", occurrence) in CENTRES:
            yield occurrence, int(_stated(message, "timePeriod", step)) if step else 0
            step += 1


def _stated(message: int, name: str, occurrence: int) -> float:
    """Returns the value that all members share: a member that has lost the storm may lack it."""
    values = np.unique(_values(message, name, occurrence))
    if np.isfinite(values).sum() != 1:
        raise ValueError(f"{name} {occurrence} is {', '.join(map(str, values[:3]))}")
    return float(values[0])


def _values(message: int, name: str, occurrence: int) -> npt.NDArray[np.float64]:
    """Returns the values of an element's n-th occurrence, one per member or one for all; NaN where missing."""
    values = np.asarray(_eccodes().codes_get_array(message, f"#{occurrence}#{name}"), dtype=float)
    return np.where((abs(values) > LARGEST) | (values == MISSING_INTEGER), np.nan, values)


def _text(message: int, name: str) -> str:
    return str(_eccodes().codes_get(message, name)).strip()


def _eccodes() -> Any:
    try:
        import eccodes
    except ImportError:
        raise ImportError("Reading BUFR needs the package eccodes: pip install 'ladcast[grib]'.") from None
    return eccodes
