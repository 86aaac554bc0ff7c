"""One model, a time budget: what calls or seconds choose, and that it makes the stepper's own forecast."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from ladcast.checkpoint import SKILL, checkpoint_hash
from ladcast.cli import app, run
from ladcast.forecasting import ForecastRequest
from ladcast.forecasting.checkpoints import load_forecaster, save_forecaster
from ladcast.forecasting.forecaster import Forecaster
from ladcast.forecasting.plan import Planner
from ladcast.forecasting.skill import Chosen, SkillTable, join_steppers, list_choices, read_table
from ladcast.forecasts.make import make_forecast
from ladcast.forecasts.manifest import read_identity
from ladcast.forecasts.open import open_forecast
from ladcast.forecasts.redraw import redraw
from ladcast.released import ModelFolder
from ladcast.released.install import verify_weights
from worlds import killed_after_one_step, one_call_of, states_between_starts

Files = Callable[..., Path]


@pytest.fixture(scope="module")
def alone(weather_model: ModelFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a one-call stepper with the codec of the tiny model."""
    folder = tmp_path_factory.mktemp("runs") / "quick"
    save_forecaster(one_call_of(load_forecaster(weather_model.path, "cpu")), folder, {}, dtype=None)
    return folder


@pytest.fixture(scope="module")
def scores(weather_model: ModelFolder, alone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scores of both steppers, of the diffusion at 3 and 5 calls, as `ladcast evaluate` and `merge` write them."""
    folder = tmp_path_factory.mktemp("scores")
    store = states_between_starts(folder / "states.zarr", 6, weather_model)
    when = ["--start", "2001-01-01", "--end", "2001-01-01", "--days", "1", "--members", "2", "--no-floor"]
    for name, model, more in [
        ("one", alone, ()),
        ("three", weather_model.path, ("--calls", "3")),
        ("five", weather_model.path, ()),
    ]:
        output = ["--output", str(folder / f"{name}.nc")]
        more = [*more, "--sums", str(folder / "sums")] if name == "one" else more
        run(app, ["evaluate", str(store), "--model", str(model), *when, *more, *output])
    run(
        app,
        ["merge", str(folder / "sums"), "--first", "persistence", *output[:1], str(folder / "one.nc"), "--overwrite"],
    )
    return folder


@pytest.fixture(scope="module")
def family(weather_model: ModelFolder, alone: Path, scores: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with both steppers and their table."""
    folder = Path(shutil.copytree(weather_model.path, tmp_path_factory.mktemp("models") / "family"))
    files = sorted(map(str, scores.glob("*.nc")))
    run(app, ["weights", "join", str(folder), "--scores", *files, "--steppers", str(alone)])
    return folder


def request(output: Path, **changes: object) -> ForecastRequest:
    return ForecastRequest(output=output, **({"members": 2, "days": 1, "batch_size": 2, "device": "cpu"} | changes))


def made(output: Path, folder: Path, **changes: object) -> xr.Dataset:
    make_forecast(request(output, **changes), ModelFolder(folder))
    return open_forecast(output).load()


@pytest.mark.slow
def test_the_table_holds_what_was_measured(family: Path, weather_model: ModelFolder, scores: Path) -> None:
    table = read_table(family)
    assert isinstance(table, SkillTable)
    assert [(choice.stepper, choice.calls) for choice in table.choices] == [("quick", 1), ("", 3), ("", 5)]
    five = xr.load_dataset(scores / "five.nc", decode_timedelta=True)
    expected = five["fair_crps"].isel(system=0, region=0).sel(season="all", channel="z500")
    day = expected.sel(prediction_timedelta=np.timedelta64(1, "D"))
    assert table.choices[2].fair_crps["z500"] == (pytest.approx(float(day), rel=1e-5),)
    assert (table.days, table.made_of["members"], table.made_of["starts"][:2]) == ((1,), "2", "1 ")
    np.testing.assert_array_equal(table.crps.min(axis=0) >= 1, [True])  # 1 is the best by each channel
    # a model is the same with the table and without
    assert checkpoint_hash(family) == checkpoint_hash(weather_model.path)
    assert "every file has its SHA-256" in verify_weights(str(family))


@pytest.mark.slow
def test_one_call_is_the_forecast_of_the_one_call_stepper_bit_for_bit(
    family: Path, alone: Path, tmp_path: Path, weather_model: ModelFolder
) -> None:
    chosen = made(tmp_path / "one.zarr", family, calls=1)
    own = made(tmp_path / "own.zarr", alone, source=weather_model.starts)
    xr.testing.assert_equal(chosen, own)
    weights = checkpoint_hash(alone)[:12]
    assert read_identity(tmp_path / "one.zarr")["model"] == f"family/quick@{weights}"
    xr.testing.assert_identical(made(tmp_path / "sub.zarr", family / "quick"), chosen)  # by its folder, with its states


@pytest.mark.slow
def test_the_calls_of_a_diffusion_are_its_steps(family: Path, weather_model: ModelFolder, tmp_path: Path) -> None:
    own = made(tmp_path / "own.zarr", family)
    xr.testing.assert_equal(made(tmp_path / "five.zarr", family, calls=5), own)
    three = made(tmp_path / "three.zarr", weather_model.path, calls=3)
    xr.testing.assert_equal(made(tmp_path / "steps.zarr", weather_model.path, steps=2), three)
    assert not three.equals(own)


@pytest.mark.slow
def test_unknown_budgets_are_refused_with_what_there_is(family: Path, alone: Path, tmp_path: Path) -> None:
    for folder, expected in [
        (family, r"no forecast of 4 network calls a day\. Measured are 1 \(quick\), 3 \(its own\), 5 \(its own\)"),
        (family, r"The sampler heun can call its network 3 or 5 times a step, not 4\."),
        (alone, r"no forecast of 4 network calls a day\. Network calls of a step of the kind 'one_call': 1, not 4"),
    ]:
        with pytest.raises(ValueError, match=expected):
            Planner(request(tmp_path / "fc.zarr", calls=4), folder).choose()
    with pytest.raises(ValueError, match=r"No forecast of family fits --seconds 1e-09 here.* 1 \(quick\) [\d.e-]+ s"):
        Planner(request(tmp_path / "fc.zarr", seconds=1e-9), family, tflops=1.0).choose()
    with pytest.raises(ValueError, match=r"Expected one of --calls, --seconds\."):
        request(tmp_path / "fc.zarr", calls=1, seconds=2.0)
    for wrong in ({"calls": 0}, {"seconds": float("nan")}, {"seconds": float("inf")}, {"seconds": -1.0}):
        with pytest.raises(ValueError, match=r"Expected a finite number above 0 as --(calls|seconds), got"):
            request(tmp_path / "fc.zarr", **wrong)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_seconds_choose_the_best_that_fits(family: Path, tmp_path: Path) -> None:
    planner = Planner(request(tmp_path / "fc.zarr"), family, tflops=1e-3)
    seconds = {str(choice): planner.plan(choice.chosen).seconds for choice in planner.choices}
    table = read_table(family)
    assert table is not None
    assert seconds["1 (quick)"] < seconds["3 (its own)"] < seconds["5 (its own)"]
    skill = {str(choice): float(crps.mean()) for choice, crps in zip(table.choices, table.crps, strict=True)}
    for budget in seconds.values():
        within = Planner(request(tmp_path / "fc.zarr", seconds=budget), family, tflops=1e-3)
        best = min((name for name in seconds if seconds[name] <= budget), key=skill.__getitem__)
        assert within.choose() in [choice.chosen for choice in table.choices if str(choice) == best]


@pytest.mark.slow
def test_a_forecast_that_was_begun_goes_on_as_it_was_begun(family: Path, tmp_path: Path, capsys) -> None:
    output, much = tmp_path / "fc.zarr", {"seconds": 1e6, "members": 3, "batch_size": 1}
    with killed_after_one_step():
        make_forecast(request(output, **much), ModelFolder(family))
    best = list_choices(family)[0]
    made(output, family, **much)
    assert "blocks: 2/2" in capsys.readouterr().err  # one of three batches was made before
    xr.testing.assert_equal(
        open_forecast(output), made(tmp_path / "calls.zarr", family, **much | {"seconds": None, "calls": best.calls})
    )
    # whatever the machine takes now; a new forecast is measured anew
    little, identity = Planner(request(output, seconds=1e-9), family, tflops=1.0), read_identity(output)
    assert little.choose(identity) == best.chosen
    with pytest.raises(ValueError, match="fits --seconds"):
        little.choose({**identity, "model": "another@0"})


@pytest.mark.slow
@pytest.mark.parametrize("keep", ["fields", "latents"])
def test_a_member_is_redrawn_by_the_stepper_that_made_it(family: Path, tmp_path: Path, keep: str) -> None:
    whole = made(tmp_path / "fc.zarr", family, calls=1, keep=keep, members=3)
    redraw(tmp_path / "fc.zarr", tmp_path / "again.zarr", [2], model=str(family))
    xr.testing.assert_equal(open_forecast(tmp_path / "again.zarr"), whole.sel(number=[2]))
    renamed = Path(shutil.copytree(family, tmp_path / "renamed"))
    redraw(tmp_path / "fc.zarr", tmp_path / "moved.zarr", [2], model=str(renamed), source=renamed / "starts.nc")
    xr.testing.assert_equal(open_forecast(tmp_path / "moved.zarr", model=str(renamed)), whole.sel(number=[2]))


@pytest.mark.slow
def test_the_plan_prints_the_table(family: Path, weather_model: ModelFolder, capsys) -> None:
    tokens = ["plan", "forecast", "--calls", "1", "--tflops", "1", "--device", "cpu", "--model"]
    run(app, [*tokens, str(family)])
    plan, _, table = capsys.readouterr().out.partition("choices")
    assert "10 network" in plan  # ten days
    rows = [line.split() for line in table.splitlines()[1:4]]
    assert [row[:-3] for row in rows] == [["*", "quick", "1"], ["its", "own", "3"], ["its", "own", "5"]]
    assert min(float(row[-2]) for row in rows) >= 1
    run(app, [*tokens[:2], *tokens[4:], str(weather_model.path)])
    assert "choices" not in capsys.readouterr().out


@pytest.mark.slow
def test_a_table_of_other_weights_or_scores_is_refused(family: Path, alone: Path, scores: Path, tmp_path: Path) -> None:
    one, three = scores / "one.nc", scores / "three.nc"
    copy = Path(shutil.copytree(family, tmp_path / "copy"))
    with pytest.raises(FileExistsError, match=r"skill\.yaml exists already"):
        join_steppers(copy, [one, three])
    shutil.rmtree(copy / "quick")
    shutil.copytree(family, copy / "quick")
    with pytest.raises(ValueError, match=r"tells of weights \w{12}, but those of .*quick are \w{12}"):
        read_table(copy)
    with pytest.raises(ValueError, match=r"one\.nc is of the model quick@\w{12}; there are .*--steppers"):
        join_steppers(copy, [one, three], overwrite=True)

    def changed(name: str, value: str | None) -> Path:
        ds = xr.load_dataset(three)
        ds.attrs = {**ds.attrs, name: value} if value else {key: ds.attrs[key] for key in ds.attrs if key != name}
        ds.to_netcdf(tmp_path / f"{name}.nc")
        return tmp_path / f"{name}.nc"

    with pytest.raises(ValueError, match=r"truth was .*states\.zarr', now 'other'.*--start"):
        join_steppers(copy, [one, changed("truth", "other")], [alone], overwrite=True)
    with pytest.raises(ValueError, match=r"analyses was '', now 'other'.*--regions and --analyses"):
        join_steppers(copy, [one, changed("analyses", "other")], [alone], overwrite=True)
    with pytest.raises(ValueError, match=r"as `ladcast evaluate` writes them, but without settings"):
        join_steppers(copy, [changed("settings", None)], overwrite=True)
    for several in ("quick@0; weather@1", "persistence"):
        with pytest.raises(ValueError, match=rf"expected the scores of one model, got those of {several}"):
            join_steppers(copy, [changed("model", several)], overwrite=True)
    ds = xr.load_dataset(three)
    for name, other, expected in [
        ("tropics", ds.assign_coords(region=["tropics"]), r"region was 'globe', now 'tropics'.*--regions"),
        (
            "nan",
            ds.assign(fair_crps=ds["fair_crps"] * np.nan),
            r"nan\.nc: expected a finite fair_crps of z500 .* nan",
        ),
        ("single", ds.drop_vars("fair_crps"), r"single\.nc: expected scores of an ensemble of at least 2 members"),
        ("twice", ds, r"one file of scores for each choice, got .*three\.nc and .*twice\.nc for 3 \(its own\)"),
    ]:
        other.to_netcdf(tmp_path / f"{name}.nc")
        with pytest.raises(ValueError, match=expected):
            join_steppers(copy, [one, three, tmp_path / f"{name}.nc"], [alone], overwrite=True)
    join_steppers(copy, [one, three], [alone], overwrite=True)
    assert [choice.calls for choice in list_choices(copy)] in ([1, 3], [3, 1])
    (copy / SKILL).write_text((copy / SKILL).read_text().replace("calls: 3", "calls: 2"))
    with pytest.raises(ValueError, match=r"skill\.yaml is incomplete or changed"):
        read_table(copy)


@pytest.mark.slow
def test_steppers_in_folders_of_one_name_are_refused_before_one_is_copied(
    weather_model: ModelFolder, family: Path, alone: Path, scores: Path, tmp_path: Path
) -> None:
    """The second copy would replace the first one, and the table tell of weights that are gone."""
    copy = Path(shutil.copytree(weather_model.path, tmp_path / "copy"))
    other = tmp_path / "other/quick"
    forecaster = load_forecaster(alone, "cpu")
    forecaster.stepper.network.requires_grad_(False)
    next(forecaster.stepper.network.parameters()).add_(1)
    save_forecaster(forecaster, other, {}, dtype=None)
    ds = xr.load_dataset(scores / "one.nc")
    ds.attrs["model"] = f"quick@{checkpoint_hash(other)[:12]}"
    ds.to_netcdf(tmp_path / "other.nc")
    files = [scores / "one.nc", tmp_path / "other.nc"]
    with pytest.raises(ValueError, match=r"folders of different names, got .*/quick and .*other/quick: both .*Rename"):
        join_steppers(copy, files, [alone, other], overwrite=True)
    assert not (copy / "quick").exists()
    joined = Path(shutil.copytree(family, tmp_path / "joined"))
    with pytest.raises(ValueError, match=r"got .*joined/quick and .*other/quick"):  # one is there already
        join_steppers(joined, files, [other], overwrite=True)
    assert read_table(joined) == read_table(family)
    join_steppers(joined, files[1:], [other], overwrite=True)
    assert [choice.weights for choice in list_choices(joined)] == [checkpoint_hash(other)[:12]]


@pytest.mark.slow
def test_the_mark_is_that_of_the_settings_and_not_of_the_calls_alone(family: Path) -> None:
    table = read_table(family)
    assert table is not None
    three = table.choices[1]
    hotter = replace(three, settings={**three.settings, "sampler": "another"})
    both = replace(table, choices=(three, hotter))
    marks = [line[0] for line in both.describe([None, None], hotter).splitlines()[1:3]]
    assert marks == [" ", "*"]


@pytest.mark.parametrize(("sampler", "calls"), [("euler", 2), ("euler", 7), ("heun", 3), ("heun", 39), ("dpmpp_2m", 4)])
def test_a_sampler_is_set_to_calls_exactly(forecaster: Forecaster, sampler: str, calls: int) -> None:
    stepper = forecaster.with_settings(sampler=sampler).stepper
    assert stepper.with_settings(**stepper.settings_for(calls)).calls == calls


def test_a_folder_without_a_table_has_one_choice(weather_model: ModelFolder, tmp_path: Path) -> None:
    (choice,) = list_choices(weather_model.path)
    assert (choice.stepper, choice.calls, choice.settings["steps"]) == ("", 5, 3)
    planner = Planner(request(tmp_path / "fc.zarr", seconds=1e6), weather_model.path, tflops=1.0)
    assert planner.choose() == choice.chosen
    assert Planner(replace(planner.request, seconds=None), weather_model.path).choose() == Chosen("", {})
    assert json.loads(json.dumps(choice.settings)) == choice.settings  # as scores and the processes of a job say it
