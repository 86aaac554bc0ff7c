"""Writes files and folders that are whole or absent, and never over what is read; names them by their content."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import glob
import hashlib
import json
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

EXCHANGE = 2
"""RENAME_EXCHANGE of renameat2."""
CLOCKS_APART_S = 300
"""How far the clock of a file server, which dates files, may be behind that of this host."""
PROC = Path("/proc")
FIGURES, MOVIES = (".pdf", ".png", ".svg"), (".gif", ".mp4")
"""How the names of figures end."""
ZARR_MARKS = ("zarr.json", ".zgroup", ".zmetadata")
"""Files that make a folder a Zarr group."""
GO_ON = "Run the same `ladcast forecast` again to go on."


def require_ending(output: Path, *endings: str) -> None:
    """Checks what the name of an output ends in; raises ValueError that says what it may."""
    if output.suffix not in endings:
        raise ValueError(f"Expected an output that ends in {' or '.join(endings)}, got '{output.name}'. Rename it.")


def require_figure_name(path: Path, *, moving: bool = False) -> None:
    """Refuses the path of a figure, or of one that is `moving`, that cannot be written.

    Raises:
        ValueError: its suffix is none of `FIGURES`, or none of `MOVIES` where it is moving; or it is `.mp4`, without
            ffmpeg.
    """
    known = MOVIES if moving else FIGURES
    if path.suffix.lower() not in known:
        raise ValueError(f"Expected a figure named {' or '.join('*' + name for name in known)}, got '{path.name}'.")
    if path.suffix.lower() == ".mp4" and shutil.which("ffmpeg") is None:
        raise ValueError(f"{path.name} needs ffmpeg, which is not on the PATH: install it, or name the output *.gif.")


def require_input(path: Path) -> None:
    """Raises FileNotFoundError where nothing is there; patterns and addresses are left to those who open them."""
    if not (path.exists() or glob.has_magic(str(path)) or ":/" in str(path)):
        raise FileNotFoundError(
            f"{path} does not exist: expected a Zarr store, a netCDF or GRIB file, or a folder of them. "
            "Check the path; of sources that have a name, such as gfs, `ladcast analysis` makes a store."
        )


def require_forecast(path: Path) -> None:
    """Raises FileNotFoundError where no forecast is; it says how to go on with one that is unfinished."""
    if not path.exists():
        unfinished = path.with_name(f"{path.name}.partial").is_dir()
        raise FileNotFoundError(f"No forecast at {path}.{f' It is unfinished. {GO_ON}' if unfinished else ''}")


def require_outputs(
    outputs: Iterable[Path | None], inputs: Iterable[str | Path | None] = (), *, overwrite: bool = False
) -> None:
    """Refuses outputs that cannot be: each command asks before any work.

    An output ending in `.zarr` is a folder, any other a file. Inputs may be patterns with `*`. What is None is left
    out. What dead processes have left beside an output goes, also where the output is refused (`sweep`).

    Raises:
        ValueError: an output is, holds or lies in what is read, or another output.
        FileExistsError: an output exists and not `overwrite`, or is a link, or what is there is of another kind.
        OSError: an output cannot be written.
    """
    read = [found for given in inputs if given is not None for found in matching(given)]
    for output in (path for path in outputs if path is not None):
        for path in read:
            if _destroys(output, path):
                raise ValueError(f"{output} cannot be written: {path} is read or written too. Choose another output.")
        with suppress(OSError):  # a folder that cannot be written is refused below
            sweep(output)
        _require_free(output, overwrite=overwrite)
        _require_writable(output)
        read.append(output)


def matching(given: str | Path) -> list[Path]:
    """Returns the path itself, or in order the paths that a pattern with `*`, `?` or `[]` names, but hidden ones."""
    path = Path(given)
    if not glob.has_magic(str(given)) or path.exists():
        return [path]
    found = Path(path.anchor or ".").glob(str(path.relative_to(path.anchor)))
    return sorted(path for path in found if not path.name.startswith("."))


def _destroys(output: Path, read: Path) -> bool:
    """Says whether writing `output`, or the unfinished folder beside it, changes or removes what is read."""
    source = read.resolve()
    for target in (output.resolve(), output.with_name(f"{output.name}.partial").resolve()):
        if target == source or target in source.parents:
            return True
        # A folder of files may get another file, but a store holds nothing else.
        if source in target.parents and (source.suffix == ".zarr" or is_zarr(source) or target.exists()):
            return True
    return output.exists() and read.exists() and output.samefile(read)


def _require_free(output: Path, *, overwrite: bool) -> None:
    if output.is_symlink():
        raise FileExistsError(f"{output} is a link to {output.readlink()}. Name that path itself, or delete the link.")
    if not output.exists():
        return
    if not (output.is_dir() if output.suffix == ".zarr" else output.is_file()):
        raise FileExistsError(f"{output} is there and of another kind than the output. Choose another output.")
    if not overwrite:
        raise FileExistsError(f"{output} exists already. Choose another output, or add --overwrite.")
    if output.is_dir() and not is_zarr(output) and any(output.iterdir()):
        raise FileExistsError(f"{output} is a folder but no Zarr store: it is not replaced. Choose another output.")


def _require_writable(output: Path) -> None:
    folder = next(above for above in output.absolute().parents if above.exists())
    try:
        os.lstat(output.with_name(f"{_temporary(output).name}{'.' * 20}"))  # what grows beside it has longer names
    except FileNotFoundError:
        pass
    except OSError as error:
        raise OSError(f"Cannot write {output}: {error.strerror}. Choose another output.") from error
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise OSError(f"Cannot write {output}: {folder}: {error.strerror}. Choose another output.") from error


def is_zarr(path: Path) -> bool:
    """Says whether a folder is a Zarr group."""
    return any((path / name).is_file() for name in ZARR_MARKS)


def is_consolidated(store: Path) -> bool:
    """Says whether the metadata of all arrays of a Zarr store stand in one file.

    Without them zarr looks at all that lies in the store, and warns of what is no array.
    """
    root = store / "zarr.json"
    version_3 = json.loads(root.read_text()) if root.is_file() else {}
    if not isinstance(version_3, dict):
        raise ValueError(f"zarr.json has a {type(version_3).__name__} in the place of an object")
    return bool(version_3.get("consolidated_metadata")) or (store / ".zmetadata").is_file()


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yields a temporary path with the suffix of `path`; what is written there takes its place at the end.

    After an error nothing is left of it. The folder of `path` is made where it is missing.

    Raises:
        OSError: the file cannot be written, also where HDF5 says so in its own way.
    """
    temporary = _temporary(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path)
    try:
        with hdf_errors(path):
            yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yields a temporary folder that takes the place of `folder` at the end, and leaves no trace after an error."""
    temporary = _temporary(folder)
    temporary.parent.mkdir(parents=True, exist_ok=True)
    sweep(folder)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        put_in_place(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def hdf_errors(path: Path) -> Iterator[None]:
    """Turns what HDF5 says when it cannot write `path`, which is most often that the disk is full, into an OSError."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        if "HDF error" not in str(error):
            raise
        raise OSError(errno.ENOSPC, f"No more can be written ({error})", str(path)) from error


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


def sweep(path: Path) -> None:
    """Deletes what dead processes of this host have left beside `path` when they wrote or removed it.

    What a process on another host has left stays: nobody here knows whether it lives.
    """
    names = "|".join(map(re.escape, (path.name, path.stem, f"{path.name}.partial")))
    owner = rf"(\d+)@{re.escape(socket.gethostname())}"
    ours = re.compile(rf"\.(?:{names})\.(?:partial|removed)-{owner}(?:{re.escape(path.suffix)})?")
    for junk in path.parent.iterdir() if path.parent.is_dir() else ():
        if (found := ours.fullmatch(junk.name)) and not has_written(int(found[1]), junk):
            shutil.rmtree(junk, ignore_errors=True) if junk.is_dir() else junk.unlink(missing_ok=True)
    lock = path.with_name(f"{path.name}.lock")  # see `sole_writer`
    with suppress(OSError), lock.open() as opened:
        if opened.read().startswith(f"host {socket.gethostname()}, "):
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while its process lives
            if os.path.samestat(os.fstat(opened.fileno()), lock.stat()):
                lock.unlink()


def has_written(process: int, path: Path) -> bool:
    """Says whether the process of this number that runs on this host may be the one that wrote `path`.

    Numbers are given again: a process that began well after `path` was written or named is another one, where the
    system says when it began.
    """
    try:
        os.kill(process, 0)  # sends nothing
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # it is there, and of another user
        pass
    try:
        return _began(process) < path.stat().st_ctime + CLOCKS_APART_S
    except OSError:  # no /proc, as on macOS
        return True


def _began(process: int) -> float:
    """Returns when a process began, in seconds since 1970, from /proc (proc(5))."""
    ticks = (PROC / f"{process}/stat").read_text().rpartition(")")[2].split()[19]
    booted = next(line for line in (PROC / "stat").read_text().splitlines() if line.startswith("btime"))
    return int(booted.split()[1]) + int(ticks) / os.sysconf("SC_CLK_TCK")


def _temporary(path: Path) -> Path:
    """Returns the name under which this process writes `path`; a folder's ends as a file's does, which Zarr ignores."""
    return path.with_name(f".{path.stem}.partial-{_owner()}{path.suffix}")


def _nameless(path: Path) -> Path:
    return path.with_name(f".{path.name.lstrip('.')}.removed-{_owner()}")


def _owner() -> str:
    return f"{os.getpid()}@{socket.gethostname()}"


def _exchange(one: Path, other: Path) -> bool:
    """Lets two files or folders exchange their names at one moment; says whether the system can."""
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)  # of Linux; Python has no name for it
    here = -100  # AT_FDCWD: paths are relative to the working directory
    return renameat2 is not None and renameat2(here, os.fsencode(one), here, os.fsencode(other), EXCHANGE) == 0


def sync(path: Path) -> None:
    """Waits until a file, or the entries of a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(path: Path) -> str:
    """Returns the SHA-256 of a file as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
