"""One forecast, however many processes make it and however it is kept."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import processes
from ladcast import cli
from ladcast.forecasting import ForecastRequest
from ladcast.forecasting.checkpoints import load_forecaster
from ladcast.forecasting.stepper import FrameCounts
from ladcast.forecasts.make import choose_batch, make_forecast
from ladcast.released import ModelFolder, find_model
from ladcast.resumable import Unfinished, sole_writer
from ladcast.training.distributed import Ranks
from worlds import killed_after_one_step

OPTIONS = {"--members": "3", "--days": "1", "--batch-size": "1"}
COMMAND = ["forecast", *(word for option in OPTIONS.items() for word in option), "--no-draw", "--json", "--output"]


def request(output: Path, **changes: object) -> ForecastRequest:
    settings = {"members": 3, "days": 1, "batch_size": 1, "output": output}
    return ForecastRequest(**(settings | changes))


def read(path: Path, **options: object) -> xr.Dataset:
    return xr.open_dataset(path, decode_timedelta=True, **options).load()


def test_a_second_forecast_at_once_says_who_writes(weather_model: ModelFolder, tmp_path: Path):
    with sole_writer(tmp_path / "fc.zarr"):
        for overwrite in (False, True):
            with pytest.raises(
                FileExistsError, match=rf"being written by host .*, process {os.getpid()}\. Wait for it"
            ):
                make_forecast(request(tmp_path / "fc.zarr", overwrite=overwrite), weather_model)
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def alone(weather_model: ModelFolder, tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    output = tmp_path_factory.mktemp("alone") / "fc.zarr"
    make_forecast(request(output), weather_model)
    return read(output, engine="zarr")


@pytest.mark.slow
def test_two_processes_make_the_forecast_of_one(
    forks: None, alone: xr.Dataset, weather_model: ModelFolder, tmp_path: Path
):
    output = tmp_path / "made/fc.zarr"
    command = [*COMMAND, output, "--model", weather_model.path]
    told = processes.run_ranks(Path(cli.__file__), 2, command, tmp_path)
    xr.testing.assert_equal(read(output, engine="zarr"), alone)
    assert json.loads(told[0])["forecast"] == str(output)
    assert told[1] == ""  # the first process alone scores and tells
    assert {path.name for path in output.parent.iterdir()} == {"fc.zarr", "fc.scores.nc"}


@pytest.mark.slow
def test_what_the_first_process_refuses_all_refuse_in_its_words(
    forks: None, weather_model: ModelFolder, tmp_path: Path
):
    """It alone measures, chooses and holds the output; a process that waited for one that is gone would hang or die."""
    program = tmp_path / "refused.py"
    program.write_text(
        "import sys\nfrom pathlib import Path\n"
        "from ladcast.forecasting import ForecastRequest\n"
        "from ladcast.forecasts.make import make_forecast\nfrom ladcast.released import ModelFolder\n"
        "request = ForecastRequest(output=Path(sys.argv[2]), members=2, days=1, batch_size=1, seconds=1e-9)\n"
        "try:\n    make_forecast(request, ModelFolder(Path(sys.argv[1])))\n"
        "except (ValueError, FileExistsError) as error:\n    print(error)\n"
    )
    (first, second) = processes.run_ranks(program, 2, [weather_model.path, tmp_path / "fc.zarr"], tmp_path)
    assert first.startswith(f"No forecast of {weather_model.path.name} fits --seconds 1e-09 here")
    assert second == first  # to the digits of what was measured
    with sole_writer(tmp_path / "fc.zarr"):
        told = processes.run_ranks(program, 2, [weather_model.path, tmp_path / "fc.zarr"], tmp_path)
    assert told[0] == told[1] != first
    assert "is being written by host" in told[0]


@pytest.mark.slow
def test_latents_decode_to_the_fields_that_would_have_been_written(
    alone: xr.Dataset, weather_model: ModelFolder, tmp_path: Path
):
    from ladcast.forecasts.engine import LatentEngine

    make_forecast(request(tmp_path / "fc.latents.zarr", keep="latents"), weather_model)
    xr.testing.assert_equal(read(tmp_path / "fc.latents.zarr", engine=LatentEngine), alone)


@pytest.mark.slow
def test_a_batch_that_fits_is_found(weather_model: ModelFolder, tmp_path: Path):
    make_forecast(request(tmp_path / "fc.zarr", batch_size=0), weather_model)
    assert '"batch_size": 3' in read(tmp_path / "fc.zarr", engine="zarr").attrs["history"]


def test_a_batch_is_that_of_the_run_that_goes_on_and_leaves_work_for_all(
    weather_model: ModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    forecaster = load_forecaster(weather_model.path, "cpu")
    assert choose_batch(request(tmp_path / "fc.zarr", members=8), forecaster, 1, Ranks()) == 8
    monkeypatch.setattr(Ranks, "gather", lambda ranks, value: [value] * ranks.size)
    assert choose_batch(request(tmp_path / "fc.zarr", members=8), forecaster, 2, Ranks(size=4)) == 4
    begun = {"options": {"batch_size": 5}}
    Unfinished(tmp_path / "fc.zarr", begun).start(lambda store: store.mkdir())
    assert choose_batch(request(tmp_path / "fc.zarr", members=8), forecaster, 1, Ranks()) == 5


def test_what_cannot_be_is_refused_before_anything_is_written(tmp_path: Path):
    for wrong in ({"redraws": -1}, {"noise_scale": float("nan")}, {"perturbation": -1.0}, {"seed": 2**63}):
        with pytest.raises(ValueError, match="Expected"):
            request(tmp_path / "fc.zarr", **wrong)
    with pytest.raises(ValueError, match="has no setting steps"):
        make_forecast(request(tmp_path / "fc.zarr", steps=3), find_model("nature-t31"))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_several_initial_times_go_into_one_store(alone: xr.Dataset, weather_model: ModelFolder, tmp_path: Path):
    assert weather_model.starts is not None
    with xr.open_dataset(weather_model.starts) as starts:
        times = starts["time"].values
    make_forecast(request(tmp_path / "fc.zarr", times=tuple(str(time)[:13] for time in times)), weather_model)
    both = read(tmp_path / "fc.zarr", engine="zarr")
    np.testing.assert_array_equal(both["time"].values, times)
    xr.testing.assert_equal(both.isel(time=[0]), alone)


@pytest.mark.slow
def test_a_forecast_without_lead_time_0_stays_so_and_is_said_to(
    alone: xr.Dataset, weather_model: ModelFolder, tmp_path: Path, capsys
):
    """Begun or complete, as earlier versions made it and `--no-analysis` does; `--overwrite` makes it anew."""
    output = tmp_path / "fc.zarr"
    with killed_after_one_step():
        make_forecast(request(output, analysis=False), weather_model)
    with pytest.raises(FileExistsError, match="kind of store was 'fields', now 'latents'"):
        make_forecast(request(output, keep="latents"), weather_model)
    assert "lead time 0" not in capsys.readouterr().err
    make_forecast(request(output), weather_model)
    said = capsys.readouterr().err
    assert f"{output} goes on without lead time 0, as it was begun; --overwrite makes it with it" in said
    assert "blocks: 2/2" in said  # one of three batches was made before
    xr.testing.assert_equal(read(output, engine="zarr"), alone.isel(prediction_timedelta=slice(1, None)))

    make_forecast(request(output), weather_model)
    said = capsys.readouterr().err
    assert f"{output} has no lead time 0, as it was made; --overwrite makes it with it" in said
    make_forecast(request(output, analysis=False), weather_model)
    assert "lead time 0" not in capsys.readouterr().err
    make_forecast(request(output, overwrite=True), weather_model)
    xr.testing.assert_equal(read(output, engine="zarr"), alone)


@pytest.mark.slow
def test_an_unfinished_other_forecast_takes_no_lead_time_from_the_one_that_overwrites_it(
    alone: xr.Dataset, weather_model: ModelFolder, tmp_path: Path
):
    other = {"model": "other", "options": {"batch_size": 1}, "kind of store": "fields"}
    Unfinished(tmp_path / "fc.zarr", other).start(lambda store: store.mkdir())
    make_forecast(request(tmp_path / "fc.zarr", overwrite=True), weather_model)
    xr.testing.assert_equal(read(tmp_path / "fc.zarr", engine="zarr"), alone)


def test_large_forecasts_are_kept_as_latents_unless_asked_otherwise(tmp_path: Path):
    frames = FrameCounts()
    large = request(tmp_path / "fc.zarr", members=50, days=15)
    assert large.keeps_latents(frames, 1)
    assert not request(tmp_path / "fc.zarr").keeps_latents(frames, 1)
    assert not replace(large, keep="fields").keeps_latents(frames, 1)
