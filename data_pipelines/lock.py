"""One writer a product: a lock file that names its holder and that a dead process does not keep."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def sole_writer(product: Path) -> Iterator[None]:
    """Holds `<product>.lock` while it lasts.

    The kernel frees the lock of a dead process at once. Not every cluster file system tells other hosts of locks, so
    a lock file that another host left is never taken over.

    Raises:
        FileExistsError: another process writes this product, or another host left its lock.
    """
    path = lock_path(product)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _open_locked(path, product)
    try:
        _sign(descriptor, path, product)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def lock_path(product: Path) -> Path:
    """Returns the lock file of a product."""
    return product.with_name(f"{product.name}.lock")


def holder(product: Path) -> str | None:
    """Returns who writes a product, as `host NAME, process NUMBER`; None where nobody of this host does any more."""
    path = lock_path(product)
    written = path.read_text().strip() if path.exists() else ""
    host, _, process = written.partition(", process ")
    if host != _host() or not process.isdigit():
        return written or None
    return written if Path(f"/proc/{process}").exists() else None


def _open_locked(path: Path, product: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise _busy(path, product) from None
        # The holder before may have removed the file between our opening and locking it.
        if path.exists() and os.fstat(descriptor).st_ino == path.stat().st_ino:
            return descriptor
        os.close(descriptor)


def _sign(descriptor: int, path: Path, product: Path) -> None:
    written = os.pread(descriptor, 200, 0).decode().strip()
    if written and not written.startswith(f"{_host()},"):
        raise _busy(path, product)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{_host()}, process {os.getpid()}\n".encode(), 0)


def _busy(path: Path, product: Path) -> FileExistsError:
    writer = path.read_text().strip() if path.exists() else ""
    return FileExistsError(
        f"{product} is being written by {writer or 'another process'}. Wait for it; "
        f"if that process is dead, delete {path} and run this again."
    )


def _host() -> str:
    return f"host {socket.gethostname()}"
