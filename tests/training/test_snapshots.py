"""Snapshots: whole or not there, checked before use, the newest two kept."""

import json
import os
import pickle
import warnings
from pathlib import Path

import pytest
import torch

from ladcast.files import sha256
from ladcast.training.distributed import Ranks
from ladcast.training.shards import fill, own_pieces, write_shard
from ladcast.training.snapshots import Snapshots


def state(value: float) -> dict[str, dict[str, torch.Tensor]]:
    return {"model": {"weight": torch.full((3, 2), value)}}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder to which snapshots of steps 1, 2 and 3 were written."""
    with Snapshots(tmp_path / "resume") as snapshots:
        for step in (1, 2, 3):
            snapshots.save(step, state(step), {"step": step})
    return tmp_path / "resume"


def load(folder: Path) -> tuple[int, float]:
    """Returns the step in the manifest of the newest snapshot, and its weights."""
    tensors = state(0)
    document = Snapshots(folder).load_newest(tensors)
    assert document is not None
    assert tensors["model"]["weight"].unique().numel() == 1
    return document["step"], tensors["model"]["weight"][0, 0].item()


def test_the_newest_is_loaded_and_two_are_kept(folder: Path):
    assert load(folder) == (3, 3)
    assert names(folder) == ["step-0000000002", "step-0000000003"]


def test_a_snapshot_holds_what_the_state_was_when_it_was_asked_for(tmp_path: Path):
    tensors = state(1)
    with Snapshots(tmp_path) as snapshots:
        snapshots.save(1, tensors, {"step": 1})
        tensors["model"]["weight"].fill_(7)  # training goes on at once
    assert load(tmp_path) == (1, 1)


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: damage(folder / "rank-00000.safetensors"),
        lambda folder: damage(folder / "state.json"),
        lambda folder: (folder / "state.json").unlink(),
        lambda folder: os.truncate(folder / "rank-00000.safetensors", 10),
        lambda folder: (folder / "manifest.json").write_text("{"),
        lambda folder: (folder / "manifest.json").write_text("{}"),
        lambda folder: (folder / "manifest.json").write_text("[]"),
        lambda folder: (folder / "manifest.json").write_text('{"sha256": [1]}'),
        lambda folder: (folder / "manifest.json").unlink(),
    ],
)
def test_a_damaged_snapshot_is_passed_over(folder: Path, spoil):
    spoil(folder / "step-0000000003")
    with pytest.warns(UserWarning, match=r"damaged snapshot .*step-0000000003"):
        assert load(folder) == (2, 2)


def test_a_damaged_snapshot_does_not_push_out_a_good_one(folder: Path):
    damage(folder / "step-0000000003/state.json")
    with Snapshots(folder) as snapshots:
        with pytest.warns(UserWarning, match="damaged"):
            snapshots.load_newest(state(0))
        snapshots.save(4, state(4), {"step": 4})
        snapshots.wait()
        assert names(folder) == ["step-0000000002", "step-0000000003", "step-0000000004"]
        snapshots.save(5, state(5), {"step": 5})
    assert names(folder) == ["step-0000000004", "step-0000000005"]


def test_a_damaged_snapshot_is_replaced_when_its_step_comes_again(folder: Path):
    damage(folder / "step-0000000003/state.json")
    with Snapshots(folder) as snapshots:
        with pytest.warns(UserWarning, match="damaged"):
            snapshots.load_newest(state(0))
        snapshots.save(3, state(30), {"step": 3})
        snapshots.save(4, state(40), {"step": 4})
    assert load(folder) == (4, 40)
    assert names(folder) == ["step-0000000003", "step-0000000004"]


def test_all_ranks_take_the_snapshot_that_the_first_one_sees(folder: Path):
    class Behind(Ranks):
        """A rank whose view of the shared folder is one entry newer than the first rank's."""

        def first(self, value):
            return value[:-1]

    tensors = state(0)
    assert Snapshots(folder, Behind()).load_newest(tensors)["step"] == 2


def test_damage_everywhere_ends_the_run(folder: Path):
    for path in folder.glob("step-*/state.json"):
        damage(path)
    with (
        pytest.warns(UserWarning, match="damaged"),
        pytest.raises(ValueError, match=r"Every snapshot in .* is damaged\. Remove the folder"),
    ):
        load(folder)


def test_what_a_killed_run_has_left_is_no_snapshot_and_goes(folder: Path):
    (folder / ".step-0000000009").mkdir()
    (folder / ".step-0000000009/rank-00000.safetensors").write_text("half")
    assert load(folder) == (3, 3)
    with Snapshots(folder) as snapshots:
        snapshots.save(4, state(4), {"step": 4})
    assert names(folder) == ["step-0000000003", "step-0000000004"]


def test_a_disk_that_is_full_is_an_error_at_the_next_snapshot(folder: Path, monkeypatch: pytest.MonkeyPatch):
    def full(path: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    with Snapshots(folder) as snapshots:
        with monkeypatch.context() as context:
            context.setattr(Path, "replace", full)
            snapshots.save(4, state(4), {"step": 4})
            with pytest.raises(OSError, match="No space left"):
                snapshots.wait()
        assert load(folder) == (3, 3)


def test_the_snapshot_of_another_model_is_refused(folder: Path):
    for other in ({"model": {"weight": torch.zeros(3, 3)}}, {"model": {"bias": torch.zeros(3)}}):
        with pytest.raises(ValueError, match=r"step-0000000003 does not fit this run's model: .*same sizes"):
            Snapshots(folder).load_newest(other)


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_pieces_of_any_number_of_ranks_are_all_of_the_state(tmp_path: Path, ranks: int):
    """Ranks that hold the same tensors take turns; where the shard of one is missing, nothing is filled."""
    whole = {"model": {f"weight{n}": torch.full((n, 2), float(n)) for n in range(5)}, "rate": {"lr": 0.1}}
    for rank in range(ranks):
        write_shard(tmp_path / f"{rank}.safetensors", own_pieces(whole, Ranks(rank, ranks)))
    shards = sorted(tmp_path.iterdir())
    read = {"model": {name: torch.zeros_like(tensor) for name, tensor in whole["model"].items()}}
    for few in (shards[1:], shards[:-1]):
        with pytest.raises(ValueError, match=r"tensors are missing, first model\.weight"):
            fill(read, few)
    assert not any(tensor.any() for tensor in read["model"].values())
    fill(read, shards)
    assert all(torch.equal(read["model"][name], tensor) for name, tensor in whole["model"].items())


def write_before(folder: Path, content: bytes | None = None) -> None:
    """Writes a snapshot as earlier versions did, by torch; with `content`, one that is prepared."""
    from torch.distributed import checkpoint

    newest = folder / "step-0000000007"
    tensors = {**state(7), "optimizer": {"step": torch.tensor(2.0), "lr": 0.1}}
    with warnings.catch_warnings(action="ignore"):
        checkpoint.save(tensors, checkpoint_id=newest, no_dist=True)
    if content is not None:
        (newest / ".metadata").write_bytes(content)
    hashes = {path.name: sha256(path) for path in newest.iterdir()}
    (newest / "manifest.json").write_text(json.dumps({"step": 7, "sha256": hashes}))


def test_a_snapshot_of_earlier_versions_is_read(tmp_path: Path):
    write_before(tmp_path)
    tensors = {**state(0), "optimizer": {"step": torch.tensor(0.0), "lr": 0.2}}
    assert Snapshots(tmp_path).load_newest(tensors)["step"] == 7
    assert (tensors["model"]["weight"] == 7).all()
    assert tensors["optimizer"] == {"step": torch.tensor(2.0), "lr": 0.2}  # the rate is the run's


class Command:
    """Runs a command where it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("module", ["pathlib", "pathlib._local"])
def test_a_snapshot_of_earlier_versions_may_name_its_folder(tmp_path: Path, module: str):
    """Python 3.13 has paths in a module of its own."""
    write_before(tmp_path, f"c{module}\nPosixPath\n(Va\ntR.".encode())
    with pytest.raises(ValueError, match=r"'PosixPath' object has no attribute"):  # it is found, and no snapshot
        load(tmp_path)


def test_a_prepared_snapshot_runs_no_code(tmp_path: Path):
    """A pickle whose hash fits: `system` is not called, nor found by a dotted name within a module that is allowed."""
    command = pickle.dumps(Command(f"touch {tmp_path / 'run'}"))
    pickle.loads(command)
    (tmp_path / "run").unlink()  # as it does in Python's own hands
    dotted = b"\x80\x04\x8c\x05torch\x8c\tos.system\x93\x8c\x04true\x85R."
    for content, asked in ((command, "posix.system"), (dotted, "torch.os.system"), (b"\x80\x04N.", "NoneType")):
        write_before(tmp_path / asked, content)
        with pytest.raises(ValueError, match=rf"\.metadata is not read: .*{asked}"):
            load(tmp_path / asked)
    assert not (tmp_path / "run").exists()


def test_nothing_is_loaded_from_nothing(tmp_path: Path):
    assert Snapshots(tmp_path / "none").load_newest(state(0)) is None


def test_the_state_of_an_earlier_version_is_not_overlooked(tmp_path: Path):
    (tmp_path / "weights.safetensors").touch()
    with pytest.raises(ValueError, match="an earlier version: remove it"):
        Snapshots(tmp_path)


def test_the_manifest_names_every_file(folder: Path):
    newest = folder / "step-0000000003"
    assert set(json.loads((newest / "manifest.json").read_text())["sha256"]) | {"manifest.json"} == set(names(newest))


def test_the_note_of_a_validation_stays_when_its_step_comes_again(folder: Path):
    snapshots = Snapshots(folder)
    for step in (2, 3, 3):
        snapshots.note_validation(step)
    assert snapshots.validated() == 3
