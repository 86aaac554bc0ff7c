"""Writes files and folders that are whole or absent, and names them by their content."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
    """Gives the file or folder `new` the name `path`; what had that name is deleted when it is no longer needed."""
    retired = path.with_name(f".{path.name}.retired-{os.getpid()}")
    if path.exists():
        path.rename(retired)
    try:
        new.rename(path)
    except OSError:
        if retired.exists():
            retired.rename(path)
        raise
    remove(retired)


def remove(path: Path) -> None:
    """Deletes a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """Returns the SHA-256 of a file as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
