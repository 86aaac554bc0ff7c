"""ladcast in Python: what a line returns is what the command writes, and every output is an input."""

from pathlib import Path

import pytest
import xarray as xr

import ladcast
from ladcast.cli import app, run
from ladcast.released import ModelFolder
from worlds import own_model

QUICK = {"members": 3, "days": 1, "steps": 2, "device": "cpu"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    return own_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def made(model: ModelFolder) -> xr.Dataset:
    return ladcast.forecast(model=model.path, **QUICK)


def compact(forecast: xr.Dataset) -> str:
    """Returns the initial time as people type it, such as 2011101100."""
    return str(forecast["time"].values[0].astype("datetime64[h]")).replace("-", "").replace("T", "")


def test_a_line_makes_what_the_command_makes(made: xr.Dataset, model: ModelFolder, tmp_path: Path):
    tokens = ["forecast", compact(made), "--model", str(model.path), "--output", str(tmp_path / "fc.zarr"), "--no-draw"]
    run(app, [*tokens, "--members", "3", "--days", "1", "--steps", "2", "--device", "cpu"])
    xr.testing.assert_identical(made.load(), ladcast.open_forecast(tmp_path / "fc.zarr").load())
    written = xr.load_dataset(tmp_path / "fc.scores.nc", decode_timedelta=True)
    scores = ladcast.score(made)
    xr.testing.assert_equal(scores, written)
    assert scores.sel(system="ladcast", region="globe", season="all")["fair_crps"].notnull().any()
