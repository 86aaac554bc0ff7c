"""Opens a store of weather states and checks it: all data enter through `open_store`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ladcast.data.layout import canonical_layout, on_grid
from ladcast.data.lexicon import canonical_names, check_units
from ladcast.data.sources.files import open_files
from ladcast.data.validation import check_present, check_regular, check_times, check_values
from ladcast.fields import LEVELS_HPA, VARIABLES, ChannelSet
from ladcast.grid import Grid
from ladcast.times import Times, describe, parse_time


def open_store(
    path: str | Path | xr.Dataset,
    channels: ChannelSet | None = None,
    grid: Grid | None = None,
    *,
    regular: bool = True,
    complete: bool = True,
    member: int | None = None,
) -> xr.Dataset:
    """Opens a Zarr store, netCDF or GRIB file, a folder or pattern of them, or a dataset lazily, and checks it.

    The result has the canonical layout: the variables of `channels`, by default all known ones that are there, and the
    static fields, with dimensions (time, level, latitude, longitude), from south to north, eastward within [0, 360),
    levels in channel order. Only the first and the last time are read, for the checks (`validate_store` reads all). A
    `grid` without the south pole row drops it.

    `regular=False` accepts unrelated times, such as those of initial conditions. `complete=False` accepts NaN. `member`
    chooses one of an ensemble.

    Raises:
        FileNotFoundError: nothing is at `path`.
        ValueError: the content does not fit; the message says expected, got, where and what to do.
    """
    where = "The dataset" if isinstance(path, xr.Dataset) else str(path)
    gaps = set() if isinstance(path, xr.Dataset) else declared_gaps(Path(path))
    named = canonical_names(path) if isinstance(path, xr.Dataset) else open_files(path, member)
    channels = channels or present_channels(named, where)
    check_present(named, channels, where)
    check_units(named, where)
    check_times(np.atleast_1d(named["time"].values), where)
    ds = on_grid(canonical_layout(named, channels, where), grid, where)
    if regular:
        check_regular(ds["time"].values, gaps, where)
    check_values(ds, channels, where, complete=complete)
    return ds


def present_channels(ds: xr.Dataset, where: str) -> ChannelSet:
    """Returns the known variables of a dataset with its levels; raises ValueError where there are none.

    Only the standard levels where there is a level of 10 hPa beside the wind at 10 m.
    """
    present = [about for name, about in VARIABLES.items() if name in ds]
    if not present:
        raise ValueError(f"{where}: expected any of {', '.join(VARIABLES)}; there are {', '.join(map(str, ds))}.")
    present_hpa = np.atleast_1d(ds["level"].values).tolist() if "level" in ds else []
    levels = sorted(_whole(level, where) for level in present_hpa)
    upper = tuple(about.name for about in present if about.on_levels)
    surface = tuple(about.name for about in present if not about.on_levels)
    if 10 in levels and any(name.startswith("10m") for name in surface):
        # `u10` would name the wind at 10 hPa and at 10 m.
        levels = [level for level in levels if level in LEVELS_HPA]
    return ChannelSet(upper, surface, tuple(levels) if upper else ())


def read_times(path: Path) -> Times:
    """Returns the times that a store or file holds."""
    ds = open_files(path)
    if "time" not in ds.coords:
        raise ValueError(f"{path}: expected a coordinate 'time', got {', '.join(map(str, ds.coords))}. Add it.")
    return np.atleast_1d(ds["time"].values)


def select_period(ds: xr.Dataset, start: str | None, end: str | None) -> xr.Dataset:
    """Returns the states from `start` up to and including `end`; raises ValueError where there are none."""
    times = ds["time"].values
    kept = np.ones(len(times), dtype=bool)
    if start is not None:
        kept &= times >= parse_time(start)
    if end is not None:
        kept &= times <= parse_time(end)
    if not kept.any():
        held = f"{describe(times[0])} to {describe(times[-1])}"
        raise ValueError(f"No states from {start} to {end}: the store holds {held}. Choose another period.")
    return ds.isel(time=np.flatnonzero(kept))


def declared_gaps(store: Path) -> set[tuple[np.datetime64, np.datetime64]]:
    """Returns the gaps in time that the manifest of a store admits: the last time before each, and the first after.

    Raises:
        ValueError: the manifest says that the store is unfinished.
    """
    manifest = _read_manifest(store)
    if manifest.get("status") == "running":
        raise ValueError(
            f"{store} is unfinished: its manifest.json has status 'running'. Finish or resume the job first."
        )
    return {(parse_time(before), parse_time(after)) for before, after in manifest.get("gaps", ())}


def _read_manifest(store: Path) -> dict[str, Any]:
    """Reads `manifest.json` in the store or beside it; returns an empty dict where there is none."""
    # A store holds its manifest; a netCDF file has it beside itself, or in a folder of its own.
    beside = store.with_name(f"{store.name}.manifest.json")
    for candidate in (store / "manifest.json", beside, store.parent / "manifest.json"):
        if candidate.is_file():
            content: dict[str, Any] = json.loads(candidate.read_text())
            return content
    return {}


def _whole(level: float | int, where: str) -> int:
    if not float(level).is_integer():
        raise ValueError(f"{where}: expected levels of whole hPa, got {level:g}. Name the wanted ones in `channels`.")
    return int(level)
