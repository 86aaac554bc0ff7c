"""Inputs are named by what they hold; damage to a product is found and named, by file and by what it held.

The table says what is made and missing.
"""

import json
import os
import shutil
from pathlib import Path

import pytest
import xarray as xr

from data_pipelines import Execution, StateSelection, StoreLayout
from data_pipelines.manifest import fingerprint, status, validate
from data_pipelines.product import UnitsFailedError
from data_pipelines.statistics import climatology, statistics
from data_pipelines.transfer import regrid
from ladcast.files import sha256
from ladcast.resumable import sole_writer

HERE = Execution(workers=0)


@pytest.fixture(scope="module")
def whole(store: Path, channel_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("product") / "a.zarr"
    selection = StateSelection(channels=str(channel_file))
    return regrid(store, path, onto="16x9", selection=selection, layout=StoreLayout(shard_frames=20), execution=HERE)


@pytest.fixture
def product(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "a.zarr"))


SHARD = "temperature/c/2/0/0/0"


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_whole_product_passes(product: Path, capsys: pytest.CaptureFixture[str]):
    validate(product)
    assert "files have their checksums" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (flip, r"expected SHA-256 [0-9a-f]{12}\.\.\., got [0-9a-f]{12}"),
        (lambda path: os.truncate(path, path.stat().st_size - 1), r"expected SHA-256 [0-9a-f]{12}"),
        (lambda path: os.truncate(path, 0), r"got e3b0c44298fc"),
        (Path.unlink, r"got no file"),
    ],
)
def test_a_damaged_chunk_is_named_with_its_times(product: Path, damage, found: str):
    damage(product / SHARD)
    with pytest.raises(ValueError, match=rf"{SHARD} \(2020-01-11T00 to 2020-01-15T18\): .*{found}"):
        validate(product)


@pytest.mark.parametrize("name", ["zarr.json", "latitude/c/0", "land_sea_mask/zarr.json"])
def test_damaged_metadata_and_coordinates_are_found(product: Path, name: str):
    flip(product / name)
    with pytest.raises(ValueError, match=rf"a\.zarr/{name}: expected SHA-256"):
        validate(product)


def test_a_manifest_that_is_none_is_named(product: Path):
    (product / "manifest.json").write_text("19")
    with pytest.raises(ValueError, match=r"a\.zarr/manifest\.json: expected a mapping of names to values, got int"):
        validate(product)


def test_files_that_do_not_belong_are_found(product: Path):
    (product / "temperature/c/9").mkdir()
    (product / "temperature/c/9/0").write_bytes(b"?")
    with pytest.raises(ValueError, match="temperature/c/9/0: is not in the manifest"):
        validate(product)


@pytest.mark.slow
def test_a_file_product_is_checked_too(store: Path, channel_file: Path, tmp_path: Path):
    selection = StateSelection(channels=str(channel_file))
    path = climatology(store, tmp_path / "a.nc", window_days=365, selection=selection, execution=HERE)
    validate(path)
    flip(path)
    with pytest.raises(ValueError, match=r"a\.nc: expected SHA-256"):
        validate(path)


def test_fields_of_other_stores_are_looked_into(world, tmp_path: Path):
    broken = world.copy(deep=True)
    broken["temperature"][50, 0] *= 10
    broken.to_zarr(tmp_path / "a.zarr")
    with pytest.raises(ValueError, match="'temperature' at 500 hPa has an implausible area mean at 1 times"):
        validate(tmp_path / "a.zarr")
    validate(tmp_path / "a.zarr", content=False)


def test_what_is_not_there_or_not_finished_is_refused(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="Check the path"):
        validate(tmp_path / "nothing")
    (tmp_path / "manifest.json").write_text('{"status": "running"}')
    with pytest.raises(ValueError, match="Finish it first"):
        validate(tmp_path)


@pytest.mark.slow
def test_every_product_has_its_row(world: xr.Dataset, channel_file: Path, tmp_path: Path, capsys):
    selection = StateSelection(channels=str(channel_file))
    source, folder = tmp_path / "world.zarr", tmp_path / "products"
    world.chunk(time=1).to_zarr(source)
    statistics(source, folder / "statistics.json", selection=selection, execution=HERE)
    layout = StoreLayout(shard_frames=20)
    regrid(source, folder / "a.zarr", onto="8x5", selection=selection, layout=layout, execution=HERE)
    shutil.rmtree(source / "temperature/c/50")
    with pytest.raises(UnitsFailedError):
        regrid(source, folder / "b.zarr", onto="8x5", selection=selection, layout=layout, execution=HERE)
    capsys.readouterr()
    with sole_writer(folder / "b.zarr"):
        assert [row.state for row in status(folder)] == ["complete", "running", "complete"]
    rows = status(folder)
    assert [row.state for row in rows] == ["complete", "interrupted", "complete"]
    assert [row.cells[3] for row in rows] == ["6/6", "5/6", ""]
    printed = capsys.readouterr().out
    assert "b.zarr" in printed
    assert "b.zarr lacks 2020-01-11T00 to 2020-01-15T18" in printed


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="is no folder"):
        status(tmp_path / "nothing")


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


@pytest.mark.slow
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
