"""Copies states into a new store, unit by unit, regridded on the way where that is asked for.

The stages `download`, `regrid`, `derive` and `weekly` are this recipe with different states. The stage `plan` says what
a download would cost, measured on one frame, before anything moves.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from data_pipelines import (
    EVERYTHING,
    EXECUTION,
    LAYOUT,
    ORIGIN,
    ExecutionArgument,
    LayoutArgument,
    Origin,
    OriginArgument,
    SelectionArgument,
    StateSelection,
    StoreLayout,
)
from data_pipelines.manifest import Content, describe_times
from data_pipelines.product import produce
from data_pipelines.states import DISK, NETWORK, Archive, Derived, Patience, StateSource, View, Weekly, read_field
from data_pipelines.workers import WorkUnit
from data_pipelines.zarr_store import UNCHECKED, StoredVariable, StoreRecipe, Template, frames_per_chunk, write_frames
from ladcast.cf import STATE_COORDINATES
from ladcast.data.lazy import prefetch
from ladcast.data.regrid import regrid as regrid_field
from ladcast.data.sources.initial_state import SOURCES, is_source
from ladcast.fields import VARIABLES
from ladcast.grid import Grid, grid_of

READ_BYTES = 64 * 2**20
READERS = 4


@dataclass(frozen=True)
class Transfer(StoreRecipe):
    """Copies all variables of `source` that have a time, and regrids its other fields too."""

    stage: str
    source: StateSource
    onto: Grid | None = None
    options: StoreLayout = field(default_factory=StoreLayout)
    patience: Patience = DISK

    def about(self) -> Content:
        """Describes the product."""
        ds = self.source.open()
        onto = str(self.onto) if self.onto else None
        return {
            "stage": self.stage,
            "inputs": {"store": self.source.about},
            "arguments": {**self.source.arguments, "onto": onto, **asdict(self.options)},
            "variables": sorted(map(str, _names(ds))),
            "grid": self._grid(ds).to_dict(),
            **describe_times(ds["time"].values),
        }

    def make(self, folder: Path, unit: WorkUnit) -> Iterable[str]:
        """Writes the shard of each variable, one after the other: memory holds one of them."""
        ds = self.source.open()
        for name in _names(ds):
            yield from write_frames(folder, [(name, (unit.items,), self.read(ds, name, unit.items))])

    def template(self) -> Template:
        """Returns the layout of the new store."""
        ds = self.source.open()
        target = self._grid(ds)
        fields = {}
        for name in _names(ds):
            dims, shape = ds[name].dims[1:], (*ds[name].shape[1:-2], *target.shape)
            fields[name] = StoredVariable(tuple(map(str, dims)), shape, _attributes(ds[name]))
        static = {
            name: (values.dims, self._onto(values.values, ds), _attributes(values))
            for name, values in ds.data_vars.items()
            if "time" not in values.dims
        }
        places = {"latitude": target.latitude, "longitude": target.longitude}
        coordinates = {
            name: (name, np.asarray(places.get(name, ds[name].values)), about)
            for name, about in STATE_COORDINATES.items()
            if name in ds.coords
        }
        attrs = {key: ds.attrs[key] for key in ("source", "attribution", "unreal") if key in ds.attrs}
        return Template.of(xr.Dataset(static, coordinates, attrs), fields, self.options)

    def read(self, ds: xr.Dataset, name: str, items: slice) -> npt.NDArray[np.float32]:
        """Reads and regrids frames of one variable, in pieces of bounded size, ahead of use."""
        frames = ds[name].isel(time=items)
        step = max(int(READ_BYTES * len(frames) // frames.nbytes), 1)
        pieces = [frames.isel(time=slice(k, k + step)) for k in range(0, len(frames), step)]
        shape = (*frames.shape[:-2], *self._grid(ds).shape)
        values = np.empty(shape, np.float32)
        parts = prefetch(partial(read_field, patience=self.patience), pieces, threads=READERS, ahead=READERS)
        for first, part in zip(range(0, len(frames), step), parts, strict=True):
            values[first : first + step] = self._onto(part, ds)
        return values

    def _grid(self, ds: xr.Dataset) -> Grid:
        return self.onto or grid_of(ds)

    def _onto(self, values: npt.NDArray[Any], ds: xr.Dataset) -> npt.NDArray[np.float32]:
        moved = values if self.onto is None else regrid_field(values, grid_of(ds), self.onto)
        return moved.astype(np.float32, copy=False)


def _names(ds: xr.Dataset) -> list[str]:
    return [str(name) for name, values in ds.data_vars.items() if "time" in values.dims]


def _attributes(values: xr.DataArray) -> dict[str, Any]:
    known = VARIABLES.get(str(values.name))
    named = {"units": known.units, "standard_name": known.standard_name} if known else {}
    return {"long_name": str(values.name).replace("_", " "), **values.attrs, **named}


def download(
    source: str,
    output: Path,
    *,
    onto: str | None = None,
    origin: OriginArgument = ORIGIN,
    selection: SelectionArgument = EVERYTHING,
    layout: LayoutArgument = LAYOUT,
    execution: ExecutionArgument = EXECUTION,
) -> Path:
    """Copy states of an archive or of a local store or file into a store in canonical layout.

    A frame that the source lacks stops the stage with a list; those in `omit` are left out and declared as gaps.

    Args:
        source: name of an archive such as weatherbench2, or the path of a local store or file.
        output: Zarr store to write.
        onto: regrid to this grid on the way, such as 240x121: moves the coarse fields only.
    """
    states = source_of(source, selection, origin)
    patience = NETWORK if isinstance(states, Archive) else DISK
    return produce(
        Transfer("download", states, Grid.parse(onto) if onto else None, layout, patience), output, execution
    )


def source_of(source: str, selection: StateSelection, origin: Origin) -> StateSource:
    """Returns the states of a path, where there is something, else of the archive of that name.

    Raises:
        FileNotFoundError: it is neither.
        ValueError: the selection or the origin does not suit it.
    """
    if not Path(source).exists():
        if not is_source(source):
            raise FileNotFoundError(f"{source} is neither a file nor an archive. Archives: {', '.join(SOURCES)}.")
        return Archive.of(source, selection, origin)
    if origin.setting:
        raise ValueError(f"{source} is a local file, which has no settings; got {', '.join(origin.setting)}.")
    return replace(View.of(Path(source), selection), omit=origin.omit, accept_gaps=origin.accept_gaps)


def regrid(
    store: Path,
    output: Path,
    *,
    onto: str,
    selection: SelectionArgument = EVERYTHING,
    layout: LayoutArgument = LAYOUT,
    execution: ExecutionArgument = EXECUTION,
) -> Path:
    """Regrid a store conservatively, such as ERA5 from 0.25 to 1.5 degrees.

    Args:
        store: Zarr store in the WeatherBench 2 layout.
        output: Zarr store to write, in canonical layout.
        onto: target grid such as 240x121, or 240x121-south without the row of the south pole.
    """
    return produce(Transfer("regrid", View.of(store, selection), Grid.parse(onto), layout), output, execution)


def derive(
    store: Path,
    output: Path,
    *,
    step_hours: int = 6,
    vorticity: bool = False,
    selection: SelectionArgument = EVERYTHING,
    layout: LayoutArgument = LAYOUT,
    execution: ExecutionArgument = EXECUTION,
) -> Path:
    """Write a store with the fields that another lacks: six-hour precipitation from hourly sums, and vorticity.

    Args:
        store: Zarr store with WeatherBench 2 names, hourly where it has total_precipitation alone.
        output: Zarr store to write, in canonical layout.
        step_hours: hours between the frames that are written.
        vorticity: also write the relative vorticity of the wind on levels.
    """
    states = Derived(View.of(store, selection), step_hours, vorticity)
    return produce(Transfer("derive", states, options=layout), output, execution)


def weekly(
    store: Path,
    output: Path,
    *,
    selection: SelectionArgument = EVERYTHING,
    layout: LayoutArgument = LAYOUT,
    execution: ExecutionArgument = EXECUTION,
) -> Path:
    """Write the means over the seven days before each 00 UTC: the truth and the climate of weekly forecasts.

    Args:
        store: Zarr store in the WeatherBench 2 layout.
        output: Zarr store to write, in canonical layout; a time is the end of its week.
    """
    return produce(Transfer("weekly", Weekly(View.of(store, selection)), options=layout), output, execution)


GB = 1e9


@dataclass(frozen=True)
class Plan:
    """Holds the size of a transfer and what it needs.

    Attributes:
        read_bytes: uncompressed bytes that leave the source.
        write_bytes: uncompressed bytes of the new store.
        stored_bytes: the same as they will lie on the disk, by the compression of one frame of each variable.
        units: pieces of work, each written, checked and resumed as one.
        files: chunks or shards that are written.
        seconds: time to read and write in one process, by that of one frame of each variable.
        memory_bytes: most that one worker holds.
    """

    frames: int
    read_bytes: int
    write_bytes: int
    stored_bytes: int
    units: int
    files: int
    seconds: float
    memory_bytes: int

    def describe(self, workers: int) -> str:
        """Returns the plan as lines."""
        rows = {
            "frames": f"{self.frames:,}",
            "to read": f"{self.read_bytes / GB:,.2f} GB",
            "to write": f"{self.write_bytes / GB:,.2f} GB, {self.stored_bytes / GB:,.2f} GB compressed",
            "units": f"{self.units:,} ({self.files:,} files)",
            "time": f"{self.seconds / 3600 / workers:,.2f} h with {workers} workers that do not slow each other",
            "memory": f"{self.memory_bytes / GB:,.2f} GB a worker",
        }
        return "\n".join(f"{name:10}{text}" for name, text in rows.items())


def plan(
    source: str,
    *,
    onto: str | None = None,
    origin: OriginArgument = ORIGIN,
    workers: int = 1,
    selection: SelectionArgument = EVERYTHING,
    layout: LayoutArgument = LAYOUT,
) -> Plan:
    """Print what a download would move and need, measured on one frame.

    Args:
        source: name of an archive such as weatherbench2, or the path of a local store or file.
        onto: regrid to this grid on the way, such as 240x121.
        workers: processes that would work side by side.
    """
    states = source_of(source, selection, origin)
    made = make_plan(Transfer("plan", states, Grid.parse(onto) if onto else None, layout))
    print(made.describe(max(workers, 1)))
    return made


def make_plan(recipe: Transfer) -> Plan:
    """Reads, regrids and compresses the middle frame of each variable, and reckons from that."""
    ds, template = recipe.source.open(), recipe.template()
    frames = ds.sizes["time"]
    sizes = {name: field.frame_bytes for name, field in template.fields.items()}
    costs = {name: _measure(recipe, ds, name) for name in sizes}
    units = math.ceil(frames / template.shard_frames)
    largest = max(sizes.values()) * template.shard_frames
    source_frame = max(4 * ds[name][0].size for name in sizes)
    if template.zarr_format == 3:
        files = units * len(sizes)
    else:
        chunks = (frames_per_chunk(template.shard_frames, size) for size in sizes.values())
        files = sum(math.ceil(frames / chunk) for chunk in chunks)
    return Plan(
        frames=frames,
        read_bytes=sum(4 * ds[name].size for name in sizes),
        write_bytes=frames * sum(sizes.values()),
        stored_bytes=round(frames * sum(stored for stored, _ in costs.values())),
        units=units,
        files=files,
        seconds=frames * sum(seconds for _, seconds in costs.values()),
        # The shard and its compressed copy, and what is read ahead in the float64 of the regridder.
        memory_bytes=2 * largest + 3 * (READERS + 1) * max(READ_BYTES, source_frame),
    )


def _measure(recipe: Transfer, ds: xr.Dataset, name: str) -> tuple[float, float]:
    """Returns the compressed bytes and the seconds of one frame."""
    started = time.perf_counter()
    values = recipe.read(ds, name, slice(ds.sizes["time"] // 2, ds.sizes["time"] // 2 + 1))
    return len(UNCHECKED.encode(values)), time.perf_counter() - started
