"""Zarr stores in canonical layout, written in whole shards: what a unit writes, no other unit touches.

Two writers within one shard would lose each other's frames without a word.
"""

from __future__ import annotations

import math
import warnings
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product as combinations
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import xarray as xr
import zarr
from numcodecs import Blosc

from data_pipelines import StoreLayout
from data_pipelines.product import ProductRecipe
from data_pipelines.workers import WorkUnit, time_units
from ladcast.data.zarr_chunks import CHECKED, ChunkWriter
from ladcast.times import DAY, Times

SHARD_DAYS = 30
SHARD_BYTES = 2**30
CHUNK_BYTES = 2**17
"""Smaller chunks cost a reader more to find than to decode (`benchmarks/pipeline.py`)."""
SECONDS = {"units": "seconds since 1970-01-01", "dtype": "int64"}
WRITERS = 16
UNCHECKED = Blosc("lz4", 5, Blosc.SHUFFLE)
"""Compresses as `CHECKED` does: Zarr 2 has no place for a checksum."""

Slices: TypeAlias = tuple[slice, ...]
Piece: TypeAlias = tuple[str, Slices, npt.NDArray[np.float32]]
"""A variable, a place on its first axes, and the values that belong there."""


@dataclass(frozen=True)
class StoredVariable:
    """Describes a variable of a store: the dimensions and sizes of one frame, and its attributes."""

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    attrs: Mapping[str, Any]

    @property
    def frame_bytes(self) -> int:
        """Returns the size of a frame in float32."""
        return 4 * math.prod(self.shape)


@dataclass(frozen=True)
class Template:
    """Describes a store: `fixed` has the coordinates and what has no time, `fields` what work units will write.

    The frames of a field lie along `axes`. A shard holds `shard_frames` of the last of them and one of each other.
    """

    fixed: xr.Dataset
    fields: Mapping[str, StoredVariable]
    shard_frames: int
    zarr_format: Literal[2, 3] = 3
    axes: tuple[str, ...] = ("time",)
    chunk_bytes: int = CHUNK_BYTES

    @classmethod
    def of(cls, fixed: xr.Dataset, fields: Mapping[str, StoredVariable], layout: StoreLayout) -> Template:
        """Chooses the length of shards where the layout leaves it open."""
        frames = layout.shard_frames or default_shard_frames(fixed["time"].values, fields)
        return cls(fixed, fields, min(frames, fixed.sizes["time"]), layout.zarr_format)

    def create(self, folder: Path) -> None:
        """Creates the store in an existing folder, with empty variables."""
        fixed = self.fixed.copy()
        fixed["time"].encoding = dict(SECONDS)
        with _quiet():
            fixed.to_zarr(folder, mode="a", zarr_format=self.zarr_format, consolidated=False)
            group = zarr.open_group(folder, mode="r+")
            for name, field in self.fields.items():
                self._create_array(group, name, field)
            zarr.consolidate_metadata(folder)

    def _create_array(self, group: zarr.Group, name: str, field: StoredVariable) -> None:
        dims = (*self.axes, *field.dims)
        chunk = frames_per_chunk(self.shard_frames, field.frame_bytes, self.chunk_bytes)
        single = (1,) * (len(self.axes) - 1)
        sharded = self.zarr_format == 3
        group.create_array(
            name,
            shape=(*(self.fixed.sizes[axis] for axis in self.axes), *field.shape),
            dtype="float32",
            chunks=(*single, chunk, *field.shape),
            shards=(*single, self.shard_frames, *field.shape) if sharded else None,
            compressors=CHECKED if sharded else UNCHECKED,
            fill_value=float("nan"),
            dimension_names=dims if sharded else None,
            attributes=dict(field.attrs) | ({} if sharded else {"_ARRAY_DIMENSIONS": list(dims)}),
        )


class StoreRecipe(ProductRecipe):
    """Makes a store that is cut in time: a work unit is a shard of each variable."""

    @abstractmethod
    def template(self) -> Template:
        """Returns the layout of the store."""

    def units(self) -> Sequence[WorkUnit]:
        """Returns the shards of the store."""
        template = self.template()
        return time_units(template.fixed["time"].values, template.shard_frames)

    def create(self, folder: Path) -> None:
        """Creates the store."""
        self.template().create(folder)


def default_shard_frames(times: Times, fields: Mapping[str, StoredVariable]) -> int:
    """Returns the frames of about a month, fewer where the largest variable would exceed a GiB."""
    step = np.sort(np.diff(times))[len(times) // 2 - 1] if len(times) > 1 else DAY
    most = max(SHARD_BYTES // max(field.frame_bytes for field in fields.values()), 1)
    return min(max(int(SHARD_DAYS * DAY / step), 1), most)


def frames_per_chunk(shard_frames: int, frame_bytes: int, chunk_bytes: int = CHUNK_BYTES) -> int:
    """Returns how many frames make a chunk: one, or of tiny frames as many as divide a shard and fit `chunk_bytes`."""
    most = max(chunk_bytes // frame_bytes, 1)
    return max(n for n in range(1, min(most, shard_frames) + 1) if shard_frames % n == 0)


def write_frames(folder: Path, pieces: Iterable[Piece]) -> list[str]:
    """Writes pieces of variables side by side, each a whole shard; returns the files, relative to the store."""
    listed = list(pieces)
    settings: Any = {"write_empty_chunks": True}  # a file that is absent must mean a loss
    opened = {name: zarr.open_array(folder / name, mode="r+") for name in {name for name, _, _ in listed}}
    arrays = {name: array.with_config(settings) for name, array in opened.items()}
    # Zarr 2, which has no shards, is left to zarr-python.
    writers = {name: ChunkWriter.open(folder / name) for name, array in arrays.items() if array.shards}

    def write(piece: Piece) -> list[str]:
        name, region, values = piece
        array, indices = arrays[name], _files(arrays[name], region)
        if name in writers:
            (index,) = indices
            return [f"{name}/{writers[name].write(index, values)}"]
        array.set_basic_selection(region, values)
        return [f"{name}/{array.metadata.encode_chunk_key(index)}" for index in indices]

    with ThreadPoolExecutor(WRITERS) as pool:
        return [file for files in pool.map(write, listed) for file in files]


def write_small(folder: Path, name: str, values: npt.NDArray[Any]) -> None:
    """Replaces the values of a variable that has no time."""
    zarr.open_array(folder / name, mode="r+")[:] = values


def _files(array: zarr.Array[Any], region: Slices) -> list[tuple[int, ...]]:
    """Returns the index of every file that a region fills, one where files are shards.

    Raises:
        ValueError: the region begins or ends within a file, or is several shards.
    """
    spans = [*region, *(slice(0, size) for size in array.shape[len(region) :])]
    sizes = array.shards or array.chunks
    axes = list(zip(spans, sizes, array.shape, strict=True))
    whole = all(span.start % size == 0 and (span.stop % size == 0 or span.stop == end) for span, size, end in axes)
    within = all(0 <= span.start < span.stop <= end for span, _, end in axes)
    files = list(combinations(*(range(span.start // size, -(-span.stop // size)) for span, size, _ in axes)))
    if not whole or not within or (array.shards and len(files) > 1):
        one = "one whole file" if array.shards else "whole files"
        got = ", ".join(f"{span.start}:{span.stop}" for span in spans)
        raise ValueError(
            f"{array.store_path}: expected a region of {one} of {sizes} in {array.shape}, got [{got}]. "
            "Write what begins and ends with a file."
        )
    return files


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences zarr's warning that consolidated metadata is no part of the version 3 specification."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Consolidated metadata", category=UserWarning)
        yield
