"""A member of a past forecast comes back bit for bit, from whatever says what the forecast was made from."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

import processes
from ladcast import cli
from ladcast.cli import app, run
from ladcast.cyclones.detection import Detection
from ladcast.cyclones.formats import write_tracks
from ladcast.cyclones.tracker import TrackOptions, find_tracks
from ladcast.data.analysis import read_analysis
from ladcast.data.store import read_times
from ladcast.forecasting import ForecastRequest
from ladcast.forecasting.checkpoints import load_forecaster
from ladcast.forecasting.ensemble import EnsembleOptions
from ladcast.forecasts.latents import LatentStore, all_frames
from ladcast.forecasts.make import make_forecast
from ladcast.forecasts.open import open_forecast
from ladcast.forecasts.redraw import redraw
from ladcast.released import ModelFolder
from worlds import Kept, keep, own_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    return own_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def kept(model: ModelFolder, tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """5 members in batches of 2, 8 lead times."""
    forecaster = load_forecaster(model.path, "cpu")
    analysis = read_analysis(model.starts, read_times(model.starts)[0], forecaster.channels, forecaster.grid)
    return keep(forecaster, model.path, analysis, EnsembleOptions(5, 2, 7, batch_size=2), tmp_path_factory.mktemp("fc"))


def latents(path: Path, *members: int) -> np.ndarray:
    store = LatentStore(path)
    return store.read(list(all_frames([0], range(8), members))).numpy()


@pytest.mark.slow
def test_members_of_a_store_of_latents_come_back(kept: Kept, tmp_path: Path):
    redraw(kept.latents, tmp_path / "again.zarr", [3, 1])  # by the model where it lay
    np.testing.assert_array_equal(latents(tmp_path / "again.zarr", 0, 1), latents(kept.latents, 1, 3))
    assert LatentStore(tmp_path / "again.zarr").layout.members.tolist() == [1, 3]


@pytest.mark.slow
def test_a_member_of_a_store_of_fields_comes_back_on_the_command_line(kept: Kept, tmp_path: Path):
    run(app, ["redraw", str(kept.fields), str(tmp_path / "again.zarr"), "--members", "4", "--model", str(kept.model)])
    again, whole = open_forecast(tmp_path / "again.zarr"), open_forecast(kept.fields)
    xr.testing.assert_identical(again.drop_attrs(deep=False), whole.sel(number=[4]).drop_attrs(deep=False))
    # and what was made again says itself how
    redraw(tmp_path / "again.zarr", tmp_path / "twice.zarr", [0], model=str(kept.model))
    xr.testing.assert_equal(open_forecast(tmp_path / "twice.zarr"), whole.sel(number=[0]))


@pytest.mark.slow
def test_a_file_of_tracks_is_enough(kept: Kept, tmp_path: Path):
    forecast = open_forecast(kept.fields)
    options = TrackOptions(detection=Detection(radius_deg=40.0, separation_deg=20.0))
    write_tracks(find_tracks(forecast, options, None), tmp_path / "tracks.nc")
    redraw(tmp_path / "tracks.nc", tmp_path / "again.zarr", [2], model=str(kept.model))
    xr.testing.assert_equal(open_forecast(tmp_path / "again.zarr"), forecast.sel(number=[2]))


@pytest.mark.slow
def test_a_number_beyond_the_ensemble_is_the_member_of_a_larger_one(kept: Kept, tmp_path: Path):
    redraw(kept.latents, tmp_path / "more.zarr", [1, 6], model=str(kept.model))
    np.testing.assert_array_equal(latents(tmp_path / "more.zarr", 0), latents(kept.latents, 1))
    assert LatentStore(tmp_path / "more.zarr").layout.members.tolist() == [1, 6]


def test_another_model_is_refused(kept: Kept, tmp_path: Path):
    expected = rf"with weights {kept.forecaster.name[-12:]}, and no other fits.*nature-t31 has weights \w{{12}}"
    with pytest.raises(ValueError, match=expected):
        redraw(kept.fields, tmp_path / "again.zarr", [0], model="nature-t31")
    assert not list(tmp_path.iterdir())


def test_other_states_are_refused(kept: Kept, model: ModelFolder, tmp_path: Path):
    other = xr.load_dataset(model.starts)
    other["2m_temperature"] += 0.01
    other.to_netcdf(tmp_path / "starts.nc")
    with pytest.raises(ValueError, match=r"states was '\w+', now '\w+'.*--source"):
        redraw(kept.fields, tmp_path / "again.zarr", [0], model=str(kept.model), source=tmp_path / "starts.nc")


def test_what_says_nothing_is_refused(kept: Kept, model: ModelFolder, tmp_path: Path):
    with pytest.raises(ValueError, match="does not say what its forecast was made from"):
        redraw(model.truth, tmp_path / "again.zarr", [0])
    with pytest.raises(FileNotFoundError, match="No forecast or tracks"):
        redraw(tmp_path / "none.zarr", tmp_path / "again.zarr", [0])
    store = shutil.copytree(kept.fields, tmp_path / "changed.zarr")
    (store / "checksums.json").unlink()
    group = zarr.open_group(store, mode="r+")
    record = json.loads(group.attrs["history"])
    group.attrs["history"] = json.dumps({**record, "options": {**record["options"], "colour": "red"}})
    zarr.consolidate_metadata(store)
    with pytest.raises(ValueError, match=r"are of another version.*colour"):
        redraw(store, tmp_path / "again.zarr", [0], model=str(kept.model))


@pytest.mark.slow
def test_gaps_are_filled_as_they_were(model: ModelFolder, tmp_path: Path):
    gaps = xr.load_dataset(model.starts).isel(time=[0])
    gaps["2m_temperature"][:] = np.nan
    unreal = gaps.attrs.pop("unreal")  # which the model's weather is from any states
    gaps.to_netcdf(tmp_path / "gaps.nc")
    request = ForecastRequest(source=tmp_path / "gaps.nc", output=tmp_path / "fc.zarr", members=2, days=1, fill="mean")
    make_forecast(request, model)
    redraw(tmp_path / "fc.zarr", tmp_path / "again.zarr", [1], model=str(model.path))
    whole, again = open_forecast(tmp_path / "fc.zarr"), open_forecast(tmp_path / "again.zarr")
    xr.testing.assert_equal(again, whole.sel(number=[1]))
    assert whole.attrs["unreal"] == again.attrs["unreal"] == unreal


@pytest.mark.parametrize("numbers", [[], [-1], [0, -1]])
def test_numbers_that_no_member_has_are_refused_before_all_work(numbers: list[int], tmp_path: Path):
    with pytest.raises(ValueError, match=r"Expected numbers of members from 0.*got \["):
        redraw(tmp_path / "none.zarr", tmp_path / "again.zarr", numbers)


@pytest.mark.slow
def test_two_processes_share_the_members(forks: None, kept: Kept, tmp_path: Path):
    output = tmp_path / "made/again.zarr"
    command = ["redraw", kept.fields, output, "--members", "0", "4", "--model", kept.model, "--json"]
    told = processes.run_ranks(Path(cli.__file__), 2, command, tmp_path)
    xr.testing.assert_equal(open_forecast(output), open_forecast(kept.fields).sel(number=[0, 4]))
    assert json.loads(told[0])["members"] == str(output)
    assert told[1] == ""  # the first process alone tells
    assert [path.name for path in output.parent.iterdir()] == ["again.zarr"]
