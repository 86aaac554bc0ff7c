"""`ladcast evaluate`: the embedded model, scored while it forecasts; stopped and gone on, whole and in parts."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from cyclopts import CycloptsError

from ladcast.cli import app, run
from ladcast.commands import evaluation
from ladcast.commands.evaluation import make_and_score, reconstruction
from ladcast.commands.options import EvaluationRequest, Scoring
from ladcast.data.store import open_store
from ladcast.forecasting.checkpoints import load_forecaster
from ladcast.released.registry import find_model
from ladcast.verification.archive import merge_sums
from ladcast.verification.bootstrap import FLOOR

MODEL = find_model("nature-t31")
REQUEST = EvaluationRequest("2000-01-01", "2000-01-02", every=24, members=2, days=1, steps=2)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every 6 hours a blend of the model's two start states: weather enough to run on."""
    assert MODEL.starts is not None
    states = xr.load_dataset(MODEL.starts)
    times = np.arange("2000-01-01", "2000-01-03T06", 6, dtype="datetime64[h]").astype("datetime64[ns]")
    share = xr.DataArray(np.linspace(0, 1, len(times)), dims="time")
    static = [name for name in states if "time" not in states[name].dims]
    moving = states.drop_vars(static)
    blend = moving.isel(time=0, drop=True) * (1 - share) + moving.isel(time=1, drop=True) * share
    path = tmp_path_factory.mktemp("store") / "states.nc"
    blend.assign_coords(time=times).merge(states[static]).transpose("time", ...).to_netcdf(path)
    return path


def test_every_start_is_scored_beside_its_baselines(store: Path) -> None:
    systems = make_and_score(store, MODEL, REQUEST, Scoring())
    assert list(systems) == ["nature-t31", "persistence", "climatology", FLOOR]
    for scores in systems.values():
        assert len(scores.init_times) == 2
        np.testing.assert_array_equal(np.array(scores.lead_times) / np.timedelta64(6, "h"), [1, 2, 3, 4])
    assert systems["nature-t31"].members == 2
    metrics = {name: scores.metrics() for name, scores in systems.items()}
    assert (metrics[FLOOR]["rmse"].sel(channel="z500") < metrics["nature-t31"]["rmse"].sel(channel="z500")).all()


@pytest.mark.slow
def test_a_stopped_run_goes_on_and_parts_merge(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tokens = ["evaluate", str(store), "--start", "2000-01-01", "--end", "2000-01-02", "--every", "24"]
    tokens += ["--members", "2", "--days", "1", "--steps", "2", "--no-floor", "--sums", str(tmp_path / "sums")]
    for part in ("1/2", "2/2"):
        run(app, [*tokens, "--part", part])
    assert len(list((tmp_path / "sums" / "nature-t31").iterdir())) == 2

    def again(*_: object) -> None:
        raise AssertionError("a start that was scored is scored again")

    monkeypatch.setattr(evaluation, "forecast_ensemble", again)
    run(app, [*tokens, "--output", str(tmp_path / "scores.nc")])
    with pytest.raises((ValueError, OSError, CycloptsError), match=r"seed was '0', now '1'\. Choose another folder"):
        app([*tokens, "--seed", "1"], exit_on_error=False, print_error=False)
    run(app, ["merge", str(tmp_path / "sums"), "--first", "nature-t31", "--output", str(tmp_path / "merged.nc")])
    first, second = (xr.load_dataset(tmp_path / name, decode_timedelta=True) for name in ("scores.nc", "merged.nc"))
    xr.testing.assert_identical(first.sel(system=second["system"]).drop_attrs(), second.drop_attrs())
    assert "No confidence interval" in capsys.readouterr().out


@pytest.mark.slow
def test_an_ensemble_of_another_model_joins_the_folder(store: Path, tmp_path: Path) -> None:
    """Evaluate, score the other ensemble into the same folder, merge: the systems stand side by side."""
    sums = ["--sums", str(tmp_path / "sums")]
    size = ["--members", "2", "--days", "1", "--steps", "2", "--no-floor"]
    run(app, ["evaluate", str(store), "--start", "2000-01-01", "--end", "2000-01-02", "--every", "24", *size, *sums,
              "--output", str(tmp_path / "model.nc")])  # fmt: skip
    truth = xr.load_dataset(store).drop_vars("geopotential_at_surface", errors="ignore")
    leads = (np.arange(1, 5) * np.timedelta64(6, "h")).astype("timedelta64[ns]")
    starts = truth["time"].values[[0, 4]]
    valid = xr.DataArray(starts[:, None] + leads, dims=("time", "prediction_timedelta"))
    perfect = truth[["geopotential", "2m_temperature"]].sel(time=valid, level=[500, 850]).drop_vars("time")
    members = xr.concat([perfect * 0.999, perfect * 1.001], "number", combine_attrs="override")
    members.assign_coords(time=starts, prediction_timedelta=leads).isel(latitude=slice(1, None)).to_zarr(
        tmp_path / "nature.zarr"
    )
    other = [str(tmp_path / "nature.zarr"), "--name", "nature-ensemble", "--truth", str(store), "--no-baselines", *sums]
    run(app, ["score", *other, "--output", str(tmp_path / "nature.nc")])
    run(app, ["merge", str(tmp_path / "sums"), "--first", "nature-t31", "--output", str(tmp_path / "both.nc")])
    both = xr.load_dataset(tmp_path / "both.nc", decode_timedelta=True)
    assert both["system"].values.tolist() == ["nature-t31", "persistence", "climatology", "nature-ensemble"]
    assert both.attrs["truth"] == str(store)
    assert both.attrs["climatology"] == "nature-t31: nature-t31/climatology.nc; nature-ensemble: none"
    assert both.attrs["forecast"] == f"nature-ensemble: {tmp_path / 'nature.zarr'}"
    rmse = both["rmse"].sel(region="globe", season="all", channel="z500")
    assert (rmse.sel(system="nature-ensemble") < rmse.sel(system="nature-t31")).all()


@pytest.mark.slow
def test_a_resumed_run_keeps_its_systems_in_order_and_reads_no_others(store: Path, tmp_path: Path) -> None:
    """The folder holds another model's sums of the first start, and the second start is still to be made."""
    scoring = Scoring(sums=tmp_path / "sums")
    whole = make_and_score(store, MODEL, REQUEST, scoring)
    own = tmp_path / "sums" / "nature-t31"
    shutil.copytree(own, tmp_path / "sums" / "another")
    for name in whole:
        (tmp_path / "sums" / name / "2000-01-02T00.nc").unlink()
    again = make_and_score(store, MODEL, REQUEST, scoring)
    assert list(again) == list(whole) == ["nature-t31", "persistence", "climatology", FLOOR]
    for name, scores in whole.items():
        np.testing.assert_array_equal(again[name].sums["squared_error"], scores.sums["squared_error"])
    shutil.rmtree(tmp_path / "sums" / "another")
    merged, _ = merge_sums(tmp_path / "sums")
    assert list(merged) == list(whole)


def test_forecasts_start_from_other_analyses_than_the_truth(store: Path, tmp_path: Path) -> None:
    """Member 0 of an ensemble at 0 h is the truth of a day later: the error at 6 h is that of the wrong day."""
    states = xr.load_dataset(store).isel(time=slice(0, 5))
    later = states.isel(time=[4, 4]).rename(time="prediction_timedelta")
    leads = np.array([0, 6], "timedelta64[h]").astype("timedelta64[ns]")
    wrong = later.assign_coords(prediction_timedelta=leads).expand_dims(number=2, time=states["time"].values[:1])
    wrong.to_netcdf(tmp_path / "ensemble.nc")
    request = replace(REQUEST, end=REQUEST.start, floor=False)
    scores = {
        analyses: make_and_score(store, MODEL, replace(request, analyses=analyses), Scoring())["nature-t31"].metrics()
        for analyses in (None, store, tmp_path / "ensemble.nc")
    }
    xr.testing.assert_identical(scores[None], scores[store])
    first = {name: metrics["rmse"].sel(channel="z500").values[0] for name, metrics in scores.items()}
    assert first[tmp_path / "ensemble.nc"] > 1.5 * first[None]
    wrong.isel(prediction_timedelta=[1]).to_netcdf(tmp_path / "late.nc")
    with pytest.raises(ValueError, match=r"late\.nc: expected states, .* got forecasts from 6 h on"):
        make_and_score(store, MODEL, replace(request, analyses=tmp_path / "late.nc"), Scoring())


def test_valid_times_are_checked_before_the_first_forecast(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(evaluation, "forecast_ensemble")
    with pytest.raises(ValueError, match=r"lacks the valid times 2000-01-03T06, .*Change --end or --days"):
        make_and_score(store, MODEL, replace(REQUEST, end="2000-01-03"), Scoring())


def test_the_floor_keeps_land_out_of_the_sea(store: Path) -> None:
    forecaster = load_forecaster(MODEL.path, "cpu")
    truth = open_store(store, forecaster.channels, forecaster.grid, regular=False)
    leads = np.array([6, 12], "timedelta64[h]").astype("timedelta64[ns]")
    frames = xr.Dataset(coords={"time": truth["time"].values[:1], "prediction_timedelta": leads})
    made = reconstruction(forecaster, truth, frames)["sea_surface_temperature"]
    expected = truth["sea_surface_temperature"].isel(time=[1, 2]).isnull().transpose("time", "latitude", "longitude")
    np.testing.assert_array_equal(made.isnull().values[0], expected.values)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (
            ["--start", "1999-01-01", "--end", "1999-01-02"],
            "lacks the initial times 1999-01-01T00.*it runs from 2000-01-01T00 to 2000-01-03T00",
        ),
        (["--start", "2000-01-02", "--end", "2000-01-01"], "asked for no initial time"),
        (["--start", "2000-01-01", "--end", "2000-01-01", "--part", "2/2", "--sums", "s"], "Part 2/2 has no starts"),
    ],
)
def test_impossible_starts_are_refused(store: Path, tokens: list[str], message: str) -> None:
    with pytest.raises((ValueError, OSError, CycloptsError), match=message):
        app(["evaluate", str(store), *tokens], exit_on_error=False, print_error=False)
