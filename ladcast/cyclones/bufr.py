"""Decodes ensemble tracks in BUFR, as a program of its own: bufr.py FILE writes their columns to its output, as .npz.

One message holds one storm, and a subset per member. Descriptors: analysed position, then for each forecast period the
centre with its pressure and the place of the strongest wind (WMO template 3 16 082). This file needs NumPy and ecCodes
alone, so that it starts fast.
"""

import io
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import eccodes
import numpy as np
import numpy.typing as npt

CENTRES = (1, 4)
"""Code table 0 08 005: 1 centre of the storm, 4 its centre in the perturbed analysis."""
MISSING_INTEGER, LARGEST = 2**31 - 1, 1e20
"""What stands for a missing value: this integer, or a number beyond this one."""
LONGEST_HOURS = 1000

Columns = dict[str, npt.NDArray[Any]]


def decode(path: Path) -> Columns:
    """Returns the columns of all storms at all times, by member; nothing where the file holds none.

    Raises:
        ValueError: a message cannot be decoded, or holds what no cyclone has; the error names it.
    """
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
                raise ValueError(f"message {number}: {error}") from None
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}


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
            "storm": np.array([_text_of(message, "stormIdentifier")]),
            "name": np.array([_text_of(message, "longStormName")]),
            "number": members.astype(int),
            "start": np.array([start]),
            "time": np.array([start + hours * np.timedelta64(1, "h")]),
        }
        wrong = (abs(columns["latitude"]) > 90) | (abs(columns["longitude"]) > 360)  # NaN where a member has lost it
        if wrong.any() or not np.isfinite(members).all() or not 0 <= hours <= LONGEST_HOURS:
            raise ValueError(f"no place, member or lead time at step {step}")
        yield {name: np.broadcast_to(values, members.shape) for name, values in columns.items()}


def _periods(message: int) -> Iterator[tuple[int, int]]:
    """Yields the occurrence of each predicted centre among all positions, and its forecast period in hours.

    The first position is the observed one; the first centre after it belongs to the analysis.
    """
    step = 0
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
    values = np.asarray(eccodes.codes_get_array(message, f"#{occurrence}#{name}"), dtype=float)
    return np.where((abs(values) > LARGEST) | (values == MISSING_INTEGER), np.nan, values)


def _text_of(message: int, name: str) -> str:
    return str(eccodes.codes_get(message, name)).strip()


if __name__ == "__main__":
    try:
        decoded = decode(Path(sys.argv[1]))
    except ValueError as error:
        sys.exit(" ".join(str(error).split()))  # with 1, and this as the last line of the error output
    buffer = io.BytesIO()
    np.savez(buffer, **decoded)  # type: ignore[arg-type]
    sys.stdout.buffer.write(buffer.getvalue())
