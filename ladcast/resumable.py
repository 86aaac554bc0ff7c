"""Long work that goes on after a kill, by one writer, and only with what it was begun with."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from ladcast.checkpoint import MANIFEST, read_document, read_tensors, write_checkpoint
from ladcast.files import has_written, put_in_place, remove, sweep

PROGRESS, BEGUN = "progress", "begun"
INODE = "inode"
"""Key of the number that the file system gives the content: it stays with it when it gets its name."""
BEAT_S, DEAD_AFTER_S = 30, 300
"""Seconds between two signs of life of a writer, and without one after which another host takes it for dead."""
INSTANTS, INSTANT_S = 20, 0.01
"""How often a lock is tried that nobody alive seems to hold, and how many seconds apart."""
ALIVE = "gives signs of life"
"""The second line of a lock file: the locks of earlier versions are not renewed."""
GONE = (errno.ENOENT, errno.ESTALE)
"""What the system says of a file that was deleted meanwhile, and of one that is open where another host deleted it."""


def require_same(
    found: Mapping[str, Any], asked: Mapping[str, Any], where: str, *, remedy: str, error: type[Exception] = ValueError
) -> None:
    """Compares what `where` was made of with what is asked for now; nested mappings by their entries.

    Keys that are only in `found` do not count.

    Raises:
        ValueError: they differ, or the given `error`; the message names each difference, before and now.
    """
    if changes := list(_changes(found, asked)):
        raise error(f"{where} was made of something else than is asked for now: {'; '.join(changes)}. {remedy}")


def _changes(found: Mapping[str, Any], asked: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, now in asked.items():
        before, name = found.get(key), f"{prefix}{key}"
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            yield from _changes(before, dict.fromkeys(before) | dict(now), f"{name}.")
        elif before != now:
            yield f"{name} was {before!r:.100}, now {now!r:.100}"


class Saved(NamedTuple):
    """What a run has recorded of a part of its work: plain data and tensors."""

    document: dict[str, Any]
    tensors: dict[str, Tensor]


class Unfinished:
    """A file or folder that grows in `<path>.partial` and becomes `path` when it is complete.

    A run has an `identity` of plain data: a run of another one does not go on with its work. Whoever fills `content`
    writes a part and then saves what is to be known to go on from there, so that after a kill at any moment the part
    is written again. Parts of the work have names of their own, so that several processes share it. Without an
    identity the work cannot go on, and every run starts afresh.

    With `overwrite` a complete output gives way to the new one when that is complete, and an unfinished one of another
    run at once. `kind` names the content: what a run of another kind has left is never deleted.

    Raises:
        FileExistsError: `path` exists, and not `overwrite`.
    """

    def __init__(
        self, path: Path, identity: Mapping[str, Any] | None, *, kind: str = "store", overwrite: bool = False
    ) -> None:
        self.path, self.identity, self.overwrite = path, identity, overwrite
        self.folder = path.with_name(f"{path.name}.partial")
        self.content = self.folder / kind
        self._require_free()

    def start(self, create: Callable[[Path], None]) -> dict[str, Saved]:
        """Lets `create` make an empty content, or finds that of a killed run; returns what was saved, by name.

        A run that was killed after its last part, when the content had its name already, goes on with it there.

        Raises:
            FileExistsError: the unfinished work is damaged, or that of another run; the output was made meanwhile.
            OSError: the folder cannot be written.
        """
        self._require_free()
        there = [path.name for path in self.folder.iterdir()] if self.folder.is_dir() else []
        if foreign := [name for name in there if name not in (self.content.name, PROGRESS) and name[0] != "."]:
            raise FileExistsError(
                f"{self.folder} holds {', '.join(sorted(foreign))}, which is not of this kind of work. Choose another "
                "output, or delete it."
            )
        begun = self.folder / PROGRESS / BEGUN
        content = self.path if self._is_named() else self.content
        if content.exists() and begun.exists():  # without its beginning the work was not begun
            try:
                saved = self._resume()
            except FileExistsError:
                if not self.overwrite:
                    raise
            else:
                self.content = content
                return saved
        sweep(self.path)
        try:
            remove(self.folder)
            self.folder.mkdir(parents=True)
            create(self.content)
            if self.identity is not None:
                self.save(BEGUN, {**self.identity, INODE: self.content.stat().st_ino})
        except OSError as error:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise OSError(f"Cannot write {self.folder}: {error.strerror or error}. Choose another output.") from error
        return {}

    def save(self, name: str, document: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None) -> None:
        """Records how far a part of the work has come, in place of what was recorded of it before."""
        write_checkpoint(self.folder / PROGRESS / name, tensors or {}, {MANIFEST: document})

    def finish(self) -> Path:
        """Gives the content its name and removes what belongs to the run."""
        self._require_free()
        if not self.has_its_name:
            put_in_place(self.content, self.path)
            self.content = self.path
        remove(self.folder)
        return self.path

    @property
    def has_its_name(self) -> bool:
        """Says whether a run that goes on finds its content complete and under its name."""
        return self.content == self.path

    def _require_free(self) -> None:
        if self.path.exists() and not (self.overwrite or self._is_named()):
            raise FileExistsError(f"{self.path} exists already. Choose another output, or add --overwrite.")

    def _is_named(self) -> bool:
        """Says whether the content of a killed run, or of this one, has its name; what it replaced may lie here."""
        return self.path.exists() and begun_identity(self.path).get(INODE) == self.path.stat().st_ino

    def _resume(self) -> dict[str, Saved]:
        hint = f"Delete {self.folder}, or add --overwrite, to start afresh."
        try:
            saved = {
                path.name: Saved(tensors=read_tensors(path), document=read_document(path, MANIFEST))
                for path in sorted((self.folder / PROGRESS).glob("[!.]*"))
            }
        except (FileNotFoundError, NotADirectoryError, ValueError) as error:
            raise FileExistsError(f"{self.folder} holds work that cannot go on: {error} {hint}") from error
        begun = saved.pop(BEGUN).document
        if self.identity is None:
            raise FileExistsError(f"{self.folder} holds work that cannot go on: it is of another run. {hint}")
        require_same(begun, self.identity, str(self.folder), remedy=hint, error=FileExistsError)
        return saved


def begun_identity(path: Path) -> dict[str, Any]:
    """Returns the identity of the run that has begun `path` and not completed it; empty where none can be read."""
    try:
        identity: dict[str, Any] = read_document(path.with_name(f"{path.name}.partial") / PROGRESS / BEGUN, MANIFEST)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    return identity


@contextmanager
def sole_writer(product: Path, *, patient: bool = False) -> Iterator[None]:
    """Holds `<product>.lock` while it lasts.

    The kernel frees the lock of a dead process at once. Not every cluster file system tells other hosts of locks, so
    a lock file that another host left is taken over only when its writer gives no sign of life any more; who is
    `patient` waits for that, as a job that is started again elsewhere when its host has died.

    Raises:
        FileExistsError: another process writes this product, or may do so on another host.
    """
    path = lock_path(product)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Who waits does so as long as the writer on another host, if it is dead, can have given its last sign of life.
    end = time.monotonic() + (DEAD_AFTER_S + BEAT_S if patient else 0)
    while (descriptor := _open_signed(path, product, wait=time.monotonic() < end)) is None:
        pass
    try:
        with _signs_of_life(descriptor):
            yield
    finally:
        if _writer(path) in ("", _signature()):  # else it is the lock of another host, perhaps as it took us for dead
            path.unlink(missing_ok=True)
        os.close(descriptor)


def lock_path(product: Path) -> Path:
    """Returns the lock file of a product."""
    return product.with_name(f"{product.name}.lock")


def holder(product: Path) -> str | None:
    """Returns who writes a product, as `host NAME, process NUMBER`; None where nobody of this host does any more."""
    written = _writer(path := lock_path(product))
    host, _, process = written.partition(", process ")
    if host != _host() or not process.isdigit():
        return written or None
    return written if has_written(int(process), path) else None


def _open_signed(path: Path, product: Path, *, wait: bool) -> int | None:
    """Opens a lock file and signs it; returns None where that is to be tried again.

    While this waits for another host the file is closed, as that host may delete it and a third one make another.
    """
    descriptor, signed = _open_locked(path, product), False
    try:
        if held := _is_held_elsewhere(descriptor, path):
            if not wait or ALIVE not in path.read_text():
                raise _busy(path, product)
        else:
            _sign(descriptor)
            signed = _is_at(path, descriptor)
    except OSError as error:
        if error.errno not in GONE:
            raise
        held = False
    finally:
        if not signed:
            os.close(descriptor)
    if held:
        time.sleep(BEAT_S)
    return descriptor if signed else None


def _open_locked(path: Path, product: Path) -> int:
    for _ in range(INSTANTS):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            # Whoever deletes the lock of a dead process holds it for an instant (`files.sweep`).
            if holder(product) is not None:
                raise _busy(path, product) from None
            time.sleep(INSTANT_S)
            continue
        # The holder before may have removed the file between our opening and locking it.
        if _is_at(path, descriptor):
            return descriptor
        os.close(descriptor)
    raise _busy(path, product)


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.fstat(descriptor).st_ino == path.stat().st_ino
    except OSError as error:
        if error.errno in GONE:
            return False
        raise


def _is_held_elsewhere(descriptor: int, path: Path) -> bool:
    writer = _writer(path)
    return bool(writer) and not writer.startswith(f"{_host()},") and not _is_silent(descriptor, path)


def _sign(descriptor: int) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{_signature()}\n{ALIVE}\n".encode(), 0)


@contextmanager
def _signs_of_life(descriptor: int) -> Iterator[None]:
    """Renews the time of a lock file as long as this lasts."""
    done = threading.Event()

    def renew() -> None:
        while not done.wait(BEAT_S):
            with suppress(OSError):
                os.utime(descriptor)

    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _is_silent(descriptor: int, path: Path) -> bool:
    """Says whether the writer of a lock file promised signs of life and has long given none, by the disk's clock."""
    with tempfile.TemporaryFile(dir=path.parent) as probe:
        age = os.fstat(probe.fileno()).st_mtime - os.fstat(descriptor).st_mtime
    return ALIVE in path.read_text() and age > DEAD_AFTER_S


def _writer(path: Path) -> str:
    """Returns the first line of a lock file; empty where there is none."""
    return _lines(path)[0]


def _lines(path: Path) -> tuple[str, bool]:
    """Returns who has signed a lock file, and whether that writer gives signs of life; empty where there is none."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        return "", False
    return text.partition("\n")[0].strip(), ALIVE in text


def _busy(path: Path, product: Path) -> FileExistsError:
    writer, promises = _lines(path)
    elsewhere = not writer.startswith(f"{_host()},")
    after = f", or {DEAD_AFTER_S // 60} minutes after its last sign of life," if promises and elsewhere else ""
    return FileExistsError(
        f"{product} is being written by {writer or 'another process'}. Wait for it; "
        f"if that process is dead{after or f', delete {path} and'} run this again."
    )


def _signature() -> str:
    return f"{_host()}, process {os.getpid()}"


def _host() -> str:
    return f"host {socket.gethostname()}"
