"""What a product is made from and how far it is: `manifest.json`, and while it is made, a journal of its units.

Stages `validate` and `status` say whether a product is what it was when it was finished, and what is made and missing.
Content is named by its SHA-256, that of single files and that of whole inputs, so that a change of either is noticed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.workers import Checksums, WorkUnit
from ladcast.data.audit import validate_store
from ladcast.documents import read_mapping
from ladcast.fields import read_channels
from ladcast.files import sha256, sync, whole_file
from ladcast.grid import Grid
from ladcast.resumable import holder, require_same
from ladcast.times import HOUR, Times, describe

MANIFEST = "manifest.json"
JOURNAL = "blocks.jsonl"
METADATA_FILES = ("zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata", MANIFEST)
READERS = 8
SHOWN_DAMAGES = 20
SHOWN_MISSING = 3
STAGES_OF_STATES = ("download", "regrid", "derive", "simulate")
"""Those that make stores of weather states, which the gate can open."""
STATUS_COLUMNS = ("product", "stage", "status", "units", "first", "last", "frames", "gaps")

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


def validate(product: Path, *, channels: str | None = None, grid: str | None = None, content: bool = True) -> None:
    """Check a product: every file against its checksum, and the fields of a store against what weather can be.

    Args:
        product: what a stage made, or any other Zarr store or netCDF file of weather states.
        channels: `era5` or a YAML file, the channels that must be there; by default those known that are there.
        grid: grid that it must be on.
        content: also look into the fields, where it is a store of weather states.
    """
    manifest = read_manifest(product)
    damaged = list(damages(product, manifest))
    if damaged:
        more = [f"  and {len(damaged) - SHOWN_DAMAGES} more"] if len(damaged) > SHOWN_DAMAGES else []
        lines = "\n".join([*(f"  {line}" for line in damaged[:SHOWN_DAMAGES]), *more])
        raise ValueError(f"{product} is damaged:\n{lines}\nDelete it and run its stage again, or copy it again.")
    print(f"{product}: {len(checksums(manifest))} files have their checksums.")
    if content and (not manifest or manifest.get("stage") in STAGES_OF_STATES):
        wanted, onto = read_channels(channels) if channels else None, Grid.parse(grid) if grid else None
        report = validate_store(product, wanted, onto)
        report.require()
        print(report)


def checksums(manifest: Content) -> dict[str, str]:
    """Returns the checksum of every file of a product, by name relative to it."""
    units = (unit["sha256"] for unit in manifest.get("blocks", ()))
    return {name: digest for part in (manifest.get("sha256", {}), *units) for name, digest in part.items()}


def damages(product: Path, manifest: Content) -> Iterator[str]:
    """Yields a sentence for each file that is missing, changed, or should not be there.

    Raises:
        FileNotFoundError: there is no such product.
        ValueError: it is not finished.
    """
    if not product.exists():
        raise FileNotFoundError(f"{product} does not exist: expected a product of a stage. Check the path.")
    if manifest.get("status") == "running":
        raise ValueError(f"{manifest_path(product)} says 'running'. Finish it first: run its stage again.")
    expected = checksums(manifest)
    labels = {name: unit["label"] for unit in manifest.get("blocks", ()) for name in unit["sha256"]}
    folder = product if product.is_dir() else product.parent
    with ThreadPoolExecutor(READERS) as pool:
        paths = (folder / name for name in expected)
        found = pool.map(lambda path: sha256(path) if path.is_file() else "no file", paths)
        for (name, digest), actual in zip(expected.items(), found, strict=True):
            if actual != digest:
                when = f" ({labels[name]})" if name in labels else ""
                yield f"{folder / name}{when}: expected SHA-256 {digest[:12]}..., got {actual[:12]}"
    if product.is_dir() and expected:
        present = {str(path.relative_to(product)) for path in product.rglob("*") if path.is_file()}
        for name in sorted(present - set(expected) - {MANIFEST}):
            yield f"{product / name}: is not in the manifest"


@dataclass(frozen=True)
class ProductStatus:
    """Says how far one product is."""

    name: str
    manifest: Content
    done: int
    missing: tuple[str, ...]
    being_written: bool

    @property
    def cells(self) -> tuple[str, ...]:
        """Returns the row of the table."""
        time = self.manifest.get("time", {})
        total = self.done + len(self.missing)
        return (
            self.name,
            str(self.manifest.get("stage", "?")),
            self.state,
            f"{self.done}/{total}" if total else "",
            *(str(time.get(key, "")) for key in ("first", "last", "frames")),
            str(len(self.manifest.get("gaps", ()))),
        )

    @property
    def state(self) -> str:
        """Returns what the manifest says, but `interrupted` where nobody is writing an unfinished product."""
        abandoned = "planned" in self.manifest and not self.being_written
        return "interrupted" if abandoned else str(self.manifest.get("status", "?"))


def status(folder: Path) -> list[ProductStatus]:
    """Print a table of the products in a folder, finished or not.

    Args:
        folder: where the products lie.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder. Give the one that holds the products.")
    rows = []
    for path in sorted(folder.iterdir()):
        if path.is_dir() and (path / MANIFEST).is_file() and not path.name.endswith(".partial.new"):
            rows.append(_describe(path))
        elif path.name.endswith(f".{MANIFEST}"):
            rows.append(_describe(path.with_name(path.name.removesuffix(f".{MANIFEST}"))))
    table = [STATUS_COLUMNS, *(row.cells for row in rows)]
    widths = [max(len(line[column]) for line in table) for column in range(len(STATUS_COLUMNS))]
    for line in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    for row in (row for row in rows if row.missing):
        more = f" and {len(row.missing) - SHOWN_MISSING} more" if len(row.missing) > SHOWN_MISSING else ""
        print(f"{row.name} lacks {'; '.join(row.missing[:SHOWN_MISSING])}{more}")
    return rows


def _describe(path: Path) -> ProductStatus:
    manifest = read_manifest(path)
    product = path.with_name(path.name.removesuffix(".partial"))
    planned = manifest.get("planned", [])
    finished = read_journal(path) if planned else {}
    missing = tuple(label for number, label in enumerate(planned) if number not in finished)
    done = len(finished) if planned else len(manifest.get("blocks", ()))
    return ProductStatus(product.name, manifest, done, missing, holder(product) is not None)
