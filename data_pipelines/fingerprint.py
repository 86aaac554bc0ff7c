"""Names content by SHA-256: of single files, and of whole inputs, so that a change of either is noticed."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

MANIFEST = "manifest.json"
METADATA = ("zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata", MANIFEST)


def file_digest(path: Path, *, durable: bool = False) -> str:
    """Returns the SHA-256 of a file; `durable` first makes sure that it survives a loss of power."""
    with path.open("rb") as file:
        if durable:
            os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(path: Path) -> str:
    """Returns a hash that changes when an input changes.

    A product with checksums in its manifest (of this package, or a checkpoint) has the hash of the manifest,
    which covers every byte. A file has the hash of its content. Any other folder has a hash of its metadata and of the
    names and sizes of its files: a change inside a chunk that keeps its compressed size goes unseen.

    Raises:
        FileNotFoundError: nothing is at `path`.
        ValueError: the product is not finished.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: expected the input of a stage. Check the path.")
    if path.is_file():
        return file_digest(path)
    manifest = path / MANIFEST
    content = json.loads(manifest.read_text()) if manifest.is_file() else {}
    if content.get("status") == "running":
        raise ValueError(
            f"{path} is unfinished: its {MANIFEST} has status 'running'. Finish it first: run its stage again."
        )
    return file_digest(manifest) if {"blocks", "sha256"} & set(content) else _tree_digest(path)


def _tree_digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = file_digest(path) if path.name in METADATA else ""
        digest.update(f"{path.relative_to(folder)}\0{path.stat().st_size}\0{content}\n".encode())
    return digest.hexdigest()
