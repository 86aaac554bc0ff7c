"""The state that a forecast starts from, put together from several sources: which supplies which channel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from ladcast.checksums import seal
from ladcast.data.layout import on_grid
from ladcast.data.regrid import regrid_dataset
from ladcast.data.sources.assignment import SourceAssignment, assign_sources
from ladcast.data.sources.base import Source
from ladcast.data.sources.registry import SOURCES, make_source
from ladcast.data.store import open_store
from ladcast.fields import ERA5_CHANNELS, ChannelSet
from ladcast.files import whole_folder
from ladcast.grid import Grid, grid_of
from ladcast.times import parse_time

Sources = Mapping[str, Source]
"""Sources by the name that their offers have."""


def plan_start(
    time: str, names: Sequence[str], channels: ChannelSet = ERA5_CHANNELS, folder: Path = Path("downloads")
) -> tuple[SourceAssignment, Sources]:
    """Plans the state of one time from sources in order of preference: names in `SOURCES`, or paths.

    `folder` is where downloaded files go, one folder for each source.

    Raises:
        ValueError: a channel cannot be had; the message says why.
    """
    sources = [_source(name, folder) for name in names]
    moment = parse_time(time)
    offers = [source.offer(moment) for source in sources]
    by_offer = {offer.source: source for offer, source in zip(offers, sources, strict=True)}
    if len(by_offer) < len(offers):
        raise ValueError(f"Expected sources of different names, got {', '.join(o.source for o in offers)}. Rename one.")
    return assign_sources(moment, channels, offers), by_offer


def fetch_start(plan: SourceAssignment, sources: Sources, output: Path, grid: Grid | None = None) -> Path:
    """Downloads what the plan needs, and writes the state to a Zarr store on `grid`, by default the first source's.

    An existing store is replaced when the new one is whole.

    Raises:
        ConnectionError: a download failed; run it again, what has arrived stays.
        ValueError: a source delivered something else than it offers.
    """
    parts: list[xr.Dataset] = []
    for name, source in sources.items():
        channels = plan.of_source(name)
        if len(channels):
            ds = _open(source, plan.time, channels)
            grid = grid or grid_of(ds)
            there = on_grid(ds, grid, name) if grid_of(ds).matches(grid) else regrid_dataset(ds, grid)
            parts.append(_only_planned(there, plan, name, with_static=not parts))
    state = xr.merge(parts, compat="no_conflicts", join="outer").assign_attrs(plan=str(plan))
    with whole_folder(output) as partial:
        state.to_zarr(partial, mode="w")
        seal(partial)
    return output


def _source(name: str, folder: Path) -> Source:
    if name not in SOURCES:
        return make_source("local", root=name)
    return make_source(name, downloads=folder)


def _open(source: Source, time: np.datetime64, channels: ChannelSet) -> xr.Dataset:
    times = np.array([time])
    source.fetch(times, channels)
    return open_store(source.open(times, channels), channels, complete=False).load()


def _only_planned(ds: xr.Dataset, plan: SourceAssignment, name: str, *, with_static: bool) -> xr.Dataset:
    """Selects the variables and levels that are planned from one source, so that the parts do not conflict."""
    mine = {p.channel for p in plan.channels if p.supply is not None and p.supply.source == name}
    kept = {}
    for variable, field in ds.data_vars.items():
        levels = [channel.level for channel in mine if channel.variable == variable and channel.level is not None]
        if levels:
            kept[variable] = field.sel(level=sorted(levels))
        elif "time" in field.dims or with_static:
            kept[variable] = field
    return xr.Dataset(kept)
