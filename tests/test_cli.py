"""The command line: each wrong input ends in one message that says what to do."""

import io
import json
import shutil
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from ladcast.checkpoint import list_data
from ladcast.cli import app, run
from ladcast.released import ModelFolder
from ladcast.run import ExitCode

QUICK = ["--members", "2", "--days", "1"]


def fail(*tokens: str, code: ExitCode = ExitCode.INPUT) -> str:
    """Runs a command that must fail with this code and returns its message."""
    with redirect_stderr(io.StringIO()) as messages, pytest.raises(SystemExit) as stopped:
        run(app, [*tokens])
    assert stopped.value.code == code
    return messages.getvalue()


@pytest.fixture(scope="session")
def quick(weather_model: ModelFolder) -> list[str]:
    """The options of a forecast that takes little."""
    return [*QUICK, "--model", str(weather_model.path)]


@pytest.fixture
def source(weather_model: ModelFolder, tmp_path: Path) -> Path:
    """A file of start states that the tests can break."""
    assert weather_model.starts is not None
    path = tmp_path / "start.nc"
    xr.load_dataset(weather_model.starts).isel(time=[0]).to_netcdf(path)
    return path


def broken(source: Path, change: Callable[[xr.Dataset], xr.Dataset]) -> Path:
    ds = xr.load_dataset(source)
    path = source.with_name("broken.nc")
    change(ds).to_netcdf(path)
    return path


def celsius(ds: xr.Dataset) -> xr.Dataset:
    return ds.assign(temperature=(ds["temperature"] - 273.15).assign_attrs(units="degC"))


def unlabelled_hectopascal(ds: xr.Dataset) -> xr.Dataset:
    return ds.assign(mean_sea_level_pressure=ds["mean_sea_level_pressure"].drop_attrs() / 100)


def geopotential_height(ds: xr.Dataset) -> xr.Dataset:
    return ds.assign(geopotential=ds["geopotential"].drop_attrs() / 9.80665)


def all_land(ds: xr.Dataset) -> xr.Dataset:
    return ds.assign(sea_surface_temperature=ds["sea_surface_temperature"] * np.nan)


def with_gap(ds: xr.Dataset) -> xr.Dataset:
    return ds.assign(v_component_of_wind=ds["v_component_of_wind"].where(ds["level"] != 300))


CHANGES = {
    "variable": (lambda ds: ds.drop_vars("2m_temperature"), "2m_temperature"),
    "level": (lambda ds: ds.sel(level=[lev for lev in ds["level"].values if lev != 850]), "850"),
    "celsius": (celsius, "degC"),
    "hectopascal": (unlabelled_hectopascal, "mean_sea_level_pressure"),
    "height": (geopotential_height, "geopotential"),
    "all_land": (all_land, "NaN everywhere"),
    "gap": (with_gap, "v300"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("change", "named"), CHANGES.values(), ids=CHANGES)
def test_a_broken_analysis_is_refused_and_nothing_is_written(change, named, quick, source: Path, tmp_path: Path):
    output = tmp_path / "fc.zarr"
    message = fail("forecast", "--source", str(broken(source, change)), "--output", str(output), *quick)
    assert named in message
    assert not list(tmp_path.glob("fc.zarr*"))


@pytest.mark.slow
def test_other_orders_of_the_same_analysis_give_the_same_forecast(quick: list[str], source: Path, tmp_path: Path):
    orders = {
        "one": lambda ds: ds,
        "north_to_south": lambda ds: ds.isel(latitude=slice(None, None, -1)),
        "from_180_west": lambda ds: ds.assign_coords(longitude=(ds["longitude"] + 180) % 360 - 180).sortby("longitude"),
        "other_order": lambda ds: ds.transpose("level", "latitude", "longitude", "time"),
    }
    made = {}
    for name, change in orders.items():
        output = tmp_path / f"{name}.zarr"
        run(app, ["forecast", "--source", str(broken(source, change)), "--output", str(output), *quick, "--no-draw"])
        made[name] = xr.open_zarr(output, chunks=None, decode_timedelta=True).load()
    for name in orders:
        xr.testing.assert_equal(made["one"], made[name])


@pytest.mark.slow
def test_overwriting_with_a_wrong_request_loses_nothing(tmp_path: Path):
    (tmp_path / "fc.zarr").mkdir()
    fail("forecast", "1812-01-01T00", "--overwrite", "--output", str(tmp_path / "fc.zarr"))
    assert (tmp_path / "fc.zarr").is_dir()


def test_an_unknown_time_lists_those_there_are(tmp_path: Path):
    message = fail("forecast", "1812-01-01T00", "--output", str(tmp_path / "fc.zarr"))
    assert "1812-01-01T00" in message
    assert "nearest" in message


def test_a_time_that_is_none_shows_the_form(tmp_path: Path):
    assert "2011-10-11T00" in fail("forecast", "yesterday", "--output", str(tmp_path / "fc.zarr"))


def test_an_unknown_model_lists_the_embedded_ones():
    assert "nature-t31" in fail("forecast", "--model", "nature-t32")


@pytest.mark.slow
def test_a_start_state_is_planned_and_put_together(
    quick: list[str], source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    start = str(xr.load_dataset(source)["time"].values[0])[:13]
    output = tmp_path / "start.zarr"
    run(app, ["analysis", start, "--source", str(source), "--output", str(output), *quick[-2:]])
    assert "z300..z850 (3)" in capsys.readouterr().out
    run(app, ["forecast", "--source", str(output), "--output", str(tmp_path / "fc.zarr"), *quick, "--no-draw"])
    without = broken(source, lambda ds: ds.drop_vars("2m_temperature"))
    assert "t2m" in fail("analysis", start, "--source", str(without), *quick[-2:])


@pytest.mark.slow
def test_leads_between_need_the_hours_before(quick: list[str], source: Path, tmp_path: Path):
    output = str(tmp_path / "fc.zarr")
    message = fail("forecast", "--source", str(source), "--output", output, "--lead-step", "3", *quick)
    assert "leave --lead-step out" in message
    ds = xr.load_dataset(source)
    earlier = ds.assign_coords(time=ds["time"] - np.timedelta64(3, "h"))
    xr.concat([earlier, ds], "time").to_netcdf(source.with_name("two.nc"))
    start = str(ds["time"].values[0])[:13]
    two = ["--source", str(source.with_name("two.nc")), "--output", output, "--lead-step", "3"]
    run(app, ["forecast", start, *two, *quick, "--no-draw"])
    leads = xr.open_zarr(output, chunks=None, decode_timedelta=True)["prediction_timedelta"].values
    np.testing.assert_array_equal(leads, np.arange(0, 25, 3) * np.timedelta64(1, "h"))
    assert not list(tmp_path.glob("*.png"))


def test_a_missing_source_is_named(tmp_path: Path):
    assert "nowhere.nc" in fail("forecast", "--source", str(tmp_path / "nowhere.nc"))


def test_a_missing_forecast_is_named(tmp_path: Path):
    (tmp_path / "fc.zarr.partial").mkdir()
    message = fail("plot", str(tmp_path / "fc.zarr"))
    assert "unfinished" in message


@pytest.mark.slow
def test_what_the_page_needs_is_known_before_the_forecast_is_made(quick: list[str], tmp_path: Path, capsys):
    output = str(tmp_path / "fc.zarr")
    assert "such as Oslo" in fail("forecast", "--output", output, *quick, "--place", "Pompeii")
    assert not list(tmp_path.iterdir())
    run(app, ["forecast", "--output", output, *quick])
    assert f"page {tmp_path / 'fc.png'}" in capsys.readouterr().out
    assert xr.open_zarr(output, chunks=None).attrs["unreal"].startswith("Model weather")


def test_an_output_that_is_no_zarr_store_is_refused(tmp_path: Path):
    message = fail("forecast", "--output", str(tmp_path / "fc.nc"), *QUICK)
    assert f"`ladcast export {tmp_path}/fc.zarr {tmp_path}/fc.nc`" in message
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_no_forecast_store_is_named(source: Path, tmp_path: Path):
    for command in (["plot"], ["score", "--truth", str(source)]):
        assert "start.nc exists, but is no forecast: expected lead times" in fail(
            *command[:1], str(source), *command[1:]
        )
    (tmp_path / "fc.zarr.partial").mkdir()
    assert "fc.zarr.partial is unfinished. Run the same" in fail("show", str(tmp_path / "fc.zarr.partial"))


def test_several_sources_follow_one_option():
    _, found, _ = app.parse_args(["analysis", "2026-11-22T00", "--source", "a", "b"], exit_on_error=False)
    assert found.arguments["source"] == ("a", "b")


def test_leads_of_the_maps_may_be_hours():
    _, found, _ = app.parse_args(["plot", "fc.zarr", "--lead-days", "0.25"], exit_on_error=False)
    assert found.arguments["lead_days"] == 0.25


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_named(tmp_path: Path):
    message = fail("forecast", "--output", str(tmp_path / "fc.zarr"), *QUICK, "--device", "cuda")
    assert "Expected a GPU" in message
    assert "--device cpu" in message
    config = Path(__file__).parents[1] / "configs/train/nature_forecaster.yaml"
    assert "Expected a GPU" in fail("train", "forecaster", str(config), "--device", "cuda")


def test_an_unknown_config_key_suggests_the_nearest(tmp_path: Path):
    config = Path(__file__).parents[1] / "configs/train/nature_forecaster.yaml"
    message = fail("train", "forecaster", str(config), "--set", "training.step=5")
    assert "Did you mean 'steps'?" in message


def test_show_describes_the_embedded_model(capsys: pytest.CaptureFixture[str]):
    run(app, ["show"])
    shown = capsys.readouterr().out
    assert "84: geopotential" in shown
    assert "64 x 32" in shown


def test_each_kind_of_failure_has_its_exit_code(tmp_path: Path):
    (tmp_path / "fc.zarr").mkdir()
    exists = fail("forecast", "--output", str(tmp_path / "fc.zarr"), *QUICK, code=ExitCode.OUTPUT)
    assert "--overwrite" in exists
    assert "--membrs" in fail("forecast", "--membrs", "3", code=ExitCode.USAGE)
    assert "three" in fail("forecast", "--members", "three", code=ExitCode.USAGE)
    assert "at least 1" in fail("forecast", "--members", "0")


@pytest.mark.slow
def test_json_is_all_that_stands_on_stdout(quick: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    output = tmp_path / "fc.zarr"
    run(app, ["forecast", "--output", str(output), *quick, "--no-draw", "--json"])
    shown = capsys.readouterr()
    results = json.loads(shown.out)
    assert results["forecast"] == str(output)
    assert len(results["scores"]["ladcast"]["z500"]["fair_crps"]) == len(results["scores"]["lead_hours"]) == 4
    assert "persistence" in shown.err
    run(app, ["export", str(output), str(tmp_path / "fc.nc"), "--variables", "z", "--levels", "500", "--json"])
    assert json.loads(capsys.readouterr().out) == {"export": str(tmp_path / "fc.nc")}


TOO_LARGE = {
    "members": (["--members", "1000000"], "are free"),
    "batch": (["--batch-size", "1000000000"], "1000000000 members at once take"),
    "steps": (["--steps", "100000000"], "steps of at most 10000, got 100000000"),
    "days": (["--days", "200000"], "days of at most 36500, got 200000"),
    "more days": (["--days", str(10**21)], "days of at most 36500"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("tokens", "message"), TOO_LARGE.values(), ids=TOO_LARGE)
def test_what_memory_and_disk_cannot_hold_is_refused_at_once(tokens: list[str], message: str, tmp_path: Path):
    assert message in fail("forecast", "--output", str(tmp_path / "fc.zarr"), *tokens)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def listed_model(weather_model: ModelFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose manifest has the digests of its states, which a test may spoil."""
    model = Path(shutil.copytree(weather_model.path, tmp_path_factory.mktemp("models") / "listed"))
    list_data(model, "starts.nc", "truth.nc")
    return model


def test_a_changed_file_of_the_model_is_refused(listed_model: Path):
    model = listed_model
    truth = xr.load_dataset(model / "truth.nc")
    truth.assign({"2m_temperature": truth["2m_temperature"] + 10}).to_netcdf(model / "truth.nc")
    for command in (["forecast", *QUICK, "--model", str(model)], ["verify", str(model)]):
        assert "truth.nc" in fail(*command)
    manifest = json.loads((model / "manifest.json").read_text())
    del manifest["sha256_of_data"]  # as in folders of earlier versions
    (model / "manifest.json").write_text(json.dumps(manifest))
    assert ModelFolder(model).truth == model / "truth.nc"


@pytest.fixture
def short_truth(listed_model: Path) -> Path:
    """The folder of a model with the truth of one day."""
    model = listed_model
    xr.load_dataset(model / "truth.nc").isel(time=slice(0, 5)).to_netcdf(model / "truth.nc")
    list_data(model, "truth.nc")
    return model


@pytest.mark.slow
def test_a_forecast_goes_on_with_what_is_missing_beside_its_store(
    short_truth: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Killed before the scores, before the page, and not at all; with a day more than there is truth for."""
    from ladcast.commands import scoring
    from ladcast.plots import style

    monkeypatch.chdir(tmp_path)
    command = ["forecast", "--members", "2", "--days", "2", "--model", str(short_truth)]

    def kill(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(scoring, "score_forecasts", kill)
        assert "run the same command again" in fail(*command, code=ExitCode.INTERRUPTED)
    made = {path.name: path.read_bytes() for path in (tmp_path / "forecast.zarr").rglob("*") if path.is_file()}
    with monkeypatch.context() as patch:
        patch.setattr(style, "save_figure", kill)
        fail(*command, code=ExitCode.INTERRUPTED)
    assert "truth: 4 of 8 lead times are scored, without 30 h, 36 h, 42 h, 48 h." in capsys.readouterr().out
    scores = (tmp_path / "forecast.scores.nc").read_bytes()
    assert xr.load_dataset(tmp_path / "forecast.scores.nc").sizes["prediction_timedelta"] == 4
    run(app, command)
    assert {path.name for path in tmp_path.iterdir()} == {"forecast.zarr", "forecast.scores.nc", "forecast.png"}
    assert (tmp_path / "forecast.scores.nc").read_bytes() == scores
    assert made == {path.name: path.read_bytes() for path in (tmp_path / "forecast.zarr").rglob("*") if path.is_file()}
    assert "add --overwrite" in fail(*command, code=ExitCode.OUTPUT)
    (tmp_path / "forecast.png").unlink()
    assert "options.seed was 0, now 1" in fail(*command, "--seed", "1", code=ExitCode.OUTPUT)


def test_a_failure_is_json_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        run(app, ["plot", str(tmp_path / "fc.zarr"), "--json"])
    shown = capsys.readouterr()
    assert json.loads(shown.out) == {"error": f"No forecast at {tmp_path / 'fc.zarr'}.", "exit_code": 3}
    assert "No forecast" in shown.err


@pytest.mark.slow
def test_a_dry_run_writes_nothing_and_shows_the_plan(
    quick: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    output = tmp_path / "fc.zarr"
    run(app, ["forecast", "--output", str(output), "--device", "cpu", *quick, "--dry-run"])
    assert "2 members x 4 lead times" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_an_interruption_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ladcast.api.open_forecast", interrupt)
    (tmp_path / "fc.zarr").mkdir()
    assert "run the same command again" in fail("plot", str(tmp_path / "fc.zarr"), code=ExitCode.INTERRUPTED)


@pytest.mark.slow
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_can_complete_commands_and_options(shell: str):
    script = app.generate_completion(shell=shell)
    for word in ("forecast", "export", "plan", "lead-step"):
        assert word in script
