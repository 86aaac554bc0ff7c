"""Files of tracks: netCDF trajectories (CF), CSV and GeoJSON of ours, and BUFR as ECMWF publishes its ensemble's.

One BUFR message holds one storm, and a subset per member. Descriptors: analysed position, then for each forecast period
the centre with its pressure and the place of the strongest wind (WMO template 3 16 082).
"""

from __future__ import annotations

import csv
import faulthandler
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from ladcast.cyclones.table import COLUMNS, group, make_table, rows
from ladcast.documents import read_netcdf
from ladcast.files import whole_file
from ladcast.times import HOUR

PER_TRAJECTORY = ("storm", "name", "number", "start")
PLACES = {"latitude": 3, "longitude": 3, "msl": 1, "depth": 1, "warm_core": 1, "height": 0, "wind": 1}
"""Decimals in text formats; others have six significant digits."""


def write_tracks(tracks: xr.Dataset, path: Path) -> Path:
    """Writes a table of tracks, by suffix: .nc, .csv or .geojson. Readers see the old file or the whole new one.

    Raises:
        ValueError: the suffix is none of these.
    """
    writers: dict[str, Callable[[xr.Dataset, Path], None]] = {
        ".nc": _write_netcdf,
        ".csv": _write_csv,
        ".geojson": _write_geojson,
    }
    if path.suffix not in writers:
        raise ValueError(f"Expected a file of tracks named *{', *'.join(writers)}, got '{path.name}'.")
    with whole_file(path) as temporary:
        writers[path.suffix](tracks, temporary)
    return path


def read_tracks(path: Path) -> xr.Dataset:
    """Reads the table of tracks from a netCDF file that `write_tracks` wrote, or from BUFR as ECMWF publishes it."""
    if is_bufr(path):
        return read_ensemble_tracks(path)
    ds = read_netcdf(path)
    if "row_size" not in ds:
        raise ValueError(f"{path}: expected trajectories as `ladcast track` writes them, 'row_size' is missing.")
    row = np.repeat(np.arange(ds.sizes["trajectory"]), ds["row_size"].values)
    columns = {name: ds[name].values[row] for name in PER_TRAJECTORY if name in ds}
    columns |= {name: ds[name].values for name in COLUMNS if name in ds and name not in columns}
    attributes = {name: value for name, value in ds.attrs.items() if name not in ("Conventions", "featureType")}
    return make_table(columns, **attributes)


def _write_netcdf(tracks: xr.Dataset, path: Path) -> None:
    """Writes a contiguous ragged array of trajectories (CF 1.11, H.4.3)."""
    shared = [name for name in PER_TRAJECTORY if name in tracks]
    first, track = group(tracks, tuple(name for name in shared if name != "name"))
    order = np.lexsort([tracks["time"].values, track])
    columns = [name for name in COLUMNS if name in tracks and name not in shared]
    encoded: dict[str, Any] = {
        name: (
            "trajectory",
            tracks[name].values[first].astype("U") if name in ("storm", "name") else tracks[name].values[first],
            COLUMNS[name],
        )
        for name in shared
    }
    encoded["row_size"] = (
        "trajectory",
        np.bincount(track, minlength=len(first)),
        {"long_name": "number of positions", "sample_dimension": "obs"},
    )
    encoded |= {name: ("obs", tracks[name].values[order], COLUMNS[name]) for name in columns}
    ds = xr.Dataset(encoded, attrs={**tracks.attrs, "Conventions": "CF-1.11", "featureType": "trajectory"})
    ds["trajectory"] = ("trajectory", np.arange(len(first)), {"cf_role": "trajectory_id"})
    times = {name: {"units": "hours since 1900-01-01", "dtype": "float64"} for name in ("time", "start") if name in ds}
    ds.to_netcdf(path, engine="netcdf4", encoding=times)


def _write_csv(tracks: xr.Dataset, path: Path) -> None:
    names = [name for name in COLUMNS if name in tracks]
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        writer.writerows(zip(*([_text(name, value) for value in tracks[name].values] for name in names), strict=True))


def _write_geojson(tracks: xr.Dataset, path: Path) -> None:
    """Writes a line per track, cut at the date line (RFC 7946, 3.1.9)."""
    by = tuple(name for name in PER_TRAJECTORY if name in tracks and name != "name")
    first, track = group(tracks, by)
    features = []
    for index in range(len(first)):
        one = rows(tracks, track == index)
        properties = {name: _text(name, one[name].values[0]) for name in PER_TRAJECTORY if name in one}
        properties["times"] = [_text("time", time) for time in one["time"].values]
        lines = _cut(one["longitude"].values, one["latitude"].values)
        geometry = {"type": "MultiLineString", "coordinates": lines}
        features.append({"type": "Feature", "properties": properties, "geometry": geometry})
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))


def _cut(longitude: np.ndarray, latitude: np.ndarray) -> list[list[list[float]]]:
    """Cuts a line where it crosses the date line; both parts end on it."""
    lines: list[list[list[float]]] = [[]]
    for index, (lon, lat) in enumerate(zip(longitude.tolist(), latitude.tolist(), strict=True)):
        if index and abs(lon - longitude[index - 1]) > 180:
            before, edge = float(longitude[index - 1]), 180.0 if lon < 0 else -180.0
            share = (edge - before) / ((lon - before + 540) % 360 - 180)
            crossing = float(latitude[index - 1]) + share * (lat - float(latitude[index - 1]))
            lines[-1].append([edge, round(crossing, 3)])
            lines.append([[-edge, round(crossing, 3)]])
        lines[-1].append([round(lon, 3), round(lat, 3)])
    return [line if len(line) > 1 else line * 2 for line in lines]


def _text(name: str, value: Any) -> Any:
    if name in ("time", "start"):
        return str(np.datetime64(value, "m")) + "Z"
    if name in ("storm", "name"):
        return str(value)
    if name == "number":
        return int(value)
    if np.isnan(value):
        return ""
    return round(float(value), PLACES[name]) if name in PLACES else float(f"{value:.6g}")


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
            "storm": np.array([_text_of(message, "stormIdentifier")], dtype=object),
            "name": np.array([_text_of(message, "longStormName")], dtype=object),
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


def _text_of(message: int, name: str) -> str:
    return str(_eccodes().codes_get(message, name)).strip()


def _eccodes() -> Any:
    try:
        import eccodes
    except ImportError:
        raise ImportError("Reading BUFR needs the package eccodes: pip install 'ladcast[grib]'.") from None
    return eccodes
