"""Two writers never meet in one product, and a dead one does not stand in the way."""

import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from data_pipelines.lock import holder, lock_path, sole_writer

HOLD = """
import time
from pathlib import Path
from data_pipelines.lock import sole_writer
with sole_writer(Path(product)):
    Path(ready).touch()
    time.sleep(60)
"""


@pytest.fixture
def product(tmp_path: Path) -> Path:
    return tmp_path / "product"


def test_the_lock_names_its_holder_and_is_gone_after(product: Path):
    with sole_writer(product):
        assert str(holder(product)).endswith(f"process {os.getpid()}")
    assert not list(product.parent.iterdir())
    assert holder(product) is None


def test_a_lock_is_gone_after_an_error(product: Path):
    with pytest.raises(ZeroDivisionError), sole_writer(product):
        raise ZeroDivisionError
    assert not list(product.parent.iterdir())


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


def test_the_lock_of_another_host_is_never_taken_over(product: Path):
    lock_path(product).write_text("host elsewhere, process 7\n")
    with pytest.raises(FileExistsError, match=r"by host elsewhere, process 7\. .* if that process is dead, delete"):
        sole_writer(product).__enter__()
    assert lock_path(product).exists()
    lock_path(product).unlink()
    with sole_writer(product):
        pass
