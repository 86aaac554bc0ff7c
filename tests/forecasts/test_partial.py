from pathlib import Path

import pytest
import torch

from ladcast.checkpoint import remove_output
from ladcast.forecasting.ensemble import Position
from ladcast.forecasts.partial import PartialStore, begun_identity


def create(store: Path) -> None:
    store.mkdir()
    (store / "values").write_text("0")


def test_a_run_goes_on_where_it_saved_its_position(tmp_path: Path):
    first = PartialStore(tmp_path / "out", {"run": 1})
    assert first.start(create) == {}
    past = torch.arange(8.0).reshape(1, 2, 1, 2, 2)
    first.save(Position(2, 5, past))
    first.save(Position(3, 1))
    begun = PartialStore(tmp_path / "out", {"run": 1}).start(create)
    assert {batch: position.block for batch, position in begun.items()} == {2: 5, 3: 1}
    position = begun[2]
    assert position.past is not None
    assert torch.equal(position.past, past)


def test_a_finished_store_has_its_name_and_leaves_nothing_else(tmp_path: Path):
    run = PartialStore(tmp_path / "out", {})
    run.start(create)
    (run.store / "values").write_text("1")
    assert run.finish() == tmp_path / "out"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / "values").read_text() == "1"
    with pytest.raises(FileExistsError, match="--overwrite"):
        PartialStore(tmp_path / "out", {})


def test_another_run_does_not_go_on(tmp_path: Path):
    PartialStore(tmp_path / "out", {"seed": 1}).start(create)
    with pytest.raises(FileExistsError, match=r"another seed: expected 2, got 1"):
        PartialStore(tmp_path / "out", {"seed": 2}).start(create)
    with pytest.raises(FileExistsError, match=r"another extra: expected 0, got None"):
        PartialStore(tmp_path / "out", {"seed": 1, "extra": 0}).start(create)


def test_what_is_not_ours_is_not_deleted(tmp_path: Path):
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "thesis").write_text("years of work")
    with pytest.raises(FileExistsError, match="cannot go on"):
        PartialStore(tmp_path / "out", {}).start(create)
    assert (tmp_path / "out.partial" / "thesis").exists()


@pytest.mark.parametrize("left", ["progress/.begun.partial-123", "progress/begun"])
def test_nothing_is_lost_with_a_run_that_is_not_begun_or_has_its_name(tmp_path: Path, left: str):
    """A kill while the beginning is recorded, and one between the last two steps of finishing."""
    (tmp_path / "out.partial" / left).mkdir(parents=True)
    if left.startswith("progress/."):
        create(tmp_path / "out.partial/store")
    assert PartialStore(tmp_path / "out", {"seed": 1}).start(create) == {}
    assert begun_identity(tmp_path / "out")["seed"] == 1
    assert begun_identity(tmp_path / "other") == {}


def test_overwriting_keeps_the_old_until_the_new_is_complete(tmp_path: Path):
    create(tmp_path / "out")
    PartialStore(tmp_path / "out", {"seed": 1}, overwrite=True).start(create)
    run = PartialStore(tmp_path / "out", {"seed": 2}, overwrite=True)
    assert run.start(create) == {}
    run.save(Position(0, 1))
    (run.store / "values").write_text("new")
    assert (tmp_path / "out/values").read_text() == "0"
    again = PartialStore(tmp_path / "out", {"seed": 2}, overwrite=True)
    assert again.start(create) == {0: Position(0, 1)}
    again.finish()
    assert (tmp_path / "out/values").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_failed_creation_leaves_no_trace(tmp_path: Path):
    def fail(store: Path) -> None:
        create(store)
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        PartialStore(tmp_path / "out", {}).start(fail)
    assert not list(tmp_path.iterdir())


def test_removing_takes_files_folders_and_unfinished_ones(tmp_path: Path):
    (tmp_path / "file").write_text("x")
    create(tmp_path / "folder")
    create(tmp_path / "folder.partial")
    remove_output(tmp_path / "file")
    remove_output(tmp_path / "folder")
    remove_output(tmp_path / "nothing")
    assert not list(tmp_path.iterdir())
