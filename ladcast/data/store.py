"""Opens a store of weather states and checks it: the one gate through which data enters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ladcast.data.layout import canonical_layout, grid_of
from ladcast.data.lexicon import canonical_names, check_units
from ladcast.data.validation import check_present, check_regular, check_times, check_values
from ladcast.fields import VARIABLES, ChannelSet
from ladcast.grid import Grid
from ladcast.times import Times, parse_time


def open_store(
    path: str | Path | xr.Dataset,
    channels: ChannelSet | None = None,
    grid: Grid | None = None,
    *,
    regular: bool = True,
    complete: bool = True,
) -> xr.Dataset:
    """Opens a Zarr store, netCDF file or dataset lazily, in canonical layout, and checks it.

    The result has the variables of `channels`, by default all known ones that are there, and the static fields, with
    dimensions (time, level, latitude, longitude), from south to north, eastward within [0, 360), levels in channel
    order. Only the first and the last time are read, for the checks. A `grid` without the south pole row drops it.

    `regular=False` accepts unrelated times, such as a file of start states. `complete=False` accepts NaN.

    Raises:
        FileNotFoundError: nothing is at `path`.
        ValueError: the content does not fit; the message says expected, got, where and what to do.
    """
    where = "The dataset" if isinstance(path, xr.Dataset) else str(path)
    raw = path if isinstance(path, xr.Dataset) else _open(Path(path))
    manifest = {} if isinstance(path, xr.Dataset) else read_manifest(Path(path))
    if manifest.get("status") == "running":
        raise ValueError(
            f"{where} is unfinished: its manifest.json has status 'running'. Finish or resume the job first."
        )
    named = canonical_names(raw)
    channels = channels or present_channels(named, where)
    check_present(named, channels, where)
    check_units(named, where)
    check_times(np.atleast_1d(named["time"].values), where)
    ds = _on_grid(canonical_layout(named, channels, where), grid, where)
    if regular:
        check_regular(ds["time"].values, _declared_gaps(manifest), where)
    check_values(ds, channels, where, complete=complete)
    return ds


def present_channels(ds: xr.Dataset, where: str) -> ChannelSet:
    """Returns the known variables of a dataset with its levels; raises ValueError where there are none."""
    present = [about for name, about in VARIABLES.items() if name in ds]
    if not present:
        raise ValueError(f"{where}: expected any of {', '.join(VARIABLES)}; there are {', '.join(map(str, ds))}.")
    levels = sorted(np.atleast_1d(ds["level"].values).tolist()) if "level" in ds else ()
    return ChannelSet(
        upper_air=tuple(about.name for about in present if about.on_levels),
        surface=tuple(about.name for about in present if not about.on_levels),
        levels=tuple(levels),
    )


def read_times(path: Path) -> Times:
    """Returns the times that a store or file holds."""
    return np.atleast_1d(canonical_names(_open(path))["time"].values)


def read_manifest(store: Path) -> dict[str, Any]:
    """Reads `manifest.json` in the store or beside it; returns an empty dict where there is none."""
    for candidate in (store / "manifest.json", store.parent / "manifest.json"):
        if candidate.is_file():
            content: dict[str, Any] = json.loads(candidate.read_text())
            return content
    return {}


def _open(path: Path) -> xr.Dataset:
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: expected a Zarr store or a netCDF file. Check the path.")
    if path.is_dir():
        return _open_zarr(path)
    try:
        return xr.open_dataset(path, chunks=None)
    except (ValueError, OSError) as error:
        raise ValueError(f"{path}: expected a Zarr store or a netCDF file, which this is not ({error}).") from error


def _open_zarr(path: Path) -> xr.Dataset:
    if not any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zmetadata")):
        raise ValueError(
            f"{path} is a folder but no Zarr group: it has none of zarr.json, .zgroup, .zmetadata. "
            "Give the folder of the store itself."
        )
    root = path / "zarr.json"
    version_3 = json.loads(root.read_text()) if root.is_file() else {}
    consolidated = bool(version_3.get("consolidated_metadata")) or (path / ".zmetadata").is_file()
    ds: xr.Dataset = xr.open_zarr(path, chunks=None, consolidated=consolidated)
    return ds


def _on_grid(ds: xr.Dataset, grid: Grid | None, where: str) -> xr.Dataset:
    if grid is None:
        return ds
    present = grid_of(ds)
    if present.pole_rows[0] and present.without_south_pole().matches(grid):
        ds = ds.isel(latitude=slice(1, None))
    elif not present.matches(grid):
        raise ValueError(
            f"{where}: expected the grid {grid}, got {present}. Regrid the store with "
            "`ladcast-data regrid`, or start a forecast from it with `--source`, which regrids."
        )
    # Coordinates of other sources may be rounded (float32): take the exact ones.
    return ds.assign_coords(latitude=np.asarray(grid.latitude), longitude=np.asarray(grid.longitude))


def _declared_gaps(manifest: dict[str, Any]) -> set[tuple[np.datetime64, np.datetime64]]:
    return {(parse_time(before), parse_time(after)) for before, after in manifest.get("gaps", ())}
