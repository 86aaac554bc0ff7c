"""From a store to a forecaster by the commands of docs/training.md, with networks of a few thousand weights."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from data_pipelines.cli import app as data_app
from ladcast.cli import app, run
from ladcast.forecasting.checkpoints import load_forecaster
from ladcast.forecasting.diffusion import DiffusionStepper
from ladcast.forecasting.stepper import FrameCounts
from ladcast.recipes import ForecastValidation, StateStore
from ladcast.recipes.forecaster import validate_forecaster
from ladcast.released import find_model
from worlds import states_between_starts

pytestmark = pytest.mark.slow

CONFIGS = Path(__file__).parents[1] / "configs/train"
FRAMES = 14
PERIODS = ["train.start=2001-01-01", "train.end=2001-01-31"]
SHORT = ["training.steps=3", "training.batch_size=2", "training.compile=false", "data_on_gpu=false"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 6-hourly states on the way from one start state of the embedded model to the other."""
    return states_between_starts(tmp_path_factory.mktemp("data") / "nature.zarr", FRAMES)


@pytest.fixture(scope="module")
def model(store: Path) -> Path:
    """The forecaster that the whole chain leaves."""
    folder = store.parent
    statistics, latents = folder / "statistics.json", folder / "latents.zarr"
    run(data_app, ["statistics", str(store), str(statistics), "--grid", "64x33-south"])
    size = ["model.latent_channels=4", "model.widths=[8,8]", "model.blocks=[1,1]"]
    short = [*SHORT, "training.checkpoint_every=2"]
    settings = [*PERIODS, *short, "validation.start=2001-01-01", "validation.end=2001-01-02", *size]
    train("autoencoder", folder, [f"data.path={store}", f"statistics={statistics}", *settings])
    run(data_app, ["encode", str(store), str(folder / "runs_autoencoder/autoencoder"), str(latents)])
    size = ["model.heads=1", "model.single_blocks=1", "name=tiny"]  # a token is a latent cell, with all its frames
    validation = [
        f"validation.store.path={store}",
        "validation.starts=[2001-01-02T00]",
        "validation.members=2",
        "validation.days=1",
        "validation.variables=[z500]",
        "sampling.steps=2",
    ]
    source = [f"latents={latents}", f"autoencoder={folder / 'runs_autoencoder/autoencoder'}"]
    train("forecaster", folder, [*source, *PERIODS, *short, *size, *validation])
    return folder / "runs_forecaster/tiny"


def train(which: str, folder: Path, settings: list[str]) -> None:
    overrides = [text for setting in (*settings, f"output={folder / f'runs_{which}'}") for text in ("--set", setting)]
    run(app, ["train", which, str(CONFIGS / f"nature_{which}.yaml"), *overrides, "--device", "cpu"])


def test_the_chain_leaves_a_forecaster(model: Path, store: Path, tmp_path: Path):
    output = tmp_path / "fc.zarr"
    request = ["--days", "1", "--members", "2", "--steps", "2", "--source", str(store), "--output", str(output)]
    run(app, ["forecast", "2001-01-02T06", "--model", str(model), *request])
    assert np.isfinite(xr.open_zarr(output, decode_timedelta=True)["temperature"].values).all()


def test_latents_of_the_forecaster_have_the_spread_it_was_trained_for(model: Path, store: Path):
    codec = load_forecaster(model, "cpu").codec
    raw = xr.open_zarr(store.parent / "latents.zarr")["latent"].values
    scaled = codec.latent_scale.apply(torch.from_numpy(raw))
    torch.testing.assert_close(scaled.mean(dim=(0, 2, 3)), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(scaled.std(dim=(0, 2, 3)), torch.full((4,), 0.5), atol=1e-3, rtol=0)


def test_states_may_stay_on_disk(model: Path, store: Path, tmp_path: Path):
    settings = [
        *PERIODS,
        f"data.path={store}",
        f"statistics={store.parent / 'statistics.json'}",
        "validation.start=2001-01-01",
        "validation.end=2001-01-02",
        "model.latent_channels=4",
        "model.widths=[8,8]",
        "model.blocks=[1,1]",
        *SHORT,
        "data_on_disk=true",
    ]
    train("autoencoder", tmp_path, settings)
    rows = [json.loads(line) for line in (tmp_path / "runs_autoencoder/log.jsonl").read_text().splitlines()]
    held = (store.parent / "runs_autoencoder/log.jsonl").read_text().splitlines()
    losses = [[row["loss"] for row in log if "loss" in row] for log in (rows, map(json.loads, held))]
    np.testing.assert_allclose(*losses, rtol=1e-3)  # memory holds half precision


def test_the_log_has_the_loss_and_the_scores_of_real_forecasts(model: Path):
    rows = [json.loads(line) for line in (model.parent / "log.jsonl").read_text().splitlines()]
    assert any("loss" in row for row in rows)
    assert any("z500_crps_1d" in row for row in rows)


def test_validation_leaves_maps_to_look_at(model: Path, store: Path):
    for run_folder in (model.parent, store.parent / "runs_autoencoder"):
        maps = sorted((run_folder / "maps").glob("*.png"))
        assert [path.stem for path in maps] == ["step-0000000002", "step-0000000003"]
        assert all(path.stat().st_size > 50_000 for path in maps)


def test_weights_are_not_taken_for_those_of_other_statistics(model: Path, store: Path, capsys):
    folder, other = store.parent, store.parent / "other.json"
    statistics = json.loads((folder / "statistics.json").read_text())
    for numbers in statistics["channels"].values():
        numbers["std"] *= 2
    other.write_text(json.dumps(statistics))
    size = ["model.latent_channels=4", "model.widths=[8,8]", "model.blocks=[1,1]"]
    short = [*SHORT, "training.checkpoint_every=2"]
    period = [*PERIODS, "validation.start=2001-01-01", "validation.end=2001-01-02"]
    settings = [f"data.path={store}", f"statistics={other}", *period, *size, *short]
    kept = ["part=decoder", f"initial={folder / 'runs_autoencoder/autoencoder'}"]
    for given, message in (
        (settings, "statistics was"),
        ([*settings, *kept], "runs_autoencoder/autoencoder was trained with other statistics"),
    ):
        with pytest.raises(SystemExit):
            train("autoencoder", folder, given)
        assert message in capsys.readouterr().err


def test_validation_needs_no_truth_beyond_its_last_day(model: Path, store: Path):
    """Two calls of three frames end half a day after the day, and where the store has no state."""
    forecaster = load_forecaster(model, "cpu")
    own = forecaster.stepper.config
    shape = replace(own.transformer, frames_per_token=3)
    stepper = DiffusionStepper.build(replace(own, transformer=shape, frames=FrameCounts(future=3), change_std=None))
    validation = ForecastValidation(StateStore(store, "64x33-south"), ("2001-01-03T00",), members=2, days=1)
    found = validate_forecaster(replace(forecaster, stepper=stepper), validation)
    assert np.isfinite(found.numbers["z500_crps_1d"])


def test_latents_of_another_autoencoder_are_refused(
    model: Path, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    other = find_model("nature-t31").path
    with pytest.raises(SystemExit):
        train("forecaster", tmp_path, [f"latents={store.parent / 'latents.zarr'}", f"autoencoder={other}", *PERIODS])
    assert "another autoencoder" in capsys.readouterr().err
