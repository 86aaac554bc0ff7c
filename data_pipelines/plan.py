"""Stage `plan`: what a download would cost, measured on one frame, before anything moves."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import xarray as xr

from data_pipelines.options import EVERYTHING, LAYOUT, ORIGIN, LayoutArgument, OriginArgument, SelectionArgument
from data_pipelines.transfer import READ_BYTES, READERS, Transfer, source_of
from data_pipelines.zarr_store import Template, compressors, frames_per_chunk
from ladcast.grid import Grid

GB = 1e9


@dataclass(frozen=True)
class Plan:
    """Holds the size of a transfer and what it needs.

    Attributes:
        frames: times.
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
        origin: how to take them from the source.
        workers: processes that would work side by side.
        selection: what to read.
        layout: how to write it.
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
    return Plan(
        frames=frames,
        read_bytes=sum(4 * ds[name].size for name in sizes),
        write_bytes=frames * sum(sizes.values()),
        stored_bytes=round(frames * sum(stored for stored, _ in costs.values())),
        units=units,
        files=_files(template, units),
        seconds=frames * sum(seconds for _, seconds in costs.values()),
        # The shard and its compressed copy, and what is read ahead in the float64 of the regridder.
        memory_bytes=2 * largest + 3 * (READERS + 1) * max(READ_BYTES, source_frame),
    )


def _measure(recipe: Transfer, ds: xr.Dataset, name: str) -> tuple[float, float]:
    """Returns the compressed bytes and the seconds of one frame."""
    started = time.perf_counter()
    values = recipe.read(ds, name, slice(ds.sizes["time"] // 2, ds.sizes["time"] // 2 + 1))
    codec = compressors(zarr_format=2)
    return len(codec.encode(values)), time.perf_counter() - started


def _files(template: Template, units: int) -> int:
    if template.zarr_format == 3:
        return units * len(template.fields)
    chunks = (frames_per_chunk(template.shard_frames, field.frame_bytes) for field in template.fields.values())
    return sum(math.ceil(template.fixed.sizes["time"] / chunk) for chunk in chunks)
