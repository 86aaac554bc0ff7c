"""A finished Zarr store says what it consists of, so that what is lost or changed is an error when it is read.

The values of a chunk are guarded by a checksum in its encoding, which every reader of Zarr compares. The file
`checksums.json` guards the rest: it lists each file with its size, because Zarr takes a chunk that is not there for one
without values, and the SHA-256 of metadata and small arrays such as coordinates.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

from ladcast.files import sha256, whole_file

CHECKSUMS = "checksums.json"
ARRAY_METADATA = ("zarr.json", ".zarray")
METADATA = (*ARRAY_METADATA, ".zattrs", ".zgroup", ".zmetadata")
SMALL = 2**16
"""Elements of an array up to which its files are hashed."""


def seal(store: Path) -> None:
    """Writes `checksums.json` into a finished store, and removes what killed writers of chunks left in it."""
    for left in store.rglob("*.partial"):
        left.unlink()
    files = {path.relative_to(store).as_posix(): path for path in sorted(store.rglob("*")) if path.is_file()}
    files.pop(CHECKSUMS, None)
    parts = {name: name.split("/") for name in files}
    arrays = {
        tuple(above): json.loads(files[name].read_text())
        for name, (*above, last) in parts.items()
        if last in ARRAY_METADATA
    }
    small = {above for above, content in arrays.items() if math.prod(content.get("shape", (SMALL + 1,))) <= SMALL}
    hashed = {
        name: sha256(files[name])
        for name, (*above, last) in parts.items()
        if last in METADATA or any(tuple(above[:depth]) in small for depth in range(len(above) + 1))
    }
    content = {"sha256": hashed, "bytes": {name: path.stat().st_size for name, path in files.items()}}
    with whole_file(store / CHECKSUMS) as partial:
        partial.write_text(json.dumps(content))


def check_seal(store: Path) -> bool:
    """Compares a store with what it consisted of when it was finished; returns False where it does not say so.

    Stores of other programs and of earlier versions do not.

    Raises:
        ValueError: a file is missing, cut or changed; the message names the first.
    """
    path = store / CHECKSUMS
    if not path.is_file():
        return False
    try:
        content = json.loads(path.read_text())
        sizes, hashes = dict(content["bytes"]), dict(content["sha256"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error!r}). {_remedy(store)}") from None
    for name, size in sizes.items():
        file = store / name
        found = file.stat().st_size if file.is_file() else None
        if found != size:
            what = "is missing" if found is None else f"has {found} bytes, expected {size}"
            raise ValueError(f"{file} {what}. {_remedy(store)}")
        if name in hashes and sha256(file) != hashes[name]:
            raise ValueError(f"{file} has changed: its SHA-256 is not {hashes[name][:12]}... {_remedy(store)}")
    return True


def verify_store(store: Path) -> str:
    """Reads every chunk of a Zarr store and compares it with its checksum; says what was found whole.

    Raises:
        ValueError: a file is missing, cut or changed; the message names the first.
    """
    import zarr

    sealed = check_seal(store)
    chunks = 0
    for name, array in zarr.open_group(store, mode="r").arrays():
        for region in _regions(array):
            try:
                array[region]
            except (OSError, RuntimeError, ValueError) as error:
                at = ", ".join(str(part.start) for part in region)
                raise ValueError(f"{store / name} is damaged at [{at}] ({error}). {_remedy(store)}") from error
            chunks += 1
    said = "every file is there and has its checksum" if sealed else "every chunk can be read; it has no list of files"
    return f"{store}: {said}, {chunks} chunks"


def _regions(array: Any) -> Iterator[tuple[slice, ...]]:
    steps = array.shards or array.chunks
    return product(
        *(
            [slice(first, min(first + step, size)) for first in range(0, size, step)]
            for size, step in zip(array.shape, steps, strict=True)
        )
    )


def _remedy(store: Path) -> str:
    return f"Copy or make {store.name} again; if you changed it yourself, delete its {CHECKSUMS}."
