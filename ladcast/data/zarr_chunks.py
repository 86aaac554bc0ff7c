"""Reads and writes whole chunks and shards of a local Zarr array: one (de)compression each, in any thread.

zarr-python serves every layout on every storage through an event loop: a millisecond a chunk, and for large ones copies
and checksums one after the other. Training reads millions of chunks of one layout, an array on a local disk whose
chunks hold whole states; a forecast writes gigabytes of another.
"""

from __future__ import annotations

import json
import math
import os
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from numcodecs import LZ4, Blosc, GZip, Zlib, Zstd
from numcodecs.checksum32 import CRC32C
from zarr.codecs import BloscCodec, Crc32cCodec

from ladcast.data.lazy import LazyField, as_slice, lazy_variable, outer

CHECKED = (BloscCodec(cname="lz4", clevel=5, shuffle="shuffle"), Crc32cCodec())
"""Compresses fields (decision 027), with a checksum of each chunk that every reader of Zarr compares: without, a bit
that flipped is decompressed to other weather without a word."""
Decode = Callable[[bytes], bytes]
NO_CHUNK = 2**64 - 1
"""Offset and size that a shard's index has where a chunk was never written (Zarr v3, `sharding_indexed`)."""
BLOSC, BLOSC_HEADER_BYTES = Blosc(), 16
LARGE_BYTES, DECODERS_AT_ONCE = 2**20, 8
"""Chunks from this size on are worth a thread each, up to so many."""


class UnsupportedLayoutError(ValueError):
    """The reason why an array cannot be read by whole chunks of states; zarr-python can read it."""


class ChunkError(ValueError):
    """A chunk that is missing, truncated or corrupt, with its file."""


@dataclass(frozen=True)
class ChunkedArray:
    """Describes an array whose chunks divide the leading axis alone, and where its chunks lie.

    A shard is a file of `chunks_per_file` chunks with an index; without shards a file is a chunk.
    """

    folder: Path
    shape: tuple[int, ...]
    chunk_shape: tuple[int, ...]
    dtype: np.dtype[Any]
    decoders: tuple[Decode, ...]
    file_name: str
    """Name of a file within `folder`, with `{}` for its number along the leading axis."""
    chunks_per_file: int = 1
    index: ShardIndex | None = None

    @property
    def states_per_chunk(self) -> int:
        """Returns the length of a chunk along the leading axis."""
        return self.chunk_shape[0]

    def read_chunk(self, number: int) -> npt.NDArray[Any]:
        """Returns chunk `number` of the leading axis, in `chunk_shape`; raises ChunkError that names the file."""
        file_number, place = divmod(number, self.chunks_per_file)
        path = f"{self.folder}/{self.file_name.format(file_number)}"
        try:
            stored = _read(path) if self.index is None else self.index.read_chunk(path, place)
            for decode in self.decoders:
                stored = decode(stored)
            return np.frombuffer(stored, self.dtype).reshape(self.chunk_shape)
        except (OSError, RuntimeError, ValueError, zlib.error) as error:
            part = f"chunk {place} of {path}" if self.index else path
            size = math.prod(self.chunk_shape) * self.dtype.itemsize
            raise ChunkError(f"Expected {size} bytes of values in {part}, got an error: {error}.") from error


@dataclass(frozen=True)
class ShardIndex:
    """Finds the chunks within shards; what it has read of each file it keeps (16 bytes a chunk)."""

    chunks: int
    decoders: tuple[Decode, ...]
    checksum_bytes: int
    at_end: bool
    known: dict[str, npt.NDArray[np.uint64]] = field(default_factory=dict, compare=False)

    def read_chunk(self, path: str, place: int) -> bytes:
        """Returns the stored bytes of one chunk; raises ValueError where the shard does not hold it."""
        extents = self.known.get(path)  # two threads may read the same index: both write the same entry
        if extents is None:
            extents = self.known[path] = self._read_extents(path)
        offset, size = extents[place].tolist()
        if offset == NO_CHUNK:
            raise ValueError("the chunk was never written")
        return _read(path, offset, size)

    def _read_extents(self, path: str) -> npt.NDArray[np.uint64]:
        size = 16 * self.chunks + self.checksum_bytes
        stored = _read(path, max(Path(path).stat().st_size - size, 0) if self.at_end else 0, size)
        for decode in self.decoders:
            stored = decode(stored)
        return np.frombuffer(stored, "<u8").reshape(self.chunks, 2)


@dataclass(frozen=True)
class ChunkWriter:
    """Writes whole files of an array in Zarr v3 as zarr-python does, byte for byte, on the thread that asks for it.

    A file is a chunk, or a shard: the chunks along one axis, and their index.
    """

    folder: Path
    file_shape: tuple[int, ...]
    chunk_shape: tuple[int, ...]
    fill_value: float
    compressor: Blosc
    shard_axis: int | None = None
    """The axis along which a file is cut into chunks; None where a file is a chunk, without an index."""

    @classmethod
    def open(cls, folder: Path) -> ChunkWriter:
        """Reads the metadata of an array; raises UnsupportedLayoutError if its chunks are not Blosc with a CRC-32C."""
        about = json.loads((folder / "zarr.json").read_text())
        file_shape = chunk_shape = tuple(about["chunk_grid"]["configuration"]["chunk_shape"])
        codecs, shard_axis = about["codecs"], None
        if codecs[0]["name"] == "sharding_indexed":
            sharding = codecs[0]["configuration"]
            chunk_shape, codecs = tuple(sharding["chunk_shape"]), [*sharding["codecs"], *codecs[1:]]
            cut = np.flatnonzero(np.less(chunk_shape, file_shape)).tolist() or [0]
            shard_axis, index = cut[0], _open_index(sharding, 1, folder)
            if len(cut) > 1 or not (index.at_end and index.decoders):
                raise UnsupportedLayoutError(f"{folder} has shards cut along several axes, or another index")
        names = [codec["name"] for codec in codecs]
        plain = about["chunk_key_encoding"] == {"name": "default", "configuration": {"separator": "/"}}
        if names != ["bytes", "blosc", "crc32c"] or _byte_order(codecs[0], folder) != "<" or not plain:
            raise UnsupportedLayoutError(f"{folder} is stored with the codecs {names}, or other names of chunks")
        options = codecs[1]["configuration"]
        shuffle = ("noshuffle", "shuffle", "bitshuffle").index(options["shuffle"])
        compressor = Blosc(options["cname"], options["clevel"], shuffle, options["blocksize"])
        return cls(folder, file_shape, chunk_shape, float(about["fill_value"]), compressor, shard_axis)

    def write(self, index: Sequence[int], values: npt.NDArray[np.floating]) -> str:
        """Writes the file of this index, and returns its name; at the end of an axis `values` may be less than a file.

        Raises:
            ValueError: `values` are more than a file, or have other axes.
        """
        if len(values.shape) != len(self.file_shape) or np.any(np.greater(values.shape, self.file_shape)):
            raise ValueError(f"{self.folder}: expected a file of {self.file_shape} at most, got {values.shape}.")
        name = "/".join(("c", *map(str, index)))
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.writelines(self._stored(values))
        return name

    def _stored(self, values: npt.NDArray[np.floating]) -> Iterator[bytes]:
        if (axis := self.shard_axis) is None:
            yield self._compressed(values)
            return
        size, offset = self.chunk_shape[axis], 0
        extents = np.full((self.file_shape[axis] // size, 2), NO_CHUNK, "<u8")
        for number, first in enumerate(range(0, values.shape[axis], size)):
            chunk = self._compressed(values[(slice(None),) * axis + (slice(first, first + size),)])
            extents[number] = offset, len(chunk)
            offset += len(chunk)
            yield chunk
        yield _with_sum(extents.tobytes())

    def _compressed(self, values: npt.NDArray[np.floating]) -> bytes:
        chunk = np.ascontiguousarray(values, "<f4")
        if chunk.shape != self.chunk_shape:
            chunk = np.full(self.chunk_shape, self.fill_value, "<f4")
            chunk[tuple(map(slice, values.shape))] = values
        return _with_sum(self.compressor.encode(chunk))


def read_by_chunks(ds: xr.Dataset, store: Path) -> xr.Dataset:
    """Returns the dataset of a Zarr store such that its fields are read by whole chunks where they are stored so.

    The values are those that zarr-python reads, to which what cannot be read here is left: other layouts from the
    beginning, and chunks that are missing or broken when they are wanted.
    """
    direct = {}
    for name, stored in ds.variables.items():
        if not stored.dims or stored.dims[0] != "time" or name in ds.coords:
            continue
        try:
            check_encoding(stored, store / str(name))
            array = open_array(store / str(name))
        except (UnsupportedLayoutError, KeyError):
            continue
        field = LazyField(stored.shape, partial(_read_fields, array, stored), stored.dtype)
        direct[name] = lazy_variable(list(map(str, stored.dims)), field, stored.attrs, stored.encoding)
    return ds.assign(direct)


def _read_fields(array: ChunkedArray, stored: xr.Variable, *points: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    numbers, within = np.divmod(points[0], array.states_per_chunk)
    cut = outer(points[1:])
    values = np.empty([len(index) for index in points], stored.dtype)

    def read(number: int) -> None:
        states = array.read_chunk(number)
        for place in np.flatnonzero(numbers == number).tolist():
            values[place] = states[within[place]][cut]

    chunks = np.unique(numbers).tolist()
    large = math.prod(array.chunk_shape) * array.dtype.itemsize >= LARGE_BYTES
    try:
        if large and len(chunks) > 1:
            with ThreadPoolExecutor(min(len(chunks), DECODERS_AT_ONCE)) as pool:
                deque(pool.map(read, chunks), maxlen=0)  # raises an error
        else:
            deque(map(read, chunks), maxlen=0)
    except ChunkError:
        return np.asarray(stored[tuple(map(as_slice, points))].values)
    return values


def check_encoding(variable: xr.Variable, folder: Path) -> None:
    """Raises UnsupportedLayoutError where stored numbers are not the values, or time is not the first axis."""
    if variable.dims[0] != "time" or np.dtype(variable.dtype).kind != "f":
        raise UnsupportedLayoutError(f"{folder} has the dimensions {variable.dims} of {variable.dtype}")
    encoding = variable.encoding
    # xarray unpacks and masks such values, the reader of chunks does not.
    packed = [key for key in ("scale_factor", "add_offset") if key in encoding]
    marks = [encoding[key] for key in ("_FillValue", "missing_value") if key in encoding]
    if packed or not all(np.isnan(mark) for mark in marks):
        raise UnsupportedLayoutError(f"{folder} has packed or masked values ({packed or marks})")


def open_array(folder: Path) -> ChunkedArray:
    """Reads the metadata of a Zarr array, v2 or v3.

    Raises:
        UnsupportedLayoutError: chunks divide a state, or a codec is not among those read here.
    """
    if (folder / "zarr.json").is_file():
        return _open_v3(folder, json.loads((folder / "zarr.json").read_text()))
    if (folder / ".zarray").is_file():
        return _open_v2(folder, json.loads((folder / ".zarray").read_text()))
    raise UnsupportedLayoutError(f"{folder} has no zarr.json and no .zarray: it is no Zarr array on a local disk")


def _open_v2(folder: Path, about: dict[str, Any]) -> ChunkedArray:
    if about["filters"] or about["order"] != "C":
        raise UnsupportedLayoutError(f"{folder} has filters or Fortran order")
    compressor = about["compressor"]
    separator = about.get("dimension_separator", ".")
    return ChunkedArray(
        folder,
        shape=tuple(about["shape"]),
        chunk_shape=_whole_states(about["chunks"], about["shape"], folder),
        dtype=np.dtype(about["dtype"]),
        decoders=_decoders([] if compressor is None else [compressor["id"]], folder),
        file_name=separator.join(["{}", *("0" for _ in about["shape"][1:])]),
    )


def _open_v3(folder: Path, about: dict[str, Any]) -> ChunkedArray:
    shape, codecs = tuple(about["shape"]), about["codecs"]
    if about["chunk_grid"]["name"] != "regular" or about.get("storage_transformers"):
        raise UnsupportedLayoutError(f"{folder} has irregular chunks or storage transformers")
    file_shape = _whole_states(about["chunk_grid"]["configuration"]["chunk_shape"], shape, folder)
    chunk_shape, index = file_shape, None
    if codecs[0]["name"] == "sharding_indexed":
        sharding = codecs[0]["configuration"]
        chunk_shape = _whole_states(sharding["chunk_shape"], shape, folder)
        index = _open_index(sharding, file_shape[0] // chunk_shape[0], folder)
        codecs = [*sharding["codecs"], *codecs[1:]] if len(codecs) == 1 else [{"name": "a codec around shards"}]
    order, keys = _byte_order(codecs[0], folder), about["chunk_key_encoding"]
    is_default = keys["name"] == "default"
    separator = keys.get("configuration", {}).get("separator", "/" if is_default else ".")
    return ChunkedArray(
        folder,
        shape=shape,
        chunk_shape=chunk_shape,
        dtype=_dtype_v3(about["data_type"], order, folder),
        decoders=_decoders([codec["name"] for codec in codecs[1:]], folder),
        file_name=str(separator).join([*(["c"] if is_default else []), "{}", *("0" for _ in shape[1:])]),
        chunks_per_file=file_shape[0] // chunk_shape[0],
        index=index,
    )


def _dtype_v3(data_type: Any, order: str, folder: Path) -> np.dtype[Any]:
    try:
        dtype: np.dtype[Any] = np.dtype(data_type).newbyteorder(order)
        return dtype
    except (TypeError, ValueError):  # such as text, which has a name and a configuration
        raise UnsupportedLayoutError(f"{folder} holds {data_type}") from None


def _open_index(sharding: dict[str, Any], chunks: int, folder: Path) -> ShardIndex:
    names = [codec["name"] for codec in sharding["index_codecs"]]
    if names not in (["bytes"], ["bytes", "crc32c"]) or _byte_order(sharding["index_codecs"][0], folder) != "<":
        raise UnsupportedLayoutError(f"{folder} has a shard index with the codecs {names}")
    checksum_bytes = 4 * (len(names) - 1)
    at_end = sharding.get("index_location", "end") == "end"
    return ShardIndex(chunks, _decoders(names[1:], folder), checksum_bytes, at_end)


def _whole_states(chunks: Sequence[int], shape: Sequence[int], folder: Path) -> tuple[int, ...]:
    if tuple(chunks[1:]) != tuple(shape[1:]) or chunks[0] < 1:
        raise UnsupportedLayoutError(f"{folder} has chunks of {tuple(chunks)}, which divide a state of {shape[1:]}")
    return tuple(chunks)


def _byte_order(codec: dict[str, Any], folder: Path) -> str:
    if codec["name"] != "bytes":
        raise UnsupportedLayoutError(f"{folder} is stored with the codec '{codec['name']}'")
    return ">" if codec.get("configuration", {}).get("endian") == "big" else "<"


def _read(path: str, offset: int = 0, size: int | None = None) -> bytes:
    """Returns `size` bytes from `offset`, by default all; raises ValueError where the file ends before."""
    # `pread` has no position in the file that threads could move for each other.
    file = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(file).st_size if size is None else size
        stored = os.pread(file, size, offset)
    finally:
        os.close(file)
    if len(stored) != size:
        raise ValueError(f"the file ends after {len(stored)} of {size} bytes at offset {offset}")
    return stored


def _decode_blosc(stored: bytes) -> bytes:
    # Blosc itself trusts the header, and would read beyond the end of a truncated chunk.
    size = int.from_bytes(stored[12:16], "little")
    if len(stored) < BLOSC_HEADER_BYTES or len(stored) != size:
        raise ValueError(f"its Blosc header tells of {size} bytes, there are {len(stored)}")
    return bytes(BLOSC.decode(stored))


def _with_sum(stored: bytes) -> bytes:
    checksum: int = CRC32C.checksum(stored)
    return stored + checksum.to_bytes(4, "little")


def _check_sum(stored: bytes) -> bytes:
    # `CRC32C.decode` wraps the bytes in arrays first, which takes longer than the sum, and holds the interpreter.
    body, expected = stored[:-4], int.from_bytes(stored[-4:], "little")
    if CRC32C.checksum(body) != expected:
        raise ValueError("the stored checksum is not that of the bytes")
    return body


def _decoders(names: Sequence[str], folder: Path) -> tuple[Decode, ...]:
    """Returns the functions that undo codecs, the last codec first."""
    unknown = [name for name in names if name not in DECODERS]
    if unknown:
        raise UnsupportedLayoutError(f"{folder} is stored with the codec '{unknown[0]}'")
    return tuple(DECODERS[name] for name in reversed(names))


DECODERS: dict[str, Decode] = {
    "blosc": _decode_blosc,
    "zstd": Zstd().decode,
    "gzip": GZip().decode,
    "zlib": Zlib().decode,
    "lz4": LZ4().decode,
    "crc32c": _check_sum,
}
"""What undoes each codec; the parameters of all of them lie in the bytes."""
