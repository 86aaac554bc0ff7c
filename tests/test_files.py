"""What has a name is whole, at every moment."""

import shutil
from pathlib import Path

import pytest

from ladcast import files
from ladcast.files import put_in_place, remove, whole_file, whole_folder


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
