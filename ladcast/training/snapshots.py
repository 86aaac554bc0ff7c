"""Snapshots of a training run: written beside the training, whole or not at all, checked before they are used.

A snapshot is a folder `step-0000001000` with a shard of each rank, which any number of ranks can read, the rest of the
state as JSON, and a manifest with the SHA-256 of each file. It is written under a name that begins with a dot and
renamed when every file of it is on disk.
"""

from __future__ import annotations

import json
import shutil
import warnings
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from types import TracebackType
from typing import Any

from ladcast.checkpoint import MANIFEST, WEIGHTS, read_document
from ladcast.files import put_in_place, remove, sha256, sync
from ladcast.training.distributed import ALONE, Ranks
from ladcast.training.shards import METADATA_BEFORE, fill, own_pieces, write_shard

STATE = "state.json"
VALIDATED = "validated-"
"""Beginning of the name of an empty file beside the snapshots; the last step whose validation is logged follows."""
KEPT = 2
PATIENCE_S = 60
"""How long a run that ends with an error waits for the snapshot that is being written."""


class Snapshots:
    """Writes and reads the snapshots in a folder that all ranks see; keeps the newest two.

    All ranks call each method. A context manager: it ends with the last snapshot on disk.
    """

    def __init__(self, folder: Path, ranks: Ranks = ALONE) -> None:
        self.folder = folder
        self.ranks = ranks
        self._damaged: set[Path] = set()
        self._pool = ThreadPoolExecutor(1, "snapshot")
        self._pending: Future[None] | None = None
        if (folder / WEIGHTS).exists():
            raise ValueError(f"{folder} holds the state of a run by an earlier version: remove it to start anew.")

    def __enter__(self) -> Snapshots:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.wait()
        elif self._pending is not None:
            wait([self._pending], timeout=PATIENCE_S)  # it may need ranks that are gone
        self._pool.shutdown(wait=kind is None)

    def save(self, step: int, tensors: dict[str, Any], document: dict[str, Any]) -> None:
        """Copies the state and returns; the copy is written while training goes on.

        Raises:
            OSError: the snapshot before this one could not be written.
        """
        self.wait()
        partial = self.folder / f".step-{step:010d}"
        if self.ranks.is_first:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        self.ranks.wait()  # for the folder
        pieces = own_pieces(tensors, self.ranks)
        self._pending = self._pool.submit(self._write, partial, pieces, json.dumps(document, indent=1))

    def wait(self) -> None:
        """Returns when the last snapshot is on disk; raises the error where it could not be written."""
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.result()

    def load_newest(self, tensors: dict[str, Any]) -> dict[str, Any] | None:
        """Fills `tensors` in place from the newest undamaged snapshot and returns its document; None without any.

        Raises:
            ValueError: every snapshot is damaged, or the newest is of another model.
        """
        self.wait()
        # A shared file system may show a new name to one machine later than to another.
        names = self.ranks.first([folder.name for folder in self._list()])
        newest = next((self.folder / name for name in reversed(names) if self._verify(self.folder / name)), None)
        if newest is None:
            if names:
                raise ValueError(f"Every snapshot in {self.folder} is damaged. Remove the folder to start anew.")
            return None
        manifest: dict[str, Any] = read_document(newest, MANIFEST)
        shards = [newest / n for n in sorted(manifest["sha256"]) if n == METADATA_BEFORE or n.endswith(".safetensors")]
        try:
            fill(tensors, shards)
        except ValueError as error:
            raise ValueError(
                f"{newest} does not fit this run's model: train it further with the same sizes, or start a new run in "
                f"another 'output'. ({error})"
            ) from error
        document: dict[str, Any] = read_document(newest, STATE) if STATE in manifest["sha256"] else manifest
        return document

    def validated(self) -> int:
        """Returns the last step whose validation is in the log, or 0; the same on all ranks."""
        return self.ranks.first(max((int(path.name.removeprefix(VALIDATED)) for path in self._notes()), default=0))

    def note_validation(self, step: int) -> None:
        """Notes that the validation of a step is in the log, with its maps."""
        if self.ranks.is_first:
            note = self.folder / f"{VALIDATED}{step:010d}"
            note.touch()
            for path in self._notes():
                if path != note:
                    path.unlink()

    def _write(self, partial: Path, pieces: dict[str, Any], document: str) -> None:
        """Writes the files of this rank; the first one gives a snapshot its name when all have done so."""
        shard = partial / f"rank-{self.ranks.rank:05d}.safetensors"
        try:
            write_shard(shard, pieces)
            sync(shard)
            answer = (shard.name, sha256(shard))
        except OSError as error:
            answer = ("", str(error))  # to all: no rank waits for one that has failed
        hashes = dict(self.ranks.gather(answer, self.ranks.storage))
        if "" in hashes:
            raise OSError(f"The snapshot {partial} could not be written: {hashes['']}")
        if self.ranks.is_first:
            _write_durably(partial / STATE, document + "\n")
            hashes[STATE] = sha256(partial / STATE)
            _write_durably(partial / MANIFEST, json.dumps({"sha256": hashes}, indent=1) + "\n")
            target = self.folder / partial.name.removeprefix(".")
            put_in_place(partial, target)  # where a damaged one of the same step may be
            self._damaged.discard(target)
            sync(self.folder)
            self._prune()
        self.ranks.gather(None, self.ranks.storage)  # all wait for the name

    def _verify(self, folder: Path) -> bool:
        """Says whether every file has its hash; ranks share the reading."""
        try:
            hashes = sorted(read_document(folder, MANIFEST)["sha256"].items())
            wrong = [n for n, value in hashes[self.ranks.rank :: self.ranks.size] if sha256(folder / n) != value]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            wrong = [str(error)]
        if not self.ranks.any(bool(wrong)):
            return True
        self._damaged.add(folder)
        warnings.warn(f"Leaves out the damaged snapshot {folder} ({', '.join(wrong) or 'see rank 0'}).", stacklevel=3)
        return False

    def _list(self) -> list[Path]:
        return sorted(self.folder.glob("step-*"))

    def _notes(self) -> list[Path]:
        return list(self.folder.glob(f"{VALIDATED}*"))

    def _prune(self) -> None:
        """Removes what is older than the newest undamaged snapshots, and what killed runs have left."""
        good = [folder for folder in self._list() if folder not in self._damaged]
        for folder in self._list():
            if folder < good[-KEPT:][0]:
                remove(folder)
        for folder in self.folder.glob(".step-*"):
            shutil.rmtree(folder, ignore_errors=True)


def _write_durably(path: Path, text: str) -> None:
    path.write_text(text)
    sync(path)
    sync(path.parent)
