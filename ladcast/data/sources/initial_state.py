"""The state that a forecast starts from, put together from several sources: which of them supplies which channel."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ladcast.checksums import seal
from ladcast.data.layout import on_grid
from ladcast.data.regrid import regrid_dataset
from ladcast.data.sources import earth2studio
from ladcast.data.sources.base import DeliveringSource, Offer, Source, Supply
from ladcast.data.sources.cds import ClimateDataStore
from ladcast.data.sources.cloud import ArcoEra5, WeatherBench2
from ladcast.data.sources.ecmwf import EcmwfOpenData
from ladcast.data.sources.files import LocalTree
from ladcast.data.sources.gfs import Gfs
from ladcast.data.store import open_store
from ladcast.fields import ERA5_CHANNELS, Channel, ChannelSet
from ladcast.files import whole_folder
from ladcast.grid import Grid, grid_of
from ladcast.times import describe, parse_time

SOURCES: Mapping[str, type[Source]] = {
    "weatherbench2": WeatherBench2,
    "arco-era5": ArcoEra5,
    "cds": ClimateDataStore,
    "gfs": Gfs,
    "ecmwf-open-data": EcmwfOpenData,
    "local": LocalTree,
}
"""Each makes a source from keywords of its own: where it lies (`root`, `folder`), which store, model or format."""


def is_source(name: str) -> bool:
    """Says whether this names a source, such as gfs or earth2studio:GFS, rather than a path."""
    return name in SOURCES or name.partition(":")[0] == earth2studio.FAMILY


def make_source(name: str, *, downloads: Path | None = None, **options: Any) -> Source:
    """Makes the source `name`, or of `earth2studio:CLASS`; raises ValueError for an unknown name or option.

    A source that delivers files keeps them in `folder`; by default in a folder of its own within `downloads`, if given.
    """
    if not is_source(name):
        raise ValueError(f"Unknown source '{name}'. Known sources: {', '.join(SOURCES)}, {earth2studio.FAMILY}:CLASS.")
    if name not in SOURCES:
        return earth2studio.named(name, **options)
    if downloads is not None and DeliveringSource in SOURCES[name].__mro__:
        options = {"folder": downloads / name} | options
    if "folder" in options:
        options["folder"] = Path(options["folder"])
    try:
        return SOURCES[name](**options)
    except TypeError as error:
        raise ValueError(f"Source '{name}' does not take these options: {error}.") from error


APPROXIMATE = "~ "


@dataclass(frozen=True)
class ChannelSource:
    """What supplies one channel, or the reason of each source why it does not."""

    channel: Channel
    supply: Supply | None
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class SourceAssignment:
    """Where every channel of one time comes from, in channel order; `str` is a table."""

    time: np.datetime64
    channels: tuple[ChannelSource, ...]

    @property
    def missing(self) -> tuple[ChannelSource, ...]:
        """Returns the channels that no source can supply."""
        return tuple(assigned for assigned in self.channels if assigned.supply is None)

    @property
    def approximate(self) -> tuple[str, ...]:
        """Returns the names of the channels that are approximations."""
        return tuple(p.channel.name for p in self.channels if p.supply is not None and p.supply.approximate)

    def of_source(self, source: str) -> ChannelSet:
        """Returns the smallest channel set that has all channels assigned to one source."""
        chosen = [p.channel for p in self.channels if p.supply is not None and p.supply.source == source]
        upper = dict.fromkeys(channel.variable for channel in chosen if channel.level is not None)
        surface = dict.fromkeys(channel.variable for channel in chosen if channel.level is None)
        levels = sorted({channel.level for channel in chosen if channel.level is not None})
        return ChannelSet(tuple(upper), tuple(surface), tuple(levels))

    def __str__(self) -> str:
        rows = [("channels", "source", "fields", "how"), *self._rows()]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        lines = ["  ".join(text.ljust(w) for text, w in zip(row, [*widths, 0], strict=True)).rstrip() for row in rows]
        note = [f"{APPROXIMATE.strip()} approximation"] if self.approximate else []
        return "\n".join([f"{len(self.channels)} channels of {describe(self.time)}", *lines, *note])

    def _rows(self) -> Iterator[tuple[str, str, str, str]]:
        """Yields one row for neighbouring channels of a variable that come from the same place."""
        for (_, supply, reasons), group in groupby(
            self.channels, key=lambda assigned: (assigned.channel.variable, assigned.supply, assigned.reasons)
        ):
            names = [assigned.channel.name for assigned in group]
            label = names[0] if len(names) == 1 else f"{names[0]}..{names[-1]} ({len(names)})"
            if supply is None:
                yield label, "-", "-", "; ".join(reasons)
            else:
                mark = APPROXIMATE if supply.approximate else ""
                yield label, supply.source, ", ".join(supply.fields), mark + supply.how


def assign_sources(
    time: np.datetime64, channels: ChannelSet, offers: Sequence[Offer], *, partial: bool = False
) -> SourceAssignment:
    """Chooses for each channel the first of `offers` that can supply it; their order is the order of preference.

    `partial` accepts channels that no source can supply, which the plan then lists as missing.

    Raises:
        ValueError: channels cannot be had; the message says for each of them why, by source.
    """
    assigned = []
    for channel in channels:
        answers = {offer.source: offer.supply(channel) for offer in offers}
        supply = next((answer for answer in answers.values() if isinstance(answer, Supply)), None)
        reasons = () if supply else tuple(f"{source} {answer}" for source, answer in answers.items())
        assigned.append(ChannelSource(channel, supply, reasons))
    plan = SourceAssignment(time, tuple(assigned))
    if plan.missing and not partial:
        rows = [f"  {label}: {reasons}" for label, source, _, reasons in plan._rows() if source == "-"]
        raise ValueError(
            f"Expected all {len(channels)} channels of {describe(time)}, {len(plan.missing)} cannot be had from "
            f"{', '.join(offer.source for offer in offers) or 'no source'}:\n" + "\n".join(rows) + "\n"
            "Add a --source that has them, or name a --model of fewer channels."
        )
    return plan


Sources = Mapping[str, Source]
"""Sources by the name that their offers have."""


def plan_start(
    time: str, names: Sequence[str | Source], channels: ChannelSet = ERA5_CHANNELS, folder: Path = Path("downloads")
) -> tuple[SourceAssignment, Sources]:
    """Plans the state of one time from sources in order of preference: names, paths, or made ones.

    `folder` is where downloaded files go, one folder for each source.

    Raises:
        ValueError: a channel cannot be had; the message says why.
    """
    sources = [name if isinstance(name, Source) else _named_or_local(name, folder) for name in names]
    moment = parse_time(time)
    offers = [source.offer(moment) for source in sources]
    by_offer = {offer.source: source for offer, source in zip(offers, sources, strict=True)}
    if len(by_offer) < len(offers):
        raise ValueError(f"Expected sources of different names, got {', '.join(o.source for o in offers)}. Rename one.")
    return assign_sources(moment, channels, offers), by_offer


def _named_or_local(name: str, folder: Path) -> Source:
    return make_source(name, downloads=folder) if is_source(name) else make_source("local", root=name)


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
            times = np.array([plan.time])
            source.fetch(times, channels)
            ds = open_store(source.open(times, channels), channels, complete=False).load()
            grid = grid or grid_of(ds)
            there = on_grid(ds, grid, name) if grid_of(ds).matches(grid) else regrid_dataset(ds, grid)
            parts.append(_only_planned(there, plan, name, with_static=not parts))
    state = xr.merge(parts, compat="no_conflicts", join="outer").assign_attrs(plan=str(plan))
    with whole_folder(output) as partial:
        state.to_zarr(partial, mode="w")
        seal(partial)
    return output


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
