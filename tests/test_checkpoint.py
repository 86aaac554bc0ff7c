"""Checkpoint folders: exact, checked by hash, and never half there."""

import json
import os
from pathlib import Path

import pytest
import safetensors.torch
import torch

from ladcast import checkpoint
from ladcast.checkpoint import (
    MANIFEST,
    WEIGHTS,
    checkpoint_hash,
    read_document,
    read_tensors,
    verify_checkpoint,
    write_checkpoint,
)

DOCUMENTS = {
    "config.yaml": {"steps": 3, "widths": [8, 16], "name": "2011-10-11"},
    "normalizer.json": {"mean": 0.1},
    "static.bin": b"\x00\x01",
    MANIFEST: {"step": 7},
}


@pytest.fixture
def tensors(generator: torch.Generator) -> dict[str, torch.Tensor]:
    weight = torch.randn(4, 5, generator=generator)
    return {"half": weight.bfloat16(), "model/weight": weight, "strided": weight.T, "count": torch.tensor(3)}


@pytest.fixture
def folder(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> Path:
    write_checkpoint(tmp_path / "model", tensors, DOCUMENTS)
    return tmp_path / "model"


def test_what_is_written_is_read(folder: Path, tensors: dict[str, torch.Tensor]):
    read = read_tensors(folder)
    assert set(read) == set(tensors)
    for name, tensor in tensors.items():
        torch.testing.assert_close(read[name], tensor, rtol=0, atol=0)
    for name in ("config.yaml", "normalizer.json"):
        assert read_document(folder, name) == DOCUMENTS[name]
    assert (folder / "static.bin").read_bytes() == DOCUMENTS["static.bin"]
    assert read_document(folder, MANIFEST)["step"] == 7


def test_nothing_else_is_left_behind(folder: Path):
    assert [path.name for path in folder.parent.iterdir()] == ["model"]
    assert {path.name for path in folder.iterdir()} == {*DOCUMENTS, WEIGHTS}


def test_weights_and_documents_name_the_model(folder: Path, tensors: dict[str, torch.Tensor], tmp_path: Path):
    write_checkpoint(tmp_path / "same", tensors, {**DOCUMENTS, MANIFEST: {"step": 8}})
    write_checkpoint(tmp_path / "weights", {**tensors, "count": torch.tensor(4)}, DOCUMENTS)
    write_checkpoint(tmp_path / "documents", tensors, {})
    hashes = [checkpoint_hash(tmp_path / name) for name in ("weights", "documents")]
    assert checkpoint_hash(tmp_path / "same") == checkpoint_hash(folder)
    assert len({checkpoint_hash(folder), *hashes}) == 3


def change_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("name", [WEIGHTS, "config.yaml", "normalizer.json", "static.bin"])
@pytest.mark.parametrize("damage", [change_a_byte, truncate, Path.unlink])
def test_damage_to_any_file_is_found(folder: Path, name: str, damage):
    damage(folder / name)
    with pytest.raises(ValueError, match=rf"{name} is incomplete or changed: expected SHA-256"):
        read_tensors(folder)


def test_a_damaged_manifest_is_found(folder: Path):
    manifest = folder / MANIFEST
    whole = manifest.read_text()
    manifest.write_text(whole[:20])
    with pytest.raises(ValueError, match=rf"{MANIFEST} is incomplete or changed"):
        verify_checkpoint(folder)
    manifest.write_text(json.dumps({"step": 7}))
    with pytest.raises(ValueError, match=rf"{MANIFEST} lacks the SHA-256 of {WEIGHTS}"):
        verify_checkpoint(folder)
    manifest.unlink()
    with pytest.raises(FileNotFoundError, match=rf"'{MANIFEST}' is missing"):
        verify_checkpoint(folder)


def test_a_missing_folder_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"No checkpoint at .*nothing: expected a folder with"):
        read_tensors(tmp_path / "nothing")


class InterruptedWriteError(Exception):
    """Stands for a process that is killed, or a disk that is full."""


@pytest.mark.parametrize("replaces", [False, True])
@pytest.mark.parametrize("stage", ["tensors", "documents", "manifest"])
def test_a_half_written_folder_is_never_visible(tmp_path: Path, monkeypatch, stage: str, replaces: bool):
    folder = tmp_path / "model"
    if replaces:
        write_checkpoint(folder, {"weight": torch.zeros(2)}, {"config.yaml": {"version": 1}})

    def interrupt(*args: object) -> bytes:
        raise InterruptedWriteError

    original = checkpoint._encode
    targets = {
        "tensors": (safetensors.torch, "save_file", interrupt),
        "documents": (checkpoint, "_encode", interrupt),
        "manifest": (
            checkpoint,
            "_encode",
            lambda name, content: interrupt() if name == MANIFEST else original(name, content),
        ),
    }
    with monkeypatch.context() as patch:
        patch.setattr(*targets[stage])
        with pytest.raises(InterruptedWriteError):
            write_checkpoint(folder, {"weight": torch.ones(2)}, {"config.yaml": {"version": 2}})
    if replaces:
        assert read_tensors(folder)["weight"].tolist() == [0, 0]
        assert read_document(folder, "config.yaml") == {"version": 1}
    else:
        assert not folder.exists()
    write_checkpoint(folder, {"weight": torch.ones(2)}, {"config.yaml": {"version": 2}})
    assert read_tensors(folder)["weight"].tolist() == [1, 1]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_replaced_folder_keeps_nothing_of_the_old_one(folder: Path):
    write_checkpoint(folder, {"weight": torch.ones(2)}, {})
    assert {path.name for path in folder.iterdir()} == {WEIGHTS, MANIFEST}
    assert list(read_tensors(folder)) == ["weight"]


def test_the_old_folder_returns_where_the_new_one_cannot_be_named(folder: Path, monkeypatch):
    rename = Path.rename

    def refuse(path: Path, target: Path) -> Path:
        if f".partial-{os.getpid()}@" in path.name:
            raise OSError("no")
        return rename(path, target)

    monkeypatch.setattr("ladcast.files._exchange", lambda one, other: False)
    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OSError, match="no"):
        write_checkpoint(folder, {"weight": torch.ones(2)}, {})
    assert read_document(folder, MANIFEST)["step"] == 7
    verify_checkpoint(folder)
