"""Work goes on after a kill, with what it was begun with, and two writers never meet in it."""

import errno
import fcntl
import multiprocessing
import os
import signal
import socket
import threading
import time
from pathlib import Path

import pytest
import torch

from ladcast import resumable
from ladcast.files import require_outputs
from ladcast.resumable import (
    ALIVE,
    BEAT_S,
    DEAD_AFTER_S,
    Unfinished,
    begun_identity,
    holder,
    lock_path,
    require_same,
    sole_writer,
)

HOLD = """
import time
from pathlib import Path
from ladcast.resumable import sole_writer
with sole_writer(Path(product)):
    Path(ready).touch()
    time.sleep(60)
"""


@pytest.fixture
def product(tmp_path: Path) -> Path:
    return tmp_path / "product"


def create(store: Path) -> None:
    store.mkdir()
    (store / "values").write_text("0")


def test_a_run_goes_on_with_what_it_saved(product: Path):
    first = Unfinished(product, {"run": 1})
    assert first.start(create) == {}
    past = torch.arange(8.0).reshape(1, 2, 1, 2, 2)
    first.save("000002", {"step": 4})
    first.save("000002", {"step": 5}, {"past": past})
    first.save("000003", {"step": 1})
    saved = Unfinished(product, {"run": 1}).start(create)
    assert {name: begun.document["step"] for name, begun in saved.items()} == {"000002": 5, "000003": 1}
    assert torch.equal(saved["000002"].tensors["past"], past)


def test_a_finished_output_has_its_name_and_leaves_nothing_else(product: Path, tmp_path: Path):
    run = Unfinished(product, {})
    run.start(create)
    (run.content / "values").write_text("1")
    assert run.finish() == product
    assert [path.name for path in tmp_path.iterdir()] == ["product"]
    assert (product / "values").read_text() == "1"
    with pytest.raises(FileExistsError, match="--overwrite"):
        Unfinished(product, {})


def test_another_run_does_not_go_on(product: Path):
    Unfinished(product, {"seed": 1}).start(create)
    with pytest.raises(FileExistsError, match=r"seed was 1, now 2\. Delete"):
        Unfinished(product, {"seed": 2}).start(create)
    with pytest.raises(FileExistsError, match=r"extra was None, now 0"):
        Unfinished(product, {"seed": 1, "extra": 0}).start(create)


def test_a_damaged_beginning_is_named_and_gives_way_when_asked(product: Path, tmp_path: Path):
    create(product)
    Unfinished(product, {"seed": 1}, overwrite=True).start(create)
    (tmp_path / "product.partial/progress/begun/manifest.json").write_text("{")
    assert begun_identity(product) == {}
    with pytest.raises(FileExistsError, match=r"product exists already"):
        Unfinished(product, {"seed": 1})
    assert Unfinished(product, {"seed": 1}, overwrite=True).start(create) == {}
    assert begun_identity(product)["seed"] == 1


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_not_ours_is_not_deleted(product: Path, tmp_path: Path, overwrite: bool):
    (tmp_path / "product.partial").mkdir()
    (tmp_path / "product.partial" / "thesis").write_text("years of work")
    with pytest.raises(FileExistsError, match="holds thesis, which is not"):
        Unfinished(product, {}, overwrite=overwrite).start(create)
    assert (tmp_path / "product.partial" / "thesis").exists()


@pytest.mark.parametrize("left", ["progress/.begun.partial-123", "progress/begun", "progress/000000"])
def test_nothing_is_lost_with_a_run_that_is_not_begun_or_has_its_name(product: Path, tmp_path: Path, left: str):
    """A kill while the beginning is recorded, and two between the last steps of finishing."""
    (tmp_path / "product.partial" / left).mkdir(parents=True)
    if left != "progress/begun":
        create(tmp_path / "product.partial/store")
    assert Unfinished(product, {"seed": 1}).start(create) == {}
    assert begun_identity(product)["seed"] == 1
    assert begun_identity(tmp_path / "other") == {}


def test_overwriting_keeps_the_old_until_the_new_is_complete(product: Path, tmp_path: Path):
    create(product)
    Unfinished(product, {"seed": 1}, overwrite=True).start(create)
    run = Unfinished(product, {"seed": 2}, overwrite=True)
    assert run.start(create) == {}
    run.save("000000", {"step": 1})
    (run.content / "values").write_text("new")
    assert (product / "values").read_text() == "0"
    again = Unfinished(product, {"seed": 2}, overwrite=True)
    assert list(again.start(create)) == ["000000"]
    again.finish()
    assert (product / "values").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["product"]


@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.parametrize("killed_at", ["put_in_place", "remove"])
def test_a_kill_while_the_output_gets_its_name_loses_nothing(
    exists: bool, killed_at: str, product: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    if exists:
        create(product)
    run = Unfinished(product, {"seed": 1}, overwrite=exists)
    run.start(create)
    (run.content / "values").write_text("new")
    run.save("000000", {"step": 1})

    def kill(*_: Path) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(resumable, killed_at, kill)
        with pytest.raises(SystemExit):
            run.finish()
    after = "new" if killed_at == "remove" else "0"
    assert (product / "values").read_text() == after if product.exists() else not exists
    again = Unfinished(product, {"seed": 1}, overwrite=exists)
    assert list(again.start(create)) == ["000000"], "the work is not made again"
    again.finish()
    assert (product / "values").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["product"]


def test_who_waited_for_the_lock_does_not_make_again_what_is_made(product: Path):
    late = Unfinished(product, {"seed": 1})
    first = Unfinished(product, {"seed": 1})
    first.start(create)
    first.finish()
    with pytest.raises(FileExistsError, match="exists already"):
        late.start(create)


def test_work_without_an_identity_starts_afresh_but_not_in_place_of_other_work(product: Path):
    Unfinished(product, None).start(create)
    begun: list[Path] = []
    assert Unfinished(product, None).start(begun.append) == {}
    assert begun
    Unfinished(product, {"seed": 1}).start(create)
    with pytest.raises(FileExistsError, match="cannot go on"):
        Unfinished(product, None).start(create)


def test_a_failed_creation_leaves_no_trace(product: Path, tmp_path: Path):
    def fail(store: Path) -> None:
        create(store)
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        Unfinished(product, {}).start(fail)
    assert not list(tmp_path.iterdir())


def test_all_that_differs_is_named_before_and_now():
    require_same({"seed": 1, "of": {"a": 1}, "more": 0}, {"seed": 1, "of": {"a": 1}}, "it", remedy="")
    asked = {"seed": 2, "of": {"a": 1, "b": 2}, "new": None}
    with pytest.raises(ValueError, match=r"^it was made .* now: seed was 1, now 2; of\.b was 3, now 2\. Choose\.$"):
        require_same({"seed": 1, "of": {"a": 1, "b": 3}}, asked, "it", remedy="Choose.")


def test_the_lock_names_its_holder_and_is_gone_after(product: Path):
    with sole_writer(product):
        assert str(holder(product)).endswith(f"process {os.getpid()}")
    assert not list(product.parent.iterdir())
    assert holder(product) is None


@pytest.mark.parametrize(
    ("left", "stays"),
    [(f"host {socket.gethostname()}, process 1\n", False), ("host elsewhere, process 1\n", True), ("", True)],
)
def test_the_lock_of_a_dead_writer_goes_where_its_output_is_refused(product: Path, left: str, stays: bool):
    product.touch()
    lock_path(product).write_text(left)
    with pytest.raises(FileExistsError, match="exists already"):
        require_outputs([product])
    assert lock_path(product).exists() == stays


def test_a_lock_that_is_held_to_be_deleted_is_waited_for(product: Path):
    lock_path(product).write_text(f"host {socket.gethostname()}, process {2**22 + 1}\n")
    with lock_path(product).open() as swept:
        fcntl.flock(swept, fcntl.LOCK_EX)
        deletes = threading.Timer(0.03, lambda: (lock_path(product).unlink(), swept.close()))
        deletes.start()
        with sole_writer(product):
            assert f"process {os.getpid()}" in holder(product)
    deletes.join()


def test_the_lock_of_a_living_writer_stays(product: Path):
    with sole_writer(product):
        require_outputs([product])
        assert holder(product) is not None


def test_a_lock_is_gone_after_an_error(product: Path):
    with pytest.raises(ZeroDivisionError), sole_writer(product):
        raise ZeroDivisionError
    assert not list(product.parent.iterdir())


@pytest.mark.slow
def test_a_second_writer_is_refused_until_the_first_dies(product: Path, tmp_path: Path):
    ready = tmp_path / "ready"
    names = {"product": str(product), "ready": str(ready)}
    process = multiprocessing.get_context("spawn").Process(target=exec, args=(HOLD, names))
    process.start()
    while not ready.exists():
        assert process.is_alive()
    with pytest.raises(FileExistsError, match=rf"being written by host .*, process {process.pid}\. Wait for it"):
        sole_writer(product).__enter__()
    assert str(holder(product)).endswith(f"process {process.pid}")
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert holder(product) is None
    with sole_writer(product):
        assert str(holder(product)).endswith(f"process {os.getpid()}")


def test_the_lock_of_another_host_is_taken_over_when_its_writer_gives_no_sign_of_life(product: Path):
    lock = lock_path(product)
    with sole_writer(product):
        content = lock.read_text()
    lock.write_text(f"host elsewhere, process 7\n{content.splitlines()[1]}\n")
    with pytest.raises(
        FileExistsError, match=r"by host elsewhere, process 7\. .* 5 minutes after its last sign of life"
    ):
        sole_writer(product).__enter__()
    os.utime(lock, (lock.stat().st_mtime - DEAD_AFTER_S - 5,) * 2)
    with sole_writer(product):
        assert str(holder(product)).endswith(f"process {os.getpid()}")
    assert not lock.exists()


def test_a_patient_writer_waits_for_the_last_sign_of_life_of_another_host(product: Path, monkeypatch):
    """A job that SLURM starts again elsewhere, when its host has died, goes on."""
    lock, waited = lock_path(product), []
    lock.write_text(f"host elsewhere, process 7\n{ALIVE}\n")
    monkeypatch.setattr(resumable.time, "sleep", lambda seconds: (waited.append(seconds), grow_old(lock, seconds)))
    with sole_writer(product, patient=True):
        assert str(holder(product)).endswith(f"process {os.getpid()}")
    assert DEAD_AFTER_S <= sum(waited) <= DEAD_AFTER_S + BEAT_S


def test_a_patient_writer_holds_the_lock_that_is_there(product: Path, monkeypatch):
    """While it waits, the other host is done, and deletes its lock; a third one makes another, and dies."""
    lock, waited = lock_path(product), []
    lock.write_text(f"host elsewhere, process 7\n{ALIVE}\n")

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 1:
            lock.unlink()
            lock.write_text(f"host third, process 8\n{ALIVE}\n")
        else:
            grow_old(lock, seconds)

    monkeypatch.setattr(resumable.time, "sleep", sleep)
    with sole_writer(product, patient=True):
        assert sum(waited) > DEAD_AFTER_S
        assert str(holder(product)).endswith(f"process {os.getpid()}")
        with pytest.raises(FileExistsError, match="is being written by host"):
            sole_writer(product).__enter__()
    assert not lock.exists()


@pytest.mark.parametrize("code", [None, errno.ESTALE], ids=["on a disk", "on a network"])
def test_a_lock_that_is_deleted_before_it_is_signed_is_taken_again(product: Path, monkeypatch, code: int | None):
    """A network's file system says so of the descriptor, where another host deleted the file."""
    real, calls = os.ftruncate, []

    def delete_first(descriptor: int, length: int) -> None:
        calls.append(descriptor)
        if len(calls) == 1:
            lock_path(product).unlink()
            if code is not None:
                raise OSError(code, os.strerror(code))
        real(descriptor, length)

    monkeypatch.setattr(resumable.os, "ftruncate", delete_first)
    with sole_writer(product):
        assert str(holder(product)).endswith(f"process {os.getpid()}")
    assert len(calls) == 2


def grow_old(path: Path, seconds: float) -> None:
    os.utime(path, (path.stat().st_mtime - seconds,) * 2)


def test_the_lock_of_another_host_without_signs_of_life_is_never_taken_over(product: Path):
    """Those of earlier versions."""
    lock_path(product).write_text("host elsewhere, process 7\n")
    os.utime(lock_path(product), (0, 0))
    with pytest.raises(FileExistsError, match=r"by host elsewhere, process 7\. .* if that process is dead, delete"):
        sole_writer(product).__enter__()
    assert lock_path(product).exists()


def test_a_writer_gives_signs_of_life(product: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(resumable, "BEAT_S", 0.01)
    with sole_writer(product):
        os.utime(lock_path(product), (0, 0))
        for _ in range(1000):
            if lock_path(product).stat().st_mtime:
                break
            time.sleep(0.01)
        assert lock_path(product).stat().st_mtime
