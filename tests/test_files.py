"""What has a name is whole, at every moment."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from ladcast import files
from ladcast.files import put_in_place, remove, require_outputs, whole_file, whole_folder
from worlds import full_disk


def fill(path: Path, content: str, *, folder: bool) -> Path:
    if folder:
        path.mkdir()
    (path / "values" if folder else path).write_text(content)
    return path


def read(path: Path) -> str:
    return (path / "values" if path.is_dir() else path).read_text()


@pytest.mark.parametrize("old", [None, "file", "folder"])
@pytest.mark.parametrize("new", ["file", "folder"])
@pytest.mark.parametrize("exchanges", [True, False])
def test_the_new_takes_the_place_of_the_old(
    old: str | None, new: str, exchanges: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    if not exchanges:
        monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    if old is not None:
        fill(tmp_path / "it", "old", folder=old == "folder")
    put_in_place(fill(tmp_path / "new", "new", folder=new == "folder"), tmp_path / "it")
    assert read(tmp_path / "it") == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["it"]


def test_a_folder_that_is_replaced_is_there_when_the_old_one_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    it, seen = fill(tmp_path / "it", "old", folder=True), []
    rmtree = shutil.rmtree

    def watched(path: Path, **options: bool) -> None:
        seen.append(read(it))
        rmtree(path, **options)

    monkeypatch.setattr(shutil, "rmtree", watched)
    with whole_folder(it) as folder:
        (folder / "values").write_text("new")
        assert read(it) == "old"
    assert set(seen[1:]) == {"new"}  # the first call clears what a killed process of this number has left


@pytest.mark.parametrize("whole", [whole_file, whole_folder])
def test_an_error_leaves_the_old_and_nothing_else(whole, tmp_path: Path):
    it = fill(tmp_path / "it", "old", folder=whole is whole_folder)

    def fail() -> None:
        with whole(it) as new:
            (new / "values" if new.is_dir() else new).write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert read(it) == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["it"]


def test_a_folder_loses_its_name_before_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fill(tmp_path / "it", "old", folder=True)
    monkeypatch.setattr(shutil, "rmtree", lambda path: None)  # as a kill would leave it
    remove(tmp_path / "it")
    assert not (tmp_path / "it").exists()
    remove(tmp_path / "it")  # is none any more, which is no error


def hard(path: Path) -> Path:
    (path.parent / "hard").hardlink_to(path)
    return path.parent / "hard"


def soft(path: Path) -> Path:
    (path.parent / "soft").symlink_to(path.parent, target_is_directory=True)
    return path.parent / "soft" / path.name


@pytest.fixture
def read_from(tmp_path: Path) -> Path:
    """A Zarr store that is read."""
    (tmp_path / "in.zarr").mkdir()
    (tmp_path / "in.zarr" / "zarr.json").write_text("{}")
    return tmp_path / "in.zarr"


SAME: dict[str, Callable[[Path], tuple[Path, Path]]] = {
    "itself": lambda store: (store, store),
    "a relative name": lambda store: (store.parent / "x" / ".." / store.name, store),
    "through a link": lambda store: (soft(store), store),
    "a part of it": lambda store: (store / "new.nc", store),
    "what holds it": lambda store: (store, store / "zarr.json"),
    "a hard link": lambda store: (hard(store / "zarr.json"), store / "zarr.json"),
    "one of a pattern": lambda store: (store, store.with_name("*.zarr")),
    "its unfinished folder": lambda store: (store.with_name("in"), store.rename(store.with_name("in.partial"))),
}


@pytest.mark.parametrize("case", SAME.values(), ids=SAME)
def test_no_output_is_what_is_read(case: Callable[[Path], tuple[Path, Path]], read_from: Path):
    output, source = case(read_from)
    with pytest.raises(ValueError, match=r"cannot be written: .* is read"):
        require_outputs([output], [None, source], overwrite=True)


def test_two_outputs_have_two_names(tmp_path: Path):
    with pytest.raises(ValueError, match="read or written too"):
        require_outputs([tmp_path / "one.png", tmp_path / "one.png"])
    with pytest.raises(ValueError, match="read or written too"):
        require_outputs([tmp_path / "one.zarr", tmp_path / "one.zarr" / "scores.nc"], overwrite=True)


def test_an_output_may_lie_beside_what_is_read(read_from: Path):
    require_outputs([read_from.with_suffix(".scores.nc"), read_from.parent / "new" / "out.zarr"], [read_from.parent])


def test_what_exists_is_replaced_only_when_asked_for_and_alike(read_from: Path, tmp_path: Path):
    (tmp_path / "out.nc").touch()
    for there in (read_from, tmp_path / "out.nc"):
        with pytest.raises(FileExistsError, match="add --overwrite"):
            require_outputs([there])
        require_outputs([there], overwrite=True)
    (tmp_path / "home.zarr").mkdir()
    (tmp_path / "home.zarr" / "thesis").touch()
    (tmp_path / "folder.nc").mkdir()
    (tmp_path / "link.nc").symlink_to(tmp_path / "out.nc")
    (tmp_path / "dangling.zarr").symlink_to(tmp_path / "nowhere")
    for name, why in {
        "home.zarr": "no Zarr store",
        "folder.nc": "another kind",
        "link.nc": "a link to .*out.nc",
        "dangling.zarr": "a link to .*nowhere",
    }.items():
        with pytest.raises(FileExistsError, match=why):
            require_outputs([tmp_path / name], overwrite=True)


@pytest.mark.parametrize("name", ["file/out.nc", f"{'x' * 240}.nc"])
def test_what_cannot_be_written_is_known_before(name: str, tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"Cannot write .* Choose another output"):
        require_outputs([tmp_path / name])
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_next_run_cleans_what_is_its_own(tmp_path: Path):
    dead, here = dead_process(), socket.gethostname()
    own = [f".out.partial-{dead}@{here}.nc", f".out.nc.removed-{dead}@{here}", f".out.nc.partial.removed-{dead}@{here}"]
    others = [
        f".out.partial-{os.getppid()}@{here}.nc",
        f".out.partial-{dead}@elsewhere.nc",
        f".in.partial-{dead}@{here}.nc",
    ]
    for name in (*own, *others):
        fill(tmp_path / name, "", folder="removed" in name)
    with whole_file(tmp_path / "out.nc") as new:
        new.write_text("")
    assert {path.name for path in tmp_path.iterdir()} == {"out.nc", *others}


def test_who_has_written_a_file_is_known_where_proc_is_and_where_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "junk").touch()
    assert files.has_written(os.getpid(), tmp_path / "junk")
    assert not files.has_written(dead_process(), tmp_path / "junk")
    with subprocess.Popen(["sleep", "60"]) as later:
        assert files._began(later.pid) == pytest.approx(time.time(), abs=5)
        assert files.has_written(later.pid, tmp_path / "junk")
        monkeypatch.setattr(files, "CLOCKS_APART_S", -10)  # as if the file were of long ago
        assert not files.has_written(later.pid, tmp_path / "junk")
        monkeypatch.setattr(files, "PROC", tmp_path / "none")  # as on macOS
        assert files.has_written(later.pid, tmp_path / "junk")
        later.kill()
    assert not files.has_written(later.pid, tmp_path / "junk")


def dead_process() -> int:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    return process.pid


def test_a_run_that_is_refused_cleans_what_is_its_own(read_from: Path):
    dead, here = dead_process(), socket.gethostname()
    fill(read_from.with_name(f".in.zarr.partial.removed-{dead}@{here}"), "", folder=True)
    kept = fill(read_from.with_name(f".in.zarr.partial.removed-{os.getppid()}@{here}"), "", folder=True)
    with pytest.raises(FileExistsError, match="exists already"):
        require_outputs([read_from])
    assert set(read_from.parent.iterdir()) == {read_from, kept}


def test_a_full_disk_is_no_riddle_of_hdf5(tmp_path: Path):
    ds = xr.Dataset({"a": ("x", np.random.default_rng(0).random(100_000))})

    def write() -> None:
        with whole_file(tmp_path / "out.nc") as new:
            ds.to_netcdf(new, engine="netcdf4")

    with full_disk(100_000), pytest.raises(OSError, match=r"No more can be written .*out\.nc"):
        write()
    assert not list(tmp_path.iterdir())
    write()
    xr.testing.assert_identical(xr.load_dataset(tmp_path / "out.nc"), ds)
