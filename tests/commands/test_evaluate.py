"""`ladcast evaluate`: the embedded model, scored while it forecasts; stopped and gone on, whole and in parts."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from cyclopts import CycloptsError

from ladcast.cli import app, run
from ladcast.commands import evaluation
from ladcast.commands.evaluation import make_and_score, reconstruction
from ladcast.commands.options import EvaluationRequest, Scoring
from ladcast.data.normalization import pack, unpack
from ladcast.data.store import open_store
from ladcast.forecasting.checkpoints import load_forecaster, save_forecaster
from ladcast.released import ModelFolder, find_model
from ladcast.resumable import sole_writer
from ladcast.run import ExitCode
from ladcast.verification import fit_climatology
from ladcast.verification.archive import merge_sums
from ladcast.verification.bootstrap import FLOOR
from worlds import CHANNELS, GRID, full_disk, states_between_starts, tiny_forecaster

REQUEST = EvaluationRequest("2000-01-01", "2000-01-02", every=24, members=2, days=1)
TIMES = np.arange("2000-01-01", "2000-01-03T06", 6, dtype="datetime64[h]").astype("datetime64[ns]")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores, and what is unfinished, lie in the working folder unless a place is named."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Waves that travel east, on the grid of the tiny model; five columns are land."""
    normalizer = tiny_forecaster().codec.normalizer
    lat, lon = np.meshgrid(np.deg2rad(GRID.latitude), np.deg2rad(GRID.longitude), indexing="ij")
    waves = [np.cos(lat) * np.cos(2 * lon - 0.3 * step) for step in range(len(TIMES))]
    ocean = torch.ones(GRID.shape, dtype=torch.bool)
    ocean[:, :5] = False
    anomalies = torch.from_numpy(np.stack(waves)).float()[:, None].expand(-1, len(CHANNELS), -1, -1)
    states = normalizer.inverse(0.3 * anomalies, ocean)
    path = tmp_path_factory.mktemp("store") / "states.nc"
    unpack(states, CHANNELS, GRID, TIMES).to_netcdf(path)
    return path


@pytest.fixture(scope="module")
def model(store: Path, tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    """The tiny model with a climatology in its folder."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_forecaster(tiny_forecaster(), folder, {}, dtype=None)
    fit_climatology(open_store(store), days=365, step=61).to_netcdf(folder / "climatology.nc")
    return find_model(str(folder))


@pytest.mark.slow
def test_every_start_is_scored_beside_its_baselines(store: Path, model: ModelFolder) -> None:
    systems = make_and_score(store, model, REQUEST, Scoring())
    assert list(systems) == ["tiny", "persistence", "climatology", FLOOR]
    for scores in systems.values():
        assert len(scores.init_times) == 2
        np.testing.assert_array_equal(np.array(scores.lead_times) / np.timedelta64(6, "h"), [1, 2, 3, 4])
    assert systems["tiny"].members == 2


@pytest.mark.slow
def test_a_stopped_run_goes_on_and_parts_merge(
    store: Path,
    model: ModelFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tokens = [
        "evaluate",
        str(store),
        "--model",
        str(model.path),
        "--start",
        "2000-01-01",
        "--end",
        "2000-01-02",
        "--every",
        "24",
    ]
    tokens += ["--members", "2", "--days", "1", "--no-floor", "--sums", str(tmp_path / "sums")]
    for part in ("1/2", "2/2"):
        run(app, [*tokens, "--part", part])
    assert len(list((tmp_path / "sums" / "tiny").iterdir())) == 2

    def again(*_: object) -> None:
        raise AssertionError("a start that was scored is scored again")

    monkeypatch.setattr(evaluation, "member_batches", again)
    run(app, [*tokens, "--output", str(tmp_path / "scores.nc")])
    with pytest.raises((ValueError, OSError, CycloptsError), match=r"seed was '0', now '1'\. Choose another folder"):
        app([*tokens, "--seed", "1", "--output", "other.nc"], exit_on_error=False, print_error=False)
    run(app, ["merge", str(tmp_path / "sums"), "--first", "tiny", "--output", str(tmp_path / "merged.nc")])
    first, second = (xr.load_dataset(tmp_path / name, decode_timedelta=True) for name in ("scores.nc", "merged.nc"))
    xr.testing.assert_identical(first.sel(system=second["system"]).drop_attrs(), second.drop_attrs())
    assert "No confidence interval" in capsys.readouterr().out


@pytest.mark.slow
def test_sums_of_a_stopped_run_are_kept_beside_its_scores(
    store: Path, model: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without --sums, too: the second run makes the second start alone, and finds what one run finds."""
    made = evaluation.member_batches

    def stop_at_second(forecaster, conditions, options):
        if conditions[0].init_time == np.datetime64("2000-01-02"):
            raise KeyboardInterrupt
        return made(forecaster, conditions, options)

    def second_only(forecaster, conditions, options):
        assert conditions[0].init_time == np.datetime64("2000-01-02")
        return made(forecaster, conditions, options)

    tokens = ["evaluate", str(store), "--model", str(model.path), "--start", "2000-01-01", "--end", "2000-01-02"]
    tokens += ["--every", "24", "--members", "2", "--days", "1", "--no-floor"]
    monkeypatch.setattr(evaluation, "member_batches", stop_at_second)
    with pytest.raises(SystemExit):
        run(app, tokens)
    monkeypatch.setattr(evaluation, "member_batches", second_only)
    run(app, tokens)
    monkeypatch.setattr(evaluation, "member_batches", made)
    run(app, [*tokens, "--output", "whole.nc"])
    first, second = (xr.load_dataset(name, decode_timedelta=True) for name in ("scores.nc", "whole.nc"))
    xr.testing.assert_identical(first.drop_attrs(), second.drop_attrs())
    assert sorted(path.name for path in Path().iterdir()) == ["scores.nc", "whole.nc"]


@pytest.mark.slow
def test_a_full_disk_ends_it_with_4_and_it_goes_on_when_there_is_space(store: Path, model: ModelFolder, capfd) -> None:
    tokens = ["evaluate", str(store), "--model", str(model.path), "--start", "2000-01-01", "--end", "2000-01-01"]
    tokens += ["--every", "24", "--members", "2", "--days", "1", "--no-floor"]
    with full_disk(5000), pytest.raises(SystemExit) as caught:
        run(app, tokens)
    assert caught.value.code == ExitCode.OUTPUT
    assert re.search("No more can be written|Free some space", capfd.readouterr().err)
    run(app, tokens)
    run(app, [*tokens, "--output", "whole.nc"])
    first, second = (xr.load_dataset(name, decode_timedelta=True) for name in ("scores.nc", "whole.nc"))
    xr.testing.assert_identical(first.drop_attrs(), second.drop_attrs())
    assert sorted(path.name for path in Path().iterdir()) == ["scores.nc", "whole.nc"]


def test_a_second_run_into_one_file_says_who_writes(store: Path, model: ModelFolder, capsys) -> None:
    tokens = ["evaluate", str(store), "--model", str(model.path), "--start", "2000-01-01", "--end", "2000-01-01"]
    with sole_writer(Path("scores.nc")), pytest.raises(SystemExit) as caught:
        run(app, [*tokens, "--days", "1"])
    assert caught.value.code == ExitCode.OUTPUT
    assert "scores.nc is being written by host" in capsys.readouterr().err


@pytest.mark.slow
def test_two_truths_that_had_one_path_are_not_mixed(store: Path, model: ModelFolder, tmp_path: Path) -> None:
    """The first start was scored against one, and the second would be against the other."""
    path, scoring = tmp_path / "truth.nc", Scoring(sums=Path("scores.nc.partial"))
    request = replace(REQUEST, end="2000-01-01", floor=False)
    shutil.copy(store, path)
    make_and_score(path, model, request, scoring)
    make_and_score(Path(shutil.copy(store, path)), model, replace(request, end="2000-01-02"), scoring)  # equal: goes on
    (xr.load_dataset(store) + 0.01).to_netcdf(path)
    with pytest.raises(ValueError, match=r"partial was made .*: values of truth was '\w{16}', now '.*Delete it"):
        make_and_score(path, model, replace(request, end="2000-01-02"), scoring)
    claim = Path("scores.nc.partial/tiny.json")  # of an earlier version, which knew paths alone
    held = json.loads(claim.read_text())
    claim.write_text(json.dumps({key: held[key] for key in held if not key.startswith("values of")}))
    make_and_score(path, model, request, scoring)


@pytest.mark.slow
def test_an_ensemble_of_another_model_joins_the_folder(store: Path, model: ModelFolder, tmp_path: Path) -> None:
    """Evaluate, score the other ensemble into the same folder, merge: the systems stand side by side."""
    sums = ["--sums", str(tmp_path / "sums")]
    size = ["--members", "2", "--days", "1", "--no-floor"]
    tokens = ["evaluate", str(store), "--model", str(model.path), "--start", "2000-01-01", "--end", "2000-01-02"]
    run(app, [*tokens, "--every", "24", *size, *sums, "--output", str(tmp_path / "model.nc")])
    truth = xr.load_dataset(store)
    leads = (np.arange(1, 5) * np.timedelta64(6, "h")).astype("timedelta64[ns]")
    starts = truth["time"].values[[0, 4]]
    valid = xr.DataArray(starts[:, None] + leads, dims=("time", "prediction_timedelta"))
    perfect = truth[["temperature", "mean_sea_level_pressure"]].sel(time=valid).drop_vars("time")
    members = xr.concat([perfect * 0.999, perfect * 1.001], "number", combine_attrs="override")
    members.assign_coords(time=starts, prediction_timedelta=leads).to_zarr(tmp_path / "nature.zarr")
    other = [str(tmp_path / "nature.zarr"), "--name", "nature-ensemble", "--truth", str(store), "--no-baselines", *sums]
    run(app, ["score", *other, "--output", str(tmp_path / "nature.nc")])
    run(app, ["merge", str(tmp_path / "sums"), "--first", "tiny", "--output", str(tmp_path / "both.nc")])
    both = xr.load_dataset(tmp_path / "both.nc", decode_timedelta=True)
    assert both["system"].values.tolist() == ["tiny", "persistence", "climatology", "nature-ensemble"]
    assert both.attrs["truth"] == str(store)
    assert both.attrs["climatology"] == "tiny: tiny/climatology.nc; nature-ensemble: none"
    assert not any(key.startswith("values of") for key in both.attrs)
    assert both.attrs["forecast"] == f"nature-ensemble: {tmp_path / 'nature.zarr'}"
    rmse = both["rmse"].sel(region="globe", season="all", channel="t500")
    assert (rmse.sel(system="nature-ensemble") < rmse.sel(system="tiny")).all()


@pytest.mark.slow
def test_a_resumed_run_keeps_its_systems_in_order_and_reads_no_others(
    store: Path, model: ModelFolder, tmp_path: Path
) -> None:
    """The folder holds another model's sums of the first start, and the second start is still to be made."""
    scoring = Scoring(sums=tmp_path / "sums")
    whole = make_and_score(store, model, REQUEST, scoring)
    own = tmp_path / "sums" / "tiny"
    shutil.copytree(own, tmp_path / "sums" / "another")
    for name in whole:
        (tmp_path / "sums" / name / "2000-01-02T00.nc").unlink()
    again = make_and_score(store, model, REQUEST, scoring)
    assert list(again) == list(whole) == ["tiny", "persistence", "climatology", FLOOR]
    for name, scores in whole.items():
        np.testing.assert_array_equal(again[name].sums["squared_error"], scores.sums["squared_error"])
    shutil.rmtree(tmp_path / "sums" / "another")
    (tmp_path / "sums/persistence/2000-01-02T00.nc").unlink()
    make_and_score(store, model, REQUEST, scoring)  # makes again what was deleted, of baselines too
    merged, _ = merge_sums(tmp_path / "sums")
    assert list(merged) == list(whole)


@pytest.mark.slow
def test_forecasts_start_from_other_analyses_than_the_truth(tmp_path: Path) -> None:
    """Member 0 of an ensemble at 0 h is the truth of a day later: the error at 6 h is that of the wrong day."""
    store, model = states_between_starts(tmp_path / "states.zarr", 5), find_model("nature-t31")
    states = xr.load_dataset(store, engine="zarr", consolidated=False)
    later = states.isel(time=[4, 4]).rename(time="prediction_timedelta")
    leads = np.array([0, 6], "timedelta64[h]").astype("timedelta64[ns]")
    wrong = later.assign_coords(prediction_timedelta=leads).expand_dims(number=2, time=states["time"].values[:1])
    wrong.to_netcdf(tmp_path / "ensemble.nc")
    request = replace(REQUEST, start="2001-01-01", end="2001-01-01", floor=False)
    systems = {
        analyses: make_and_score(store, model, replace(request, analyses=analyses, floor=analyses is None), Scoring())
        for analyses in (None, store, tmp_path / "ensemble.nc")
    }
    scores = {analyses: found["nature-t31"].metrics() for analyses, found in systems.items()}
    floor = systems[None][FLOOR].metrics()["rmse"].sel(channel="z500")
    assert (floor < scores[None]["rmse"].sel(channel="z500")).all()
    xr.testing.assert_identical(scores[None], scores[store])
    first = {name: metrics["rmse"].sel(channel="z500").values[0] for name, metrics in scores.items()}
    assert first[tmp_path / "ensemble.nc"] > 1.5 * first[None]
    wrong.isel(prediction_timedelta=[1]).to_netcdf(tmp_path / "late.nc")
    with pytest.raises(ValueError, match=r"late\.nc: expected states, .* got forecasts from 6 h on"):
        make_and_score(store, model, replace(request, analyses=tmp_path / "late.nc"), Scoring())


def test_valid_times_are_checked_before_the_first_forecast(
    store: Path, model: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(evaluation, "member_batches")
    with pytest.raises(ValueError, match=r"lacks the valid times 2000-01-03T06, .*Change --end or --days"):
        make_and_score(store, model, replace(REQUEST, end="2000-01-03"), Scoring())


def test_the_floor_keeps_land_out_of_the_sea(store: Path, model: ModelFolder) -> None:
    forecaster = load_forecaster(model.path, "cpu")
    truth = open_store(store, forecaster.channels, forecaster.grid, regular=False)
    states = pack(truth.isel(time=[1, 2]), forecaster.channels)
    (sst,) = forecaster.channels.masked_on_land
    assert states[:, sst].isnan().any()
    assert torch.equal(reconstruction(forecaster.codec, states).isnan(), states.isnan())


@pytest.mark.slow
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
def test_impossible_starts_are_refused(store: Path, model: ModelFolder, tokens: list[str], message: str) -> None:
    with pytest.raises((ValueError, OSError, CycloptsError), match=message):
        app(
            ["evaluate", str(store), "--model", str(model.path), "--days", "1", *tokens],
            exit_on_error=False,
            print_error=False,
        )
