"""What a download would cost, and that it is what it then costs."""

from pathlib import Path

import pytest

from data_pipelines.inspection import checksums
from data_pipelines.manifest import read_manifest
from data_pipelines.options import Execution, StateSelection, StoreLayout
from data_pipelines.plan import plan
from data_pipelines.transfer import download


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_plan_is_what_a_download_then_writes(store: Path, channel_file: Path, tmp_path: Path, zarr_format, capsys):
    selection, layout = StateSelection(channels=str(channel_file)), StoreLayout(zarr_format, shard_frames=20)
    made = plan(str(store), selection=selection, layout=layout, workers=2)
    path = download(str(store), tmp_path / "a.zarr", selection=selection, layout=layout, execution=Execution(workers=0))
    manifest = read_manifest(path)
    chunks = [name for unit in manifest["blocks"] for name in unit["sha256"]]
    assert (made.frames, made.units, made.files) == (101, len(manifest["blocks"]), len(chunks))
    assert made.write_bytes == made.read_bytes == 101 * 6 * 16 * 9 * 4
    stored = sum((path / name).stat().st_size for name in chunks)
    assert made.stored_bytes == pytest.approx(stored, rel=0.25)
    assert made.seconds > 0
    assert "with 2 workers" in capsys.readouterr().out


def test_regridding_writes_less_than_it_reads(store: Path, channel_file: Path):
    made = plan(str(store), onto="8x5", selection=StateSelection(channels=str(channel_file)))
    assert made.write_bytes * 16 * 9 == made.read_bytes * 8 * 5


def test_nothing_is_moved(store: Path, channel_file: Path):
    before = sorted(store.parent.rglob("*"))
    plan(str(store), selection=StateSelection(channels=str(channel_file)))
    assert sorted(store.parent.rglob("*")) == before
    assert len(checksums({})) == 0
