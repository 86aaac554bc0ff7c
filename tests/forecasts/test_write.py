import json
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from ladcast.data.analysis import Analysis
from ladcast.data.zarr_chunks import ChunkWriter
from ladcast.fields import PRECIPITATION
from ladcast.files import remove
from ladcast.forecasting.checkpoints import load_forecaster, save_forecaster
from ladcast.forecasting.codec import LatentCodec
from ladcast.forecasting.ensemble import FORECAST_DIMS, EnsembleOptions, staggered
from ladcast.forecasting.forecaster import Forecaster
from ladcast.forecasts.engine import LatentEngine
from ladcast.forecasts.latents import LatentStore
from ladcast.forecasts.write import LEADS_AT_ONCE, ForecastWriter, forecast_identity, forecast_layout, global_attributes
from worlds import keep, tiny_analysis, tiny_forecaster

HOUR, DAY = np.timedelta64(1, "h"), np.timedelta64(1, "D")


@pytest.fixture
def wanted(forecaster: Forecaster) -> EnsembleOptions:
    return EnsembleOptions(5, 3, 7, batch_size=2)


def later(analysis: Analysis, time: np.timedelta64) -> Analysis:
    return replace(analysis, time=analysis.time + time)


def test_a_layout_has_the_dims_of_its_variables(forecaster: Forecaster, analysis: Analysis, wanted: EnsembleOptions):
    conditions = staggered([analysis]) + staggered([later(analysis, DAY)])
    layout = forecast_layout(forecaster, conditions, wanted)
    assert layout.dims("temperature") == FORECAST_DIMS
    assert layout.shape(FORECAST_DIMS) == (2, 12, 5, 2, 8, 16)
    assert "level" not in layout.dims(PRECIPITATION)
    assert list(layout.coordinates("number", "time")) == ["number", "time"]
    assert layout.coordinates()["prediction_timedelta"].attrs["standard_name"] == "forecast_period"


def test_forecasts_are_merged_by_lead_time(forecaster: Forecaster, analysis: Analysis, wanted: EnsembleOptions):
    starts = [later(analysis, -2 * step * HOUR) for step in range(3)]
    both = staggered(starts) + staggered([later(start, DAY) for start in starts])
    layout = forecast_layout(forecaster, both, wanted)
    np.testing.assert_array_equal(layout.lead_times, np.arange(1, 37) * 2 * HOUR)
    assert len(layout.init_times) == 2
    for wrong in (both[::-1], both[:-1], staggered(starts[:2])):
        with pytest.raises(ValueError, match="initial times that increase, each with the analyses of every"):
            forecast_layout(forecaster, wrong, wanted)


def test_an_identity_is_plain_and_tells_runs_apart(forecaster: Forecaster, analysis: Analysis, wanted: EnsembleOptions):
    identity = forecast_identity(forecaster, staggered([analysis]), wanted)
    assert json.loads(json.dumps(identity)) == identity
    for other in (replace(wanted, seed=8), replace(wanted, batch_size=3)):
        assert forecast_identity(forecaster, staggered([analysis]), other) != identity
    assert forecast_identity(forecaster, staggered([later(analysis, DAY)]), wanted) != identity
    assert json.loads(global_attributes(identity)["history"]) == identity
    twice = forecast_identity(forecaster, staggered([analysis, later(analysis, -HOUR)]), wanted)
    assert twice["init_times"] == ["2001-02-28T12"]
    assert twice["starts"] == [["2001-02-28T12", "2001-02-28T11"]]


@pytest.mark.slow
def test_a_forecast_kept_in_either_way_begins_with_the_analysis(
    forecaster: Forecaster, analysis: Analysis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """What follows is as it is without: the same bits, also of starts from the hours before."""
    model, options = tmp_path / "model", EnsembleOptions(3, 1, 0, batch_size=2)
    save_forecaster(forecaster, model, {}, dtype=None)
    conditions = staggered([analysis, later(analysis, -3 * HOUR)])
    made = {}
    for name, chosen in {"without": options, "with": replace(options, analysis=True)}.items():
        kept = keep(load_forecaster(model, "cpu"), model, conditions, chosen, tmp_path / name)
        made[name] = xr.open_zarr(kept.fields, decode_timedelta=True).load()
        latents = xr.open_dataset(kept.latents, engine=LatentEngine, model=model).load()
        xr.testing.assert_equal(latents, made[name])
    xr.testing.assert_equal(made["with"].isel(prediction_timedelta=slice(1, None)), made["without"])
    first = made["with"].isel(time=0, prediction_timedelta=0).transpose("number", "level", ...)
    assert first["prediction_timedelta"] == 0
    for member in range(3):
        np.testing.assert_array_equal(first["temperature"][member], analysis.state[:2])
        np.testing.assert_array_equal(first["sea_surface_temperature"][member], analysis.state[3])

    read, original = [], LatentStore.analysis
    monkeypatch.setattr(LatentStore, "analysis", lambda store, init: read.append(init) or original(store, init))
    latents = xr.open_dataset(kept.latents, engine=LatentEngine, model=model)
    xr.testing.assert_equal(latents.isel(prediction_timedelta=0).load(), made["with"].isel(prediction_timedelta=0))
    assert read == [0]  # once for all members and variables


@pytest.fixture
def options(forecaster: Forecaster) -> EnsembleOptions:
    return EnsembleOptions(3, 2, 0, batch_size=2)


def write(
    path: Path,
    forecaster: Forecaster,
    analyses: Analysis | Sequence[Analysis],
    options: EnsembleOptions,
    stop_after: int | None = None,
) -> None:
    """Makes a forecast, or only its first steps, as a kill would leave it."""
    conditions = staggered([analyses] if isinstance(analyses, Analysis) else analyses)
    writer = ForecastWriter(path, forecaster, conditions, options)
    steps = ((batch, step) for batch in writer.start() for step in batch.forecast())
    for done, (batch, step) in enumerate(steps, start=1):
        writer.append(batch, step)
        if done == stop_after:
            return
    writer.finish()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of the default options that no kill disturbed."""
    forecaster, path = tiny_forecaster(), tmp_path_factory.mktemp("whole") / "whole.zarr"
    write(path, forecaster, tiny_analysis(forecaster), EnsembleOptions(3, 2, 0, batch_size=2))
    return path


def read(path: Path) -> xr.Dataset:
    return xr.open_zarr(path, chunks=None, decode_timedelta=True).load()


@pytest.mark.slow
def test_the_store_holds_what_the_forecast_made(
    run, forecaster: Forecaster, analysis: Analysis, options: EnsembleOptions, tmp_path: Path
):
    write(tmp_path / "fc.zarr", forecaster, analysis, options)
    stored = read(tmp_path / "fc.zarr")
    made = run(analysis, options)
    for name in made.data_vars:
        np.testing.assert_array_equal(stored[name].values, made[name].values)
    assert stored["time"].attrs["standard_name"] == "forecast_reference_time"
    assert stored["prediction_timedelta"].attrs["standard_name"] == "forecast_period"
    assert stored["number"].attrs["standard_name"] == "realization"
    assert stored["temperature"].attrs["units"] == "K"
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.slow
def test_forecasts_from_the_hours_before_fill_the_hours_between(
    run, forecaster: Forecaster, analysis: Analysis, options: EnsembleOptions, tmp_path: Path
):
    options = replace(options, blocks=1)
    hourly = [replace(analysis, time=analysis.time - np.timedelta64(hour, "h")) for hour in range(6)]
    write(tmp_path / "killed.zarr", forecaster, hourly, options, stop_after=7)
    write(tmp_path / "killed.zarr", forecaster, hourly, options)
    stored = read(tmp_path / "killed.zarr")
    np.testing.assert_array_equal(stored["prediction_timedelta"].values, np.arange(1, 25) * np.timedelta64(1, "h"))
    made = run(hourly, options)
    for name in made.data_vars:
        np.testing.assert_array_equal(stored[name].values, made[name].values)


@pytest.mark.slow
@pytest.mark.parametrize("stop_after", [1, 2, 3, 4])
def test_a_killed_forecast_resumes_to_the_same_store(
    stop_after: int, whole: Path, forecaster: Forecaster, analysis: Analysis, options: EnsembleOptions, tmp_path: Path
):
    write(tmp_path / "killed.zarr", forecaster, analysis, options, stop_after)
    assert not (tmp_path / "killed.zarr").exists()
    write(tmp_path / "killed.zarr", forecaster, analysis, options)
    xr.testing.assert_equal(read(whole), read(tmp_path / "killed.zarr"))


def test_an_existing_output_is_kept(
    forecaster: Forecaster, analysis: Analysis, options: EnsembleOptions, tmp_path: Path
):
    (tmp_path / "fc.zarr").mkdir()
    with pytest.raises(FileExistsError, match="--overwrite"):
        ForecastWriter(tmp_path / "fc.zarr", forecaster, staggered([analysis]), options)
    remove(tmp_path / "fc.zarr")
    ForecastWriter(tmp_path / "fc.zarr", forecaster, staggered([analysis]), options)


def test_another_unfinished_forecast_is_kept(
    forecaster: Forecaster, analysis: Analysis, options: EnsembleOptions, tmp_path: Path
):
    write(tmp_path / "fc.zarr", forecaster, analysis, options, stop_after=1)
    with pytest.raises(FileExistsError, match=r"options\.seed was 0, now 1"):
        write(tmp_path / "fc.zarr", forecaster, analysis, replace(options, seed=1))


def test_a_damaged_progress_says_what_to_do(
    forecaster: Forecaster, analysis: Analysis, options: EnsembleOptions, tmp_path: Path
):
    write(tmp_path / "fc.zarr", forecaster, analysis, options, stop_after=1)
    (tmp_path / "fc.zarr.partial" / "progress" / "begun" / "weights.safetensors").write_bytes(b"")
    with pytest.raises(FileExistsError, match=r"cannot go on.*Delete"):
        write(tmp_path / "fc.zarr", forecaster, analysis, options)


def test_an_unwritable_output_is_named(
    forecaster: Forecaster, analysis: Analysis, options: EnsembleOptions, tmp_path: Path
):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OSError, match="Choose another output"):
        write(tmp_path / "file" / "fc.zarr", forecaster, analysis, options)


def test_more_redraws_go_on_and_other_states_do_not(
    forecaster: Forecaster, analysis: Analysis, options: EnsembleOptions, tmp_path: Path
):
    write(tmp_path / "fc.zarr", forecaster, analysis, options, stop_after=1)
    ForecastWriter(tmp_path / "fc.zarr", forecaster, staggered([analysis]), replace(options, redraws=3)).start()
    other = replace(analysis, state=analysis.state + 1)
    with pytest.raises(FileExistsError, match="states was"):
        ForecastWriter(tmp_path / "fc.zarr", forecaster, staggered([other]), options).start()


@pytest.mark.slow
def test_decoding_waits_for_the_disk(
    forecaster: Forecaster, analysis: Analysis, options: EnsembleOptions, tmp_path: Path, monkeypatch
):
    """No more lead times than `LEADS_AT_ONCE` are in memory, though two steps are begun; then all are written."""
    disk, decoded, write_chunk = threading.Event(), [], ChunkWriter.write

    def slowly(*chunk):
        assert disk.wait(60)
        write_chunk(*chunk)

    def groups(codec: LatentCodec, *latents, **group):
        for states in decode_groups(codec, *latents, **group):
            decoded.append(states)
            if len(decoded) == LEADS_AT_ONCE:
                threading.Timer(0.3, lambda: (at_first.append(len(decoded)), disk.set())).start()
            yield states

    at_first, decode_groups = [], LatentCodec.decode_groups
    monkeypatch.setattr(LatentCodec, "decode_groups", groups)
    monkeypatch.setattr(ChunkWriter, "write", slowly)
    writer = ForecastWriter(tmp_path / "fc.zarr", forecaster, staggered([analysis]), options)
    steps = ((batch, step) for batch in writer.start() for step in batch.forecast())
    assert [step.number for _, step in writer.write(steps)] == [0, 1, 0, 1]
    assert at_first == [LEADS_AT_ONCE]
    assert np.isfinite(read(writer.finish())["temperature"]).all()


def test_what_is_made_is_recorded_when_the_next_step_fails(
    forecaster: Forecaster, analysis: Analysis, options: EnsembleOptions, tmp_path: Path
):
    writer = ForecastWriter(tmp_path / "fc.zarr", forecaster, staggered([analysis]), options)
    first, *_ = writer.start()

    def steps():
        yield first, next(first.forecast())
        raise FloatingPointError("a member has left all weather behind")

    with pytest.raises(FloatingPointError, match="left all weather"):
        list(writer.write(steps()))
    again = ForecastWriter(tmp_path / "fc.zarr", forecaster, staggered([analysis]), options)
    assert [batch.done for batch in again.start()] == [1, 0]


def test_a_decoder_that_fails_leaves_room_for_what_follows(
    forecaster: Forecaster, analysis: Analysis, options: EnsembleOptions, tmp_path: Path, monkeypatch
):
    writer = ForecastWriter(tmp_path / "fc.zarr", forecaster, staggered([analysis]), options)
    batch, *_ = writer.start()
    step = next(batch.forecast())

    def fails(*_, **__):
        raise torch.OutOfMemoryError("no memory")
        yield

    with monkeypatch.context() as patched:
        patched.setattr(LatentCodec, "decode_groups", fails)
        for _ in range(LEADS_AT_ONCE + 1):
            with pytest.raises(torch.OutOfMemoryError):
                writer.append(batch, step)
    writer.append(batch, step)
