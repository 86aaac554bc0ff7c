"""Folders of sums: what a run claims, in which order systems stand, and claims of earlier versions."""

from pathlib import Path

import pytest

from ladcast.verification.sums import claim_folder, grid_notes, read_claims


def test_systems_stand_in_the_order_of_the_claims(tmp_path: Path) -> None:
    claim_folder(tmp_path, ["ours", "persistence", "climatology"], {"truth": "era5.zarr", "climatology": "c.nc"})
    claim_folder(tmp_path, ["ifs", "persistence"], {"truth": "era5.zarr", "climatology": "none"})
    claim_folder(tmp_path, ["ours", "persistence", "climatology"], {"truth": "era5.zarr", "climatology": "c.nc"})
    order, about = read_claims(tmp_path)
    assert order == ["ours", "persistence", "climatology", "ifs"]
    assert about == {"truth": "era5.zarr", "climatology": "ours: c.nc; ifs: none"}


def test_another_run_is_refused(tmp_path: Path) -> None:
    claim_folder(tmp_path, ["ours"], {"truth": "era5.zarr", "seed": "0"})
    with pytest.raises(ValueError, match=r"seed was .*, now .*\. Choose another folder"):
        claim_folder(tmp_path, ["ours"], {"truth": "era5.zarr", "seed": "1"})


def test_different_grids_are_told(tmp_path: Path) -> None:
    claim_folder(tmp_path, ["ours", "persistence"], {"grid": "64 x 32"})
    claim_folder(tmp_path, ["old"], {"truth": "of an earlier version"})
    assert grid_notes(tmp_path) == []
    claim_folder(tmp_path, ["theirs"], {"grid": "64 x 33"})
    (note,) = grid_notes(tmp_path)
    assert "ours on 64 x 32, theirs on 64 x 33" in note
