"""Stage `status`: what is made, what is being made, and what is missing, in a table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ladcast.resumable import holder
from data_pipelines.manifest import MANIFEST, Content, read_journal, read_manifest

SHOWN_MISSING = 3
COLUMNS = ("product", "stage", "status", "units", "first", "last", "frames", "gaps")


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
    """Print a table of the products in a folder.

    Args:
        folder: where the products lie.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder. Give the one that holds the products.")
    rows = list(products(folder))
    table = [COLUMNS, *(row.cells for row in rows)]
    widths = [max(len(line[column]) for line in table) for column in range(len(COLUMNS))]
    for line in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    for row in (row for row in rows if row.missing):
        more = f" and {len(row.missing) - SHOWN_MISSING} more" if len(row.missing) > SHOWN_MISSING else ""
        print(f"{row.name} lacks {'; '.join(row.missing[:SHOWN_MISSING])}{more}")
    return rows


def products(folder: Path) -> Iterator[ProductStatus]:
    """Yields every product in a folder, finished or not, by name."""
    for path in sorted(folder.iterdir()):
        if path.name.endswith(".partial.new"):
            continue
        if path.is_dir() and (path / MANIFEST).is_file():
            yield _describe(path)
        elif path.name.endswith(f".{MANIFEST}"):
            yield _describe(path.with_name(path.name.removesuffix(f".{MANIFEST}")))


def _describe(path: Path) -> ProductStatus:
    manifest = read_manifest(path)
    product = path.with_name(path.name.removesuffix(".partial"))
    planned = manifest.get("planned", [])
    finished = read_journal(path) if planned else {}
    missing = tuple(label for number, label in enumerate(planned) if number not in finished)
    done = len(finished) if planned else len(manifest.get("blocks", ()))
    return ProductStatus(product.name, manifest, done, missing, holder(product) is not None)
