"""The tensors of a training state in files: each rank writes the pieces that it holds, and reads those that it needs.

A shard is a safetensors file, whose header says of each piece the shape of the whole tensor and the piece's place in
it. Ranks that all hold the same tensor take turns to write one. Nothing here runs what a file says.
"""

from __future__ import annotations

import io
import json
import math
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from ladcast.training.distributed import Ranks, local_part

PLACES = "places"
"""Entry of a shard's header: for each tensor the `shape` of the whole and the `offset` of the piece, as JSON."""
METADATA_BEFORE = ".metadata"
"""File of a snapshot by torch.distributed.checkpoint, in which earlier versions kept theirs."""
_CHECKPOINT = "torch.distributed.checkpoint"
CLASSES_BEFORE = {
    f"{_CHECKPOINT}.metadata.Metadata",
    f"{_CHECKPOINT}.metadata.TensorStorageMetadata",
    f"{_CHECKPOINT}.metadata.BytesStorageMetadata",
    f"{_CHECKPOINT}.metadata.ChunkStorageMetadata",
    f"{_CHECKPOINT}.metadata.TensorProperties",
    f"{_CHECKPOINT}.metadata.MetadataIndex",
    f"{_CHECKPOINT}.metadata.StorageMeta",
    f"{_CHECKPOINT}.metadata._MEM_FORMAT_ENCODING",
    f"{_CHECKPOINT}.filesystem._StorageInfo",
    "torch.serialization._get_layout",
    "torch.Size",
    "torch.float32",
    "torch.float64",
    "torch.bfloat16",
    "torch.float16",
    "torch.int64",
    "pathlib.PosixPath",
}
"""All that this file may name: values, which do nothing when they are made."""

Shape = tuple[int, ...]
Extent = tuple[slice, ...]


@dataclass(frozen=True)
class StoredPiece:
    """A piece of a tensor in a file: its place in the whole, and a function that reads a region of it."""

    whole: Shape
    offset: Shape
    shape: Shape
    read: Callable[[Extent], Tensor]


def own_pieces(tensors: Mapping[str, Mapping[str, Any]], ranks: Ranks) -> dict[str, tuple[Tensor, Shape, Shape]]:
    """Copies the pieces that this rank writes, to the CPU: by name the tensor, the shape of the whole and the offset.

    Names are `part.name`. What is no tensor, such as the settings of an optimizer, belongs to the run and stays out.
    """
    pieces = {}
    for number, (name, tensor) in enumerate(_flat(tensors)):
        local, offset = _place(tensor)
        if isinstance(tensor, DTensor) or number % ranks.size == ranks.rank:
            copy = local.detach().to("cpu", copy=True).contiguous()
            pieces[name] = copy, tuple(tensor.shape), offset
    return pieces


def write_shard(path: Path, pieces: Mapping[str, tuple[Tensor, Shape, Shape]]) -> None:
    """Writes the pieces of a rank; raises OSError where they do not fit on the disk."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    places = {name: {"shape": whole, "offset": offset} for name, (_, whole, offset) in pieces.items()}
    try:
        save_file({name: tensor for name, (tensor, _, _) in pieces.items()}, path, {PLACES: json.dumps(places)})
    except SafetensorError as error:
        raise OSError(str(error)) from error


def fill(tensors: Mapping[str, Mapping[str, Any]], paths: Iterable[Path]) -> None:
    """Fills the tensors in place from shards that any number of ranks has written; each rank what it holds.

    Raises:
        ValueError: names or shapes are others, or a part of a tensor is missing; nothing is filled then.
    """
    stored: dict[str, list[StoredPiece]] = {}
    for path in paths:
        for name, piece in _pieces_before(path) if path.name == METADATA_BEFORE else _pieces(path):
            stored.setdefault(name, []).append(piece)
    wanted = dict(_flat(tensors))
    if missing := sorted(wanted.keys() - stored.keys()):
        raise ValueError(f"{len(missing)} tensors are missing, first {missing[0]}")
    for name, tensor in wanted.items():
        local, offset = _place(tensor)
        shapes = {piece.whole for piece in stored[name]} - {tuple(tensor.shape)}
        if shapes:
            raise ValueError(f"{name}: expected shape {tuple(tensor.shape)}, got {shapes.pop()}")
        held = sum(math.prod(_lengths(_overlap(piece, local, offset))) for piece in stored[name])
        if held != local.numel():
            raise ValueError(f"{name}: {local.numel() - held} of {local.numel()} numbers are missing")
    for name, tensor in wanted.items():
        local, offset = _place(tensor)
        for piece in stored[name]:
            region = _overlap(piece, local, offset)
            if math.prod(_lengths(region)):
                target = local.detach()[_shifted(region, offset)]
                target.copy_(piece.read(_shifted(region, piece.offset)))


def _flat(tensors: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, Tensor]]:
    for part, content in tensors.items():
        for name, tensor in content.items():
            if isinstance(tensor, Tensor):
                yield f"{part}.{name}", tensor


def _place(tensor: Tensor) -> tuple[Tensor, Shape]:
    """Returns the part of a tensor that this rank holds, and where in the whole it begins."""
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    if not isinstance(tensor, DTensor):
        return tensor, (0,) * tensor.ndim
    _, offset = compute_local_shape_and_global_offset(tensor.shape, tensor.device_mesh, tensor.placements)
    return local_part(tensor), tuple(offset)


def _overlap(piece: StoredPiece, local: Tensor, offset: Shape) -> Extent:
    """Returns the region of the whole that both a piece and the part of this rank hold."""
    extents = zip(piece.offset, piece.shape, offset, local.shape, strict=True)
    return tuple(slice(max(a, b), max(a, b, min(a + m, b + n))) for a, m, b, n in extents)


def _lengths(region: Extent) -> Shape:
    return tuple(extent.stop - extent.start for extent in region)


def _shifted(region: Extent, offset: Shape) -> Extent:
    return tuple(slice(extent.start - by, extent.stop - by) for extent, by in zip(region, offset, strict=True))


def _pieces(path: Path) -> Iterator[tuple[str, StoredPiece]]:
    """Yields the pieces of a shard by name."""
    from safetensors import safe_open

    file: Any = safe_open(path, "pt")
    places = json.loads(file.metadata()[PLACES])
    for name in places:
        part = file.get_slice(name)
        whole, offset = (tuple(places[name][key]) for key in ("shape", "offset"))
        yield name, StoredPiece(whole, offset, tuple(part.get_shape()), part.__getitem__)


class _UnpicklerBefore(pickle.Unpickler):
    """Reads `.metadata`, which is a pickle; refuses to find what is not in `CLASSES_BEFORE`, so that nothing is run."""

    def find_class(self, module: str, name: str) -> Any:
        """Returns a class of the table."""
        module = module.removesuffix("._local")  # where Python 3.13 has `pathlib`
        if f"{module}.{name}" not in CLASSES_BEFORE or "." in name:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no snapshot needs")
        return super().find_class(module, name)


def _pieces_before(path: Path) -> Iterator[tuple[str, StoredPiece]]:
    """Yields the tensors of a snapshot of earlier versions by name."""
    with path.open("rb") as file:
        try:
            metadata = _UnpicklerBefore(file).load()
            chunks = {name: about for name, about in metadata.state_dict_metadata.items() if hasattr(about, "chunks")}
            storage = {(index.fqn, index.offset): place for index, place in metadata.storage_data.items()}
        except Exception as error:
            raise ValueError(f"{path} is not read: {error}") from error
    for name, about in chunks.items():
        for chunk in about.chunks:
            read = _reader_before(path.parent, storage[name, chunk.offsets])
            yield name, StoredPiece(tuple(about.size), tuple(chunk.offsets), tuple(chunk.sizes), read)


def _reader_before(folder: Path, place: Any) -> Callable[[Extent], Tensor]:
    def read(region: Extent) -> Tensor:
        with (folder / Path(place.relative_path).name).open("rb") as file:
            file.seek(place.offset)
            whole: Tensor = torch.load(io.BytesIO(file.read(place.length)), weights_only=True)
        return whole[region]

    return read
