"""Stages `validate` and `status`: is a product what it was when it was finished, and what is made and what missing?"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from data_pipelines.manifest import MANIFEST, Content, manifest_path, read_journal, read_manifest
from ladcast.data.audit import validate_store
from ladcast.fields import read_channels
from ladcast.files import sha256
from ladcast.grid import Grid
from ladcast.resumable import holder

READERS = 8
SHOWN_DAMAGES = 20
SHOWN_MISSING = 3
STAGES_OF_STATES = ("download", "regrid", "derive", "simulate")
"""Those that make stores of weather states, which the gate can open."""
STATUS_COLUMNS = ("product", "stage", "status", "units", "first", "last", "frames", "gaps")


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
