"""What a product is made from and how far it is: `manifest.json`, and while it is made, a journal of its units.

Content is named by its SHA-256, that of single files and that of whole inputs, so that a change of either is noticed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.workers import Checksums, WorkUnit
from ladcast.documents import read_mapping
from ladcast.files import sha256, sync, whole_file
from ladcast.resumable import require_same
from ladcast.times import HOUR, Times, describe

MANIFEST = "manifest.json"
JOURNAL = "blocks.jsonl"
METADATA_FILES = ("zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata", MANIFEST)
Content = dict[str, Any]


def manifest_path(product: Path) -> Path:
    """Returns where the manifest of a product lies: inside a folder, beside a file."""
    beside = product.with_name(f"{product.name}.{MANIFEST}")
    return product / MANIFEST if product.is_dir() else beside


def read_manifest(product: Path) -> Content:
    """Reads the manifest of a product; returns an empty dict where there is none.

    Raises:
        ValueError: it is damaged; the message begins with its path.
    """
    path = manifest_path(product)
    return read_mapping(path) if path.is_file() else {}


def write_manifest(path: Path, content: Mapping[str, Any]) -> None:
    """Replaces a manifest, whole or not at all, and on the disk before this returns."""
    with whole_file(path) as partial:
        partial.write_text(json.dumps(content, indent=1) + "\n")
        sync(partial)


def describe_times(times: Times) -> Content:
    """Returns the time range and the gaps of a time axis as a manifest keeps them.

    A gap is a pair (last time before, first time after), as `ladcast.data.store.open_store` expects it.
    """
    steps = np.diff(times)
    usual = np.sort(steps)[len(steps) // 2] if len(steps) else np.timedelta64(0, "h")
    gaps = [(describe(times[k]), describe(times[k + 1])) for k in np.flatnonzero(steps != usual)]
    ends = {"first": describe(times[0]), "last": describe(times[-1])}
    return {"time": {**ends, "frames": len(times), "step_hours": float(usual / HOUR)}, "gaps": gaps}


def check_unchanged(product: Path, found: Content, asked: Content) -> None:
    """Compares what a product was made from with what is asked for now.

    Raises:
        ValueError: an input or an argument differs; the message names each, before and now.
    """
    compared = ["stage", "inputs", "arguments", "grid"]
    if found.get("status") == "running":
        compared += ["code_version", "planned"]  # units of two versions, or of two lengths, must not mix
    remedy = "Delete it to make it anew, or give another output."
    require_same(found, {key: asked.get(key) for key in compared}, str(product), remedy=remedy)


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
        return sha256(path)
    content = read_manifest(path)
    if content.get("status") == "running":
        raise ValueError(
            f"{path} is unfinished: its {MANIFEST} has status 'running'. Finish it first: run its stage again."
        )
    if {"blocks", "sha256"} & set(content):
        return sha256(path / MANIFEST)
    tree = hashlib.sha256()
    for file in sorted(file for file in path.rglob("*") if file.is_file()):
        digest = sha256(file) if file.name in METADATA_FILES else ""
        tree.update(f"{file.relative_to(path)}\0{file.stat().st_size}\0{digest}\n".encode())
    return tree.hexdigest()


def durable_digest(path: Path) -> str:
    """Returns the SHA-256 of a file that is sure to survive a loss of power."""
    sync(path)
    return sha256(path)


def read_journal(folder: Path) -> dict[int, Checksums]:
    """Returns the checksums of the files of each finished unit; a line that a kill cut short does not count."""
    entries = map(json.loads, _whole_lines(folder / JOURNAL))
    return {entry["block"]: entry["sha256"] for entry in entries}


class Journal:
    """Records finished units and the checksums of their files, a line each, on the disk before it returns."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / JOURNAL
        if self.path.exists():
            os.truncate(self.path, sum(map(len, _whole_lines(self.path))))
        self.checksums = read_journal(folder)

    def append(self, unit: WorkUnit, checksums: Checksums) -> None:
        """Adds a unit whose files are written."""
        with self.path.open("a") as file:
            file.write(json.dumps({"block": unit.number, "sha256": checksums}) + "\n")
        sync(self.path)
        self.checksums[unit.number] = checksums


def _whole_lines(path: Path) -> list[bytes]:
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    return [line for line in lines if line.endswith(b"\n")]
