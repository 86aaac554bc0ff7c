"""The mechanism that all stages share: whole or absent, once, and never from something else than it says."""

import errno
import json
import os
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from data_pipelines import Execution, StoreLayout
from data_pipelines.manifest import Content, Journal, damages, read_journal, read_manifest
from data_pipelines.product import ProductRecipe, UnitsFailedError, partial_folder, produce
from data_pipelines.transfer import regrid
from data_pipelines.workers import WorkUnit, item_units
from ladcast.data.store import open_store
from worlds import full_disk

HERE = Execution(workers=0)


@dataclass(frozen=True)
class Letters(ProductRecipe):
    """Writes a file for each letter; one of them may fail, or its worker die the first time."""

    letters: str = "abcd"
    refuse: str = ""
    no_space: str = ""
    deadly: Path | None = None
    seen: str = "first"
    in_order: bool = False

    def about(self) -> Content:
        return {"stage": "letters", "inputs": {"alphabet": self.seen}, "arguments": {"letters": self.letters}}

    def units(self) -> Sequence[WorkUnit]:
        return [replace(unit, follows=self.in_order and unit.number > 0) for unit in item_units(list(self.letters))]

    def create(self, folder: Path) -> None:
        (folder / "title").write_text("letters")

    def make(self, folder: Path, unit: WorkUnit) -> Iterable[str]:
        if self.deadly and not self.deadly.exists():
            self.deadly.touch()
            os.kill(os.getpid(), 9)
        if unit.label in self.refuse:
            raise ValueError(f"no letter {unit.label}")
        if unit.label in self.no_space:
            raise OSError(errno.ENOSPC, "No space left on device")
        (folder / unit.label).write_text(unit.label)
        return [unit.label]


@pytest.fixture
def product(tmp_path: Path) -> Path:
    return tmp_path / "letters"


def test_a_product_has_every_unit_and_a_manifest_that_says_so(product: Path):
    assert produce(Letters(), product, HERE) == product
    manifest = read_manifest(product)
    assert manifest["status"] == "complete"
    assert [unit["label"] for unit in manifest["blocks"]] == list("abcd")
    assert [list(unit["sha256"]) for unit in manifest["blocks"]] == [["a"], ["b"], ["c"], ["d"]]
    assert list(manifest["sha256"]) == ["title"]
    assert [path.name for path in product.parent.iterdir()] == ["letters"]
    assert not list(damages(product, manifest))


def test_what_is_complete_is_not_made_again(product: Path, capsys: pytest.CaptureFixture[str]):
    produce(Letters(), product, HERE)
    assert "letters: begins, 4 units\n" in capsys.readouterr().err
    produce(Letters(refuse="abcd"), product, HERE)
    assert "complete already" in capsys.readouterr().out


def test_a_failed_unit_keeps_the_others_and_is_named(product: Path):
    with pytest.raises(UnitsFailedError, match=r"2 of 4 units (.|\n)*b: no letter b\n *d: no letter d\n"):
        produce(Letters(refuse="bd"), product, HERE)
    assert not product.exists()
    assert sorted(read_journal(partial_folder(product))) == [0, 2]
    written = (partial_folder(product) / "a").stat().st_mtime_ns
    produce(Letters(), product, HERE)
    assert (product / "a").stat().st_mtime_ns == written


def test_what_follows_a_unit_that_failed_waits_for_it(product: Path):
    with pytest.raises(UnitsFailedError, match=r"1 of 4 units (.|\n)*b: no letter b\nWhat is made is kept"):
        produce(Letters(refuse="b", in_order=True), product, Execution(workers=2))
    assert sorted(read_journal(partial_folder(product))) == [0]
    produce(Letters(in_order=True), product, HERE)
    assert not list(damages(product, read_manifest(product)))


def test_an_unfinished_store_is_refused_as_input(product: Path):
    with pytest.raises(UnitsFailedError):
        produce(Letters(refuse="b"), product, HERE)
    with pytest.raises(ValueError, match=r"unfinished.*'running'"):
        open_store(partial_folder(product))


def test_a_unit_whose_file_is_lost_is_made_again(product: Path):
    with pytest.raises(UnitsFailedError):
        produce(Letters(refuse="b"), product, HERE)
    (partial_folder(product) / "a").unlink()
    produce(Letters(), product, HERE)
    assert (product / "a").read_text() == "a"


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (Letters(seen="second"), "inputs.alphabet was 'first', now 'second'"),
        (Letters(letters="abcde"), "arguments.letters was 'abcd', now 'abcde'"),
    ],
)
def test_another_input_or_argument_is_refused(product: Path, finished: bool, changed: Letters, message: str):
    if finished:
        produce(Letters(), product, HERE)
    else:
        with pytest.raises(UnitsFailedError):
            produce(Letters(refuse="b"), product, HERE)
    with pytest.raises(ValueError, match=rf"{message}.*\. Delete it to make it anew, or give another output"):
        produce(changed, product, HERE)


def test_units_of_two_versions_do_not_mix(product: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(UnitsFailedError):
        produce(Letters(refuse="b"), product, HERE)
    monkeypatch.setattr("data_pipelines.product.version_of", lambda package: f"{package} 99")
    with pytest.raises(ValueError, match=r"code_version was .* now '99'"):
        produce(Letters(), product, HERE)


def test_units_of_two_lengths_do_not_mix(product: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(UnitsFailedError):
        produce(Letters(refuse="b"), product, HERE)
    monkeypatch.setattr(Letters, "units", lambda self: item_units(["ab", "cd"]))
    with pytest.raises(ValueError, match=r"planned was \['a', 'b', 'c', 'd'\], now \['ab', 'cd'\]"):
        produce(Letters(), product, HERE)


def test_a_line_that_a_kill_cut_short_does_not_count(product: Path):
    with pytest.raises(UnitsFailedError):
        produce(Letters(refuse="d"), product, HERE)
    journal = partial_folder(product) / "blocks.jsonl"
    journal.write_bytes(journal.read_bytes()[:-10])
    assert sorted(read_journal(journal.parent)) == [0, 1]
    assert journal.read_bytes().count(b"\n") == 2
    Journal(journal.parent).append(WorkUnit(2, "c", 2, 3), {"c": "0"})
    assert [json.loads(line)["block"] for line in journal.read_text().splitlines()] == [0, 1, 2]


@pytest.mark.slow
def test_the_unit_of_a_dead_worker_is_made_by_another(product: Path, tmp_path: Path):
    deadly = tmp_path / "one worker died here"
    produce(Letters(deadly=deadly), product, Execution(workers=2))
    assert deadly.exists()
    assert [(product / letter).read_text() for letter in "abcd"] == list("abcd")


def test_a_full_disk_ends_the_stage_at_once(product: Path):
    with pytest.raises(OSError, match=r"No space left to write: '.*letters\.partial'") as caught:
        produce(Letters(no_space="b", refuse="c"), product, HERE)
    assert caught.value.errno == errno.ENOSPC
    produce(Letters(), product, HERE)
    assert not list(damages(product, read_manifest(product)))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 400 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
def test_a_store_that_fills_the_disk_goes_on_when_there_is_space(full_store: Path, small_disk: Path, tmp_path: Path):
    layout = StoreLayout(shard_frames=2)
    expected = regrid(full_store, tmp_path / "whole.zarr", onto="16x9", layout=layout, execution=HERE)
    filler = small_disk / "filler"
    filler.write_bytes(bytes(150_000))
    with pytest.raises(OSError, match="No space left to write"):
        regrid(full_store, small_disk / "a.zarr", onto="16x9", layout=layout, execution=HERE)
    filler.unlink()
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    made = regrid(full_store, small_disk / "a.zarr", onto="16x9", layout=layout, execution=HERE)
    assert read_manifest(made) == read_manifest(expected)
    assert not list(damages(made, read_manifest(made)))


@pytest.mark.slow
def test_a_file_that_may_not_grow_is_a_full_disk_too(full_store: Path, tmp_path: Path):
    with full_disk(20_000), pytest.raises(OSError, match="No space left to write"):
        regrid(full_store, tmp_path / "a.zarr", onto="16x9", execution=HERE)
    made = regrid(full_store, tmp_path / "a.zarr", onto="16x9", execution=HERE)
    assert not list(damages(made, read_manifest(made)))
