"""The table of what is made, being made and missing."""

import shutil
from pathlib import Path

import pytest
import xarray as xr

from ladcast.resumable import sole_writer
from data_pipelines.options import Execution, Selection, StoreLayout
from data_pipelines.product import UnitsFailedError
from data_pipelines.regrid import regrid
from data_pipelines.statistics import statistics
from data_pipelines.status import status

HERE = Execution(workers=0)


def test_every_product_has_its_row(world: xr.Dataset, channel_file: Path, tmp_path: Path, capsys):
    selection = Selection(channels=str(channel_file))
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
