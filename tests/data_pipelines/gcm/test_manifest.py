from pathlib import Path

import pytest

from data_pipelines.gcm.manifest import check_same_options, new_manifest, read_manifest, write_manifest


def test_manifest_reads_back(tmp_path: Path) -> None:
    content = new_manifest({"seed": 1}, segments=[])
    write_manifest(tmp_path, content)
    assert read_manifest(tmp_path) == content
    assert content["status"] == "running"
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


def test_every_differing_option_is_named() -> None:
    there = {"seed": 1, "days": 360, "grid": "64x33"}
    check_same_options(Path("run"), there, dict(there))
    with pytest.raises(ValueError, match=r"seed=1, now 2; days=360, now 10") as caught:
        check_same_options(Path("run"), there, {"seed": 2, "days": 10, "grid": "64x33"})
    assert "grid" not in str(caught.value)


def test_other_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no manifest\.json"):
        read_manifest(tmp_path)
    write_manifest(tmp_path, {"stage": "encode"})
    with pytest.raises(ValueError, match="'encode', expected 'simulate'"):
        read_manifest(tmp_path)
