"""The how-tos of docs/extend.md, run: a model of another kind and step, a source and a metric of one's own."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import xarray as xr
import yaml

from data_pipelines.cli import app as data_app
from ladcast.cli import app, run
from ladcast.data.sources import initial_state
from ladcast.forecasting import forecaster as forecasters
from ladcast.forecasting.checkpoints import load_forecaster
from ladcast.released import ModelFolder
from ladcast.training import objectives
from ladcast.verification import statistics
from worlds import WEATHER, states_between_starts

PAGE = (Path(__file__).parents[1] / "docs/extend.md").read_text()
BLOCKS = re.findall(r"```(python|yaml)\n(.*?)```", PAGE, flags=re.DOTALL)
CODE = {re.match(r"# (\w+)\.py", code)[1]: code for language, code in BLOCKS if language == "python"}
RUN = next(yaml.safe_load(text) for language, text in BLOCKS if language == "yaml")
DIFFUSION = {
    "model": {
        "heads": 1,
        "head_dim": 32,
        "dual_blocks": 0,
        "single_blocks": 1,
        "refiner_blocks": 0,
        "patch_size": 2,
        "rope_axes_dim": [8, 12, 12],
    },
    "sampling": {"steps": 2},
    "stepper": {"kind": "diffusion"},
    "objective": {"kind": "diffusion"},
}
ONE_CALL = {
    **{name: section for name, section in DIFFUSION.items() if name != "sampling"},
    "stepper": {"kind": "one_call", "noise_features": 4},
    "objective": {"kind": "crps", "blocks": 2, "mean_weight": 0.1},
    # fast, so that its members differ after three steps by more than their files are precise
    "training": {
        "steps": 3,
        "batch_size": 2,
        "ema_decay": 0.0,
        "optimizer": {"learning_rate": 0.03, "warmup_steps": 1},
    },
}
STATES = 14


@pytest.fixture
def extension(request: pytest.FixtureRequest) -> Iterator[ModuleType]:
    """The module of a how-to, imported; what it added is taken back."""
    tables = (
        forecasters.STEPPERS,
        objectives.OBJECTIVES,
        initial_state.SOURCES,
        statistics.STATISTICS,
        statistics.METRICS,
    )
    kept = [dict(table) for table in tables]
    module = ModuleType(request.param)
    sys.modules[request.param] = module  # dataclasses look their module up
    exec(compile(CODE[request.param], f"{request.param}.py", "exec"), module.__dict__)
    yield module
    del sys.modules[request.param]
    for table, before in zip(tables, kept, strict=True):
        table.clear()
        table.update(before)


@pytest.fixture(scope="module")
def store(weather_model: ModelFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """6-hourly states on the way from one start state of a model to the other, and their latents."""
    path = states_between_starts(tmp_path_factory.mktemp("data") / "states.zarr", STATES, weather_model)
    run(data_app, ["encode", str(path), str(weather_model.path), str(path.parent / "latents.zarr")])
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("extension", "changes"),
    [("convolutional", {}), ("convolutional", DIFFUSION), ("convolutional", ONE_CALL)],
    ids=["convolutional", "diffusion", "one call"],
    indirect=["extension"],
)
def test_a_model_of_another_kind_and_step_goes_through_every_command(
    extension: ModuleType,
    changes: dict,
    store: Path,
    weather_model: ModelFolder,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    config = {
        **RUN,
        "latents": str(store.parent / "latents.zarr"),
        "autoencoder": str(weather_model.path),
        "train": {"start": "2001-01-01", "end": "2001-01-31"},
        "training": {"steps": 3, "batch_size": 2, "checkpoint_every": 2},
        "trackers": [],
        "output": str(tmp_path / "run"),
        **changes,
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    run(app, ["train", "forecaster", str(tmp_path / "run.yaml"), "--device", "cpu"])
    model = tmp_path / "run" / config["name"]
    assert load_forecaster(model, "cpu").frames.step == np.timedelta64(12, "h")

    fields, latents = tmp_path / "fields.zarr", tmp_path / "latents.zarr"
    request = ["2001-01-01T06", "--model", str(model), "--source", str(store), "--days", "2", "--members", "3"]
    run(app, ["plan", "forecast", *request, "--tflops", "0.01"])
    run(app, ["forecast", *request, "--output", str(fields), "--no-draw"])
    run(app, ["forecast", *request, "--output", str(latents), "--keep", "latents", "--no-draw"])
    forecast = xr.open_zarr(fields, decode_timedelta=True)
    leads = forecast["prediction_timedelta"].values / np.timedelta64(1, "h")
    assert leads.tolist() == [0, 12, 24, 36, 48]
    decoded = xr.open_dataset(latents, engine="ladcast", model=str(model))
    xr.testing.assert_allclose(decoded["temperature"].drop_attrs(), forecast["temperature"].drop_attrs())
    assert (forecast["temperature"].isel(prediction_timedelta=slice(1, None)).std("number") > 0).all()

    run(app, ["score", str(fields), "--truth", str(store), "--output", str(tmp_path / "scores.nc")])
    scores = xr.open_dataset(tmp_path / "scores.nc")
    assert np.isfinite(scores["fair_crps"].isel(system=0, season=0).sel(channel="z500")).all()
    run(app, ["plot", str(fields), "--truth", str(store), "--lead-days", "2", "--output", str(tmp_path / "figure.png")])
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    run(app, ["show", str(model)])
    assert "12 h apart" in capsys.readouterr().out


@pytest.mark.parametrize("extension", ["convolutional"], indirect=True)
def test_a_network_of_one_call_has_no_steps_to_set(extension: ModuleType):
    stepper = extension.ConvolutionalStepper.build(extension.ConvolutionalConfig(latent_channels=4))
    with pytest.raises(ValueError, match="kind 'convolutional' has no setting steps; it has none"):
        stepper.with_settings(steps=5)


@pytest.mark.parametrize("extension", ["my_archive"], indirect=True)
def test_a_source_of_ones_own_is_opened_in_our_names_and_units(extension: ModuleType, store: Path, tmp_path: Path):
    states = xr.open_zarr(store, consolidated=False)
    theirs = states[["temperature"]].rename(temperature="t")
    theirs["mslp_hpa"] = states["mean_sea_level_pressure"] / 100
    theirs.to_zarr(tmp_path / "all.zarr", consolidated=False)
    source = initial_state.make_source("my-archive", folder=str(tmp_path))
    opened = source.open(states["time"].values[:2], WEATHER.channels)
    for name in ("temperature", "mean_sea_level_pressure"):
        np.testing.assert_allclose(opened[name], states[name].isel(time=slice(2)), rtol=1e-6)
    refusal = source.offer(np.datetime64("1999-01-01")).refusal
    assert "covers 2001-01-01" in refusal


@pytest.mark.parametrize("extension", ["my_metric"], indirect=True)
def test_a_metric_of_ones_own_is_scored(extension: ModuleType):
    from ladcast.verification import score

    generator = np.random.default_rng(0)
    coordinates = {"latitude": np.linspace(-80, 80, 9), "longitude": np.arange(16) * 22.5}
    times = {"time": np.array(["2001-01-01"], "datetime64[ns]"), "prediction_timedelta": [np.timedelta64(0, "ns")]}
    dims = ("time", "prediction_timedelta", "number", "latitude", "longitude")
    members = generator.normal(size=(1, 1, 3, 9, 16)).astype(np.float32) + 280
    forecast = xr.Dataset({"2m_temperature": (dims, members)}, {**times, "number": range(3), **coordinates})
    truth = forecast.isel(prediction_timedelta=0, number=1, drop=True)
    far = score(forecast, truth + 100).metrics()["range_coverage"]
    near = score(forecast, truth).metrics()["range_coverage"]
    assert (near == 1).all()
    assert (far == 0).all()
