"""Snapshots of a training run: written beside the training, whole or not at all, checked before they are used.

A snapshot is a folder `step-0000001000` of shards in the format of torch.distributed.checkpoint, which any number of
ranks can read, and a manifest with the SHA-256 of each file. It is written under a name that begins with a dot and
renamed when every file of it is on disk.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from types import TracebackType
from typing import Any

from torch import distributed

from ladcast.checkpoint import MANIFEST, WEIGHTS, read_document
from ladcast.files import put_in_place, remove, sha256
from ladcast.training.distributed import ALONE, Ranks

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
        from torch.distributed.checkpoint.state_dict_saver import async_save

        self.wait()
        partial = self.folder / f".step-{step:010d}"
        if self.ranks.is_first:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        self.ranks.any(False)  # all wait for the folder
        writing: Any = async_save(
            tensors, checkpoint_id=partial, process_group=self.ranks.storage, no_dist=self.ranks.size == 1
        )
        self._pending = self._pool.submit(self._complete, partial, document, writing.result)

    def wait(self) -> None:
        """Returns when the last snapshot is on disk; raises the error where it could not be written."""
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.result()

    def load_newest(self, tensors: dict[str, Any]) -> dict[str, Any] | None:
        """Fills `tensors` in place from the newest undamaged snapshot and returns its manifest; None without any.

        Raises:
            ValueError: every snapshot is damaged, or the newest is of another model.
        """
        from torch.distributed.checkpoint.api import CheckpointException
        from torch.distributed.checkpoint.state_dict_loader import load

        self.wait()
        # A shared file system may show a new name to one machine later than to another.
        folders = self.ranks.first(self._list())
        newest = next((folder for folder in reversed(folders) if self._verify(folder)), None)
        if newest is None:
            if folders:
                raise ValueError(f"Every snapshot in {self.folder} is damaged. Remove the folder to start anew.")
            return None
        try:
            load(tensors, checkpoint_id=newest, process_group=self.ranks.control, no_dist=self.ranks.size == 1)
        except (CheckpointException, RuntimeError, ValueError) as error:
            raise ValueError(
                f"{newest} does not fit this run's model: train it further with the same sizes, or start a new run in "
                f"another 'output'. ({str(error).splitlines()[-1]})"
            ) from error
        manifest: dict[str, Any] = read_document(newest, MANIFEST)
        return manifest

    def _complete(self, partial: Path, document: dict[str, Any], finish: Callable[[], Any]) -> None:
        """Gives a snapshot its manifest and its name as soon as all ranks have written their files."""
        from torch.distributed.checkpoint.api import CheckpointException

        try:
            finish()
        except CheckpointException as error:  # which is no Exception
            raise OSError(f"The snapshot {partial} could not be written: {str(error).splitlines()[-1]}") from error
        own = [path for path in partial.iterdir() if self._is_own(path)]
        hashes: list[dict[str, str]] = [{path.name: sha256(path) for path in sorted(own)}]
        if self.ranks.size > 1:
            gathered: list[Any] = [None] * self.ranks.size
            distributed.all_gather_object(gathered, hashes[0], group=self.ranks.storage)
            hashes = gathered
        if self.ranks.is_first:
            manifest = {**document, "sha256": {name: value for part in hashes for name, value in part.items()}}
            _write_durably(partial / MANIFEST, json.dumps(manifest, indent=1) + "\n")
            target = self.folder / partial.name.removeprefix(".")
            put_in_place(partial, target)  # where a damaged one of the same step may be
            self._damaged.discard(target)
            _sync(self.folder)
            self._prune()
        if self.ranks.size > 1:
            distributed.barrier(self.ranks.storage)

    def _is_own(self, path: Path) -> bool:
        return path.name.startswith(f"__{self.ranks.rank}_") or (self.ranks.is_first and path.name == ".metadata")

    def _verify(self, folder: Path) -> bool:
        """Says whether every file has its hash; ranks share the reading."""
        try:
            hashes = sorted(read_document(folder, MANIFEST)["sha256"].items())
            wrong = [n for n, value in hashes[self.ranks.rank :: self.ranks.size] if sha256(folder / n) != value]
        except (OSError, ValueError, KeyError) as error:
            wrong = [str(error)]
        if not self.ranks.any(bool(wrong)):
            return True
        self._damaged.add(folder)
        warnings.warn(f"Leaves out the damaged snapshot {folder} ({', '.join(wrong) or 'see rank 0'}).", stacklevel=3)
        return False

    def _list(self) -> list[Path]:
        return sorted(self.folder.glob("step-*"))

    def _prune(self) -> None:
        """Removes what is older than the newest undamaged snapshots, and what killed runs have left."""
        good = [folder for folder in self._list() if folder not in self._damaged]
        for folder in self._list():
            if folder < good[-KEPT:][0]:
                remove(folder)
        for folder in self.folder.glob(".step-*"):
            shutil.rmtree(folder, ignore_errors=True)


def _write_durably(path: Path, text: str) -> None:
    with path.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    _sync(path.parent)


def _sync(folder: Path) -> None:
    """Waits until the entries of a folder are on disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
