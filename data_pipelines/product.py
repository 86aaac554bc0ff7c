"""How every stage makes its product: unit by unit, whole or absent, once.

A product grows in a folder beside it, `<product>.partial`, with a manifest that says `running` and a journal of the
work units that are finished. When all are, the manifest says `complete` and the product gets its name by a rename. So a
name that exists is whole; a kill costs the units in flight; and as a unit depends on nothing but the inputs, or on the
files of the unit that it follows, what is resumed is bit for bit what would have been.
"""

from __future__ import annotations

import errno
import json
import shutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from data_pipelines import Execution
from data_pipelines.manifest import (
    MANIFEST,
    Content,
    Journal,
    check_unchanged,
    durable_digest,
    manifest_path,
    read_manifest,
    write_manifest,
)
from data_pipelines.workers import PARTS, Checksums, WorkUnit, make_all
from ladcast.device import reuse_memory
from ladcast.resumable import sole_writer
from ladcast.run import show_progress, version_of

NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
LEFTOVER = "*.partial*"
"""What a killed writer leaves of a file that was to be whole: those of Zarr and of `ladcast.files.whole_file`."""
SYNCED_AT_ONCE = 8
"""Files that are flushed to the disk and read again for their checksums at one time: each waits for the disk."""
SHOWN_FAILURES = 10
MOST_UNANSWERED = 10
"""Units for which a source may fail to answer before it counts as down: each costs all its patience."""


class ProductRecipe(ABC):
    """Says how a product is made. A frozen dataclass: workers get a copy of it.

    What is in `parts` of the folder goes when the product is finished.
    """

    @abstractmethod
    def about(self) -> Content:
        """Returns what the manifest says: at least the stage, its inputs with fingerprints, its arguments."""

    @abstractmethod
    def units(self) -> Sequence[WorkUnit]:
        """Returns the work, cut into pieces that do not depend on each other, or each on the one before alone."""

    @property
    def at_once(self) -> int:
        """Returns how many units threads of one process make side by side; they must not depend on each other."""
        return 1

    def create(self, folder: Path) -> None:  # noqa: B027  (most need nothing)
        """Writes everything that needs no unit into a new folder."""

    @abstractmethod
    def make(self, folder: Path, unit: WorkUnit) -> Iterable[str]:
        """Writes the files that belong to a unit alone, whole, and returns their names relative to the folder."""

    def finish(self, folder: Path) -> Path:
        """Writes what needs all units and returns the product: the folder, or a file in it. May run twice."""
        return folder


class UnitsFailedError(ValueError):
    """Some units of a product could not be made; the message lists them."""


def partial_folder(product: Path) -> Path:
    """Returns where a product grows."""
    return product.with_name(f"{product.name}.partial")


def produce(recipe: ProductRecipe, product: Path, execution: Execution | None = None) -> Path:
    """Makes a product, goes on with one that was begun, or returns one that is complete.

    Raises:
        FileExistsError: something else is at `product`, or another process is writing it.
        ValueError: the product was made, or begun, from other inputs or arguments.
        OSError: the disk is full.
        UnitsFailedError: the message lists the units that failed. Those that succeeded are kept.
    """
    folder = partial_folder(product.absolute())  # workers may have another working directory
    planned = [unit.label for unit in recipe.units()]
    version = version_of("ladcast").removeprefix("ladcast ")
    content = {"status": "running", "code_version": version, **recipe.about(), "planned": planned}
    asked: Content = json.loads(json.dumps(content))  # as it will be read again: tuples become lists
    with sole_writer(product), _full_disk_explained(folder):
        shutil.rmtree(_scratch(folder), ignore_errors=True)
        if folder.exists():
            check_unchanged(folder, read_manifest(folder), asked)
        elif product.exists():
            if not (found := read_manifest(product)):
                raise FileExistsError(f"{product} exists already. Delete it, or choose another output.")
            check_unchanged(product, found, asked)
            print(f"{product} is complete already.")
            return product
        else:
            # The first unit may be minutes away: a model is compiled, a store of years is laid out.
            print(f"{asked['stage']} {product.stem}: begins, {len(planned)} units", file=sys.stderr, flush=True)
            _begin(recipe, folder, asked)
        if read_manifest(folder)["status"] == "running":
            _make_units(recipe, folder, execution or Execution())
        _complete(recipe, folder, product)
    print(f"wrote {product}")
    return product


def _begin(recipe: ProductRecipe, folder: Path, asked: Content) -> None:
    new = _scratch(folder)
    new.mkdir(parents=True)
    recipe.create(new)
    write_manifest(new / MANIFEST, asked)
    new.rename(folder)


def _make_units(recipe: ProductRecipe, folder: Path, execution: Execution) -> None:
    reuse_memory()
    journal, units = Journal(folder), recipe.units()
    (folder / PARTS).mkdir(exist_ok=True)
    made = {n for n, files in journal.checksums.items() if all((folder / name).exists() for name in files)}
    waiting = [unit for unit in units if unit.number not in made]
    failed: dict[str, Exception] = {}
    label = f"{read_manifest(folder)['stage']} {folder.stem}"
    make = partial(_make, recipe, folder)
    # Nothing else holds these iterators, so that leaving the loop ends the work of all workers at once.
    made_anew = partial(make_all, make, waiting, execution, at_once=recipe.at_once)
    for unit, outcome in show_progress(made_anew(), len(waiting), label, unit="units"):
        if not isinstance(outcome, Exception):
            journal.append(unit, outcome)
            continue
        failed[unit.label] = outcome
        unanswered = sum(isinstance(error, ConnectionError) for error in failed.values())
        # What follows a unit that failed has nothing to begin from.
        if _is_full(outcome) or unanswered == MOST_UNANSWERED or any(other.follows for other in waiting):
            break
    for error in filter(_is_full, failed.values()):
        raise error
    if failed:
        first = next(iter(failed.values()))
        raise UnitsFailedError(_describe_failures(failed, folder, len(units))) from first


def _make(recipe: ProductRecipe, folder: Path, unit: WorkUnit) -> Checksums:
    names = sorted(recipe.make(folder, unit))
    with ThreadPoolExecutor(SYNCED_AT_ONCE) as pool:
        return dict(zip(names, pool.map(durable_digest, map(folder.joinpath, names)), strict=True))


def _complete(recipe: ProductRecipe, folder: Path, product: Path) -> None:
    made = recipe.finish(folder) if read_manifest(folder)["status"] == "running" else folder
    if made == folder:
        _seal(folder)
        folder.rename(product)
        return
    content = {**read_manifest(folder), "status": "complete", "sha256": {product.name: durable_digest(made)}}
    del content["planned"]
    made.replace(product)
    write_manifest(manifest_path(product), content)
    # Renamed first: a folder that was removed in part must not look like one to go on with.
    folder.rename(_scratch(folder))
    shutil.rmtree(_scratch(folder))


def _seal(folder: Path) -> None:
    """Writes the manifest with the checksum of every file, and then removes what only the work needed."""
    content, journal = read_manifest(folder), Journal(folder)
    if content["status"] == "running":
        for path in folder.rglob(LEFTOVER):
            path.unlink()
        labels = content.pop("planned")
        made = [journal.checksums[number] for number in range(len(labels))]
        units = [
            {"label": label, "sha256": {name: checksums[name] for name in _lasting(checksums)}}
            for label, checksums in zip(labels, made, strict=True)
        ]
        known = {name for unit in units for name in unit["sha256"]} | {MANIFEST, journal.path.name}
        present = _lasting(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
        others = {name: durable_digest(folder / name) for name in sorted(set(present) - known)}
        write_manifest(folder / MANIFEST, {**content, "status": "complete", "sha256": others, "blocks": units})
    shutil.rmtree(folder / PARTS, ignore_errors=True)
    journal.path.unlink(missing_ok=True)


def _scratch(folder: Path) -> Path:
    """Returns the name of what may be thrown away: a folder that is not complete yet, or no longer."""
    return folder.with_name(f"{folder.name}.new")


def _lasting(names: Iterable[str]) -> list[str]:
    """Returns the files that stay with the product."""
    return [name for name in names if not name.startswith(f"{PARTS}/")]


@contextmanager
def _full_disk_explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if not _is_full(error):
            raise
        raise OSError(error.errno, "No space left to write", str(folder)) from error


def _is_full(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in NO_SPACE


def _describe_failures(failed: dict[str, Exception], folder: Path, total: int) -> str:
    lines = [f"  {label}: {error}" for label, error in list(failed.items())[:SHOWN_FAILURES]]
    more = [f"  and {len(failed) - SHOWN_FAILURES} more"] if len(failed) > SHOWN_FAILURES else []
    head = f"{len(failed)} of {total} units of {folder} could not be made:"
    return "\n".join([head, *lines, *more, "What is made is kept. Run the same command again when the cause is gone."])
