"""Reads ensemble tracks of tropical cyclones as ECMWF publishes them, in BUFR: a system to compare with.

One message holds one storm, and a subset per member. Descriptors: analysed position, then for each forecast period the
centre with its pressure and the place of the strongest wind (WMO template 3 16 082).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import xarray as xr

from ladcast.cyclones.table import make_table
from ladcast.times import HOUR

CENTRES = (1, 4)
"""Code table 0 08 005: 1 centre of the storm, 4 its centre in the perturbed analysis."""
PERTURBED_MEMBERS = 50
"""Beyond them come the control (51) and the high-resolution forecast (52)."""
LARGEST = 1e20
"""Beyond it a value stands for a missing one."""
HEADING_BYTES = 256


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
        ValueError: the file holds no message with cyclone tracks.
    """
    if not path.is_file():
        raise FileNotFoundError(f"No file at {path}: expected BUFR with ensemble tracks of tropical cyclones.")
    with path.open("rb") as file:
        parts = [columns for message in _messages(file) for columns in _storm(message)]
    if not parts:
        raise ValueError(f"{path} holds no BUFR message with cyclone tracks. Check what was fetched.")
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    kept = np.isfinite(columns["latitude"]) & ((columns["number"] <= PERTURBED_MEMBERS) | (not perturbed))
    members = len(np.unique(columns["number"][(columns["number"] <= PERTURBED_MEMBERS) | (not perturbed)]))
    return make_table(
        {name: values[kept] for name, values in columns.items()},
        members=members,
        source=f"ECMWF ensemble ({path.name})",
        rules="tracks as ECMWF found them",
    )


def _messages(file: BinaryIO) -> Iterator[int]:
    eccodes = _eccodes()
    while (message := eccodes.codes_bufr_new_from_file(file)) is not None:
        try:
            eccodes.codes_set(message, "unpack", 1)
            yield message
        finally:
            eccodes.codes_release(message)


def _storm(message: int) -> Iterator[dict[str, npt.NDArray[Any]]]:
    """Yields the columns of one storm at each of its times, the analysis first."""
    members = _values(message, "ensembleMemberNumber", 1).astype(int)
    start = np.datetime64(
        "{:04.0f}-{:02.0f}-{:02.0f}T{:02.0f}".format(
            *(_values(message, name, 1)[0] for name in ("year", "month", "day", "hour"))
        ),
        "ns",
    )
    for step, (centre, hours) in enumerate(_periods(message), start=1):
        columns = {
            "latitude": _values(message, "latitude", centre),
            "longitude": _values(message, "longitude", centre),
            "msl": _values(message, "pressureReducedToMeanSeaLevel", step),
            "wind": _values(message, "windSpeedAt10M", step),
            "storm": np.array([_text(message, "stormIdentifier")], dtype=object),
            "name": np.array([_text(message, "longStormName")], dtype=object),
            "number": members,
            "start": np.array([start]),
            "time": np.array([start + hours * HOUR]),
        }
        yield {name: np.broadcast_to(values, members.shape) for name, values in columns.items()}


def _periods(message: int) -> Iterator[tuple[int, int]]:
    """Yields the occurrence of each predicted centre among all positions, and its forecast period in hours.

    The first position is the observed one; the first centre after it belongs to the analysis.
    """
    eccodes, step = _eccodes(), 0
    for occurrence in count(2):
        if not eccodes.codes_is_defined(message, f"#{occurrence}#latitude"):
            return
        if int(_values(message, "meteorologicalAttributeSignificance", occurrence)[0]) in CENTRES:
            yield occurrence, int(_values(message, "timePeriod", step)[0]) if step else 0
            step += 1


def _values(message: int, name: str, occurrence: int) -> npt.NDArray[np.float64]:
    """Returns the values of an element's n-th occurrence, one per member or one for all; NaN where missing."""
    values = np.asarray(_eccodes().codes_get_array(message, f"#{occurrence}#{name}"), dtype=float)
    return np.where(abs(values) > LARGEST, np.nan, values)


def _text(message: int, name: str) -> str:
    return str(_eccodes().codes_get(message, name)).strip()


def _eccodes() -> Any:
    try:
        import eccodes
    except ImportError:
        raise ImportError("Reading BUFR needs the package eccodes: pip install 'ladcast[grib]'.") from None
    return eccodes
