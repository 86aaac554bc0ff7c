"""Inputs are named by what they hold."""

import json
import shutil
from pathlib import Path

import pytest

from data_pipelines.manifest import fingerprint
from data_pipelines.options import Execution
from data_pipelines.transfer import regrid
from ladcast.files import sha256


def test_a_copy_has_the_same_name_and_a_changed_file_another(store: Path, tmp_path: Path):
    before = fingerprint(store)
    copy = Path(shutil.copytree(store, tmp_path / "copy"))
    assert fingerprint(copy) == before
    chunk = next(path for path in (copy / "temperature").rglob("*") if path.is_file() and path.name != "zarr.json")
    chunk.write_bytes(chunk.read_bytes() + b"x")
    assert fingerprint(copy) != before


def test_a_change_of_metadata_is_seen_though_sizes_stay(store: Path, tmp_path: Path):
    copy = Path(shutil.copytree(store, tmp_path / "copy"))
    metadata = copy / "zarr.json"
    metadata.write_text(metadata.read_text().replace("random numbers", "RANDOM numbers"))
    assert metadata.stat().st_size == (store / "zarr.json").stat().st_size
    assert fingerprint(copy) != fingerprint(store)


def test_a_product_is_named_by_its_manifest(full_store: Path, tmp_path: Path):
    product = regrid(full_store, tmp_path / "a.zarr", onto="8x5", execution=Execution(workers=0))
    assert fingerprint(product) == sha256(product / "manifest.json")


def test_a_file_is_named_by_its_content(tmp_path: Path):
    (tmp_path / "a").write_text("a")
    assert fingerprint(tmp_path / "a") == "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"


def test_what_is_not_there_or_not_finished_has_no_name(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="Check the path"):
        fingerprint(tmp_path / "nothing")
    (tmp_path / "manifest.json").write_text(json.dumps({"status": "running"}))
    with pytest.raises(ValueError, match="Finish it first"):
        fingerprint(tmp_path)
