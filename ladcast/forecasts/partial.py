"""A store that a long run fills: atomic, and resumable after a kill."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ladcast.checkpoint import MANIFEST, read_document, read_tensors, remove_output, write_checkpoint
from ladcast.forecasting.ensemble import Position

STORE, PROGRESS, BEGUN = "store", "progress", "begun"


def begun_identity(path: Path) -> dict[str, Any]:
    """Returns the identity of the run that has begun the store `path` and not completed it, if there is one."""
    try:
        identity: dict[str, Any] = read_document(path.with_name(f"{path.name}.partial") / PROGRESS / BEGUN, MANIFEST)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return identity


class PartialStore:
    """Keeps a store in `<path>.partial` until it is complete, and beside it how far the run has come.

    A run has an `identity` of plain data: another run does not go on with its work. Whoever fills the store writes a
    part of it and then saves the position that follows, so that after a kill at any moment the part is written again.
    Each batch of the work has a position of its own, so that processes share the batches.

    With `overwrite` a complete store gives way to the new one when that is complete, and an unfinished one of another
    run at once.

    Raises:
        FileExistsError: `path` exists, and not `overwrite`.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any], *, overwrite: bool = False) -> None:
        if path.exists() and not overwrite:
            raise FileExistsError(f"{path} exists already. Choose another --output, or add --overwrite.")
        self.path, self.identity, self.overwrite = path, dict(identity), overwrite
        self.folder = path.with_name(f"{path.name}.partial")

    @property
    def store(self) -> Path:
        """Returns where the store is until it is complete."""
        return self.folder / STORE

    def start(self, create: Callable[[Path], None]) -> dict[int, Position]:
        """Lets `create` make an empty store, or finds that of a killed run; returns the saved position of each batch.

        Raises:
            FileExistsError: the partial store is damaged, or that of another run.
            OSError: the folder cannot be written.
        """
        if self.folder.exists() and not self._untouched():
            try:
                return self._resume()
            except FileExistsError:
                if not self.overwrite:
                    raise
        try:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
            create(self.store)
            write_checkpoint(self.folder / PROGRESS / BEGUN, {}, {MANIFEST: self.identity})
        except OSError as error:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise OSError(f"Cannot write {self.folder}: {error.strerror or error}. Choose another --output.") from error
        return {}

    def save(self, position: Position) -> None:
        """Records that everything of its batch before `position` is written."""
        tensors = {} if position.past is None else {"past": position.past}
        manifest = {**self.identity, "batch": position.batch, "block": position.block}
        write_checkpoint(self.folder / PROGRESS / f"{position.batch:06d}", tensors, {MANIFEST: manifest})

    def finish(self) -> Path:
        """Gives the store its name and removes what belongs to the run."""
        if self.overwrite:
            remove_output(self.path, partial=False)
        self.store.rename(self.path)
        shutil.rmtree(self.folder)
        return self.path

    def _untouched(self) -> bool:
        """Says whether nothing is lost with the folder: it was never begun, or its store has its name already."""
        ours = {path.name for path in self.folder.iterdir() if not path.name.startswith(".")} <= {STORE, PROGRESS}
        return ours and not (self.store.exists() and any(self.folder.glob(f"{PROGRESS}/[!.]*")))

    def _resume(self) -> dict[int, Position]:
        self._read(self.folder / PROGRESS / BEGUN)
        positions = [self._read(batch) for batch in sorted(self.folder.glob(f"{PROGRESS}/[0-9]*"))]
        return {position.batch: position for position in positions}

    def _read(self, folder: Path) -> Position:
        try:
            tensors, manifest = read_tensors(folder), read_document(folder, MANIFEST)
        except (FileNotFoundError, ValueError) as error:
            raise FileExistsError(f"{self.folder} holds a forecast that cannot go on: {error} {self._hint}") from error
        differing = [key for key, value in self.identity.items() if manifest.get(key) != value]
        if differing:
            raise FileExistsError(
                f"{self.folder} holds an unfinished forecast with another {differing[0]}: expected "
                f"{self.identity[differing[0]]}, got {manifest.get(differing[0])}. {self._hint}"
            )
        return Position(manifest.get("batch", 0), manifest.get("block", 0), tensors.get("past"))

    @property
    def _hint(self) -> str:
        return f"Delete {self.folder}, or add --overwrite, to start afresh."
