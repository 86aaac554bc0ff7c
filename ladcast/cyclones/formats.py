"""Files of tracks: netCDF trajectories (CF), CSV and GeoJSON of ours, and BUFR as ECMWF publishes its ensemble's."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ladcast.cf import CONVENTIONS
from ladcast.cyclones.table import COLUMNS, Columns, group, make_table, rows
from ladcast.documents import UNREADABLE, read_netcdf
from ladcast.files import whole_file
from ladcast.run import version_of

OF_THE_FILE = ("Conventions", "featureType", "title", "history")
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
    attributes = {name: value for name, value in ds.attrs.items() if name not in OF_THE_FILE}
    return make_table(columns, **attributes)


def _write_netcdf(tracks: xr.Dataset, path: Path) -> None:
    """Writes a contiguous ragged array of trajectories (CF 1.11, H.4.3)."""
    shared = [name for name in PER_TRAJECTORY if name in tracks]
    first, track = group(tracks, tuple(name for name in shared if name != "name"))
    order = np.lexsort([tracks["time"].values, track])
    columns = [name for name in COLUMNS if name in tracks and name not in shared]
    encoded: dict[str, Any] = {}
    for name in shared:
        values = tracks[name].values[first]
        encoded[name] = "trajectory", values.astype("U") if values.dtype == object else values, COLUMNS[name]
    sizes = {"long_name": "number of positions", "sample_dimension": "obs"}
    encoded["row_size"] = "trajectory", np.bincount(track, minlength=len(first)), sizes
    encoded |= {name: ("obs", tracks[name].values[order], COLUMNS[name]) for name in columns}
    about = {"title": "tracks of cyclones", "history": f"written by {version_of('ladcast')}"}
    about |= {"Conventions": CONVENTIONS, "featureType": "trajectory"}
    ds = xr.Dataset(encoded, attrs={**tracks.attrs, **about})
    ds["trajectory"] = ("trajectory", np.arange(len(first)), {"cf_role": "trajectory_id"})
    for name in {"time", "start"} & set(ds.variables):
        ds[name].attrs["units_metadata"] = "leap_seconds: none"
    times = {name: {"units": "hours since 1900-01-01", "dtype": "float64"} for name in ("time", "start") if name in ds}
    ds.to_netcdf(path, engine="netcdf4", encoding=times)


def _write_csv(tracks: xr.Dataset, path: Path) -> None:
    """Writes a row for each position; the last column, `track_id`, is what other programs know tracks by."""
    names = [name for name in COLUMNS if name in tracks]
    _, track = group(tracks, tuple(name for name in PER_TRAJECTORY if name in tracks and name != "name"))
    columns = [*([_text(name, value) for value in tracks[name].values] for name in names), track.tolist()]
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*names, "track_id"])
        writer.writerows(zip(*columns, strict=True))


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


PERTURBED_MEMBERS = 50
"""Beyond them come the control (51) and the high-resolution forecast (52)."""
HEADING_BYTES = 256


def is_bufr(path: Path) -> bool:
    """Says whether a file begins with a BUFR message, before which there may be the heading of a bulletin."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return b"BUFR" in file.read(HEADING_BYTES)


def holds_tracks(path: Path) -> bool:
    """Says whether a file holds tracks that `read_tracks` reads, rather than fields."""
    if is_bufr(path) or path.suffix != ".nc" or not path.is_file():
        return is_bufr(path)
    with suppress(*UNREADABLE), xr.open_dataset(path, engine="netcdf4", decode_times=False) as ds:
        return "row_size" in ds.variables
    return False


def read_ensemble_tracks(path: Path, *, perturbed: bool = True) -> xr.Dataset:
    """Reads forecast tracks of all storms in a BUFR file; needs the package `eccodes`.

    Storms carry ECMWF's identifiers (`27W`); `identify` finds their best tracks. `perturbed` keeps members 1 to 50.

    Raises:
        FileNotFoundError: there is no file.
        ValueError: the file holds no message with cyclone tracks, or a damaged one.
    """
    if not path.is_file():
        raise FileNotFoundError(f"No file at {path}: expected BUFR with ensemble tracks of tropical cyclones.")
    columns = _decode_apart(path)
    if not columns:
        raise ValueError(f"{path} holds no BUFR message with cyclone tracks. Check what was fetched.")
    asked = (columns["number"] <= PERTURBED_MEMBERS) | (not perturbed)
    kept = np.isfinite(columns["latitude"]) & asked
    return make_table(
        {name: values[kept] for name, values in columns.items()},
        members=len(np.unique(columns["number"][asked])),
        source=f"ECMWF ensemble ({path.name})",
        rules="tracks as ECMWF found them",
    )


def _decode_apart(path: Path) -> Columns:
    """Decodes a file in a process of its own: eccodes ends the process, or corrupts its memory, on some damage."""
    if find_spec("eccodes") is None:
        raise ImportError("Reading BUFR needs the package eccodes: pip install 'ladcast[grib]'.")
    decoder = Path(__file__).with_name("bufr.py")
    done = subprocess.run([sys.executable, "-P", decoder, path], capture_output=True)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        why = said[0] if said and done.returncode == 1 else "eccodes ended the process"
        raise ValueError(
            f"{path}: expected BUFR with tracks of cyclones, got what cannot be read as that ({why}). The file is "
            "damaged, or holds other data: fetch it again."
        )
    return dict(np.load(BytesIO(done.stdout)))
