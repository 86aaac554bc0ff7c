"""Writes files and folders that are whole or absent, and names them by their content."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

EXCHANGE = 2
"""RENAME_EXCHANGE of renameat2."""


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yields a temporary path with the suffix of `path`; what is written there takes its place at the end.

    After an error nothing is left of it. The folder of `path` is made where it is missing.
    """
    temporary = path.with_name(f".{path.stem}.partial-{os.getpid()}{path.suffix}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yields a temporary folder that takes the place of `folder` at the end, and leaves no trace after an error."""
    temporary = folder.with_name(f".{folder.name}.partial-{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        put_in_place(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def put_in_place(new: Path, path: Path) -> None:
    """Gives the file or folder `new` the name `path`; what had that name is deleted when it is no longer needed.

    Whoever opens `path` meanwhile finds the old or the new one, whole. Only where the system cannot exchange two names
    is there none for a moment, when a folder takes the place of another.
    """
    if not (os.path.lexists(path) and (path.is_dir() or new.is_dir())):
        new.replace(path)
        return
    if not _exchange(new, path):
        retired = _nameless(path)
        path.rename(retired)
        try:
            new.rename(path)
        except OSError:
            retired.rename(path)
            raise
        new = retired
    remove(new)


def remove(path: Path) -> None:
    """Deletes a file or a folder, if it is there; a folder loses its name first, so that no one takes it for whole."""
    if path.is_dir() and not path.is_symlink():
        nameless = _nameless(path)
        path.rename(nameless)
        shutil.rmtree(nameless)
    else:
        path.unlink(missing_ok=True)


def _nameless(path: Path) -> Path:
    return path.with_name(f".{path.name.lstrip('.')}.removed-{os.getpid()}")


def _exchange(one: Path, other: Path) -> bool:
    """Lets two files or folders exchange their names at one moment; says whether the system can."""
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)  # of Linux; Python has no name for it
    here = -100  # AT_FDCWD: paths are relative to the working directory
    return renameat2 is not None and renameat2(here, os.fsencode(one), here, os.fsencode(other), EXCHANGE) == 0


def sha256(path: Path) -> str:
    """Returns the SHA-256 of a file as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
