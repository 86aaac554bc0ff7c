import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from ladcast.checksums import CHECKSUMS
from ladcast.data.analysis import Analysis
from ladcast.forecasting.ensemble import EnsembleOptions, member_batches, staggered
from ladcast.forecasting.forecaster import Forecaster
from ladcast.forecasts.latents import Frame, LatentStore, LatentWriter, all_frames, members_per_chunk
from ladcast.forecasts.write import ForecastWriter
from worlds import tiny_analysis, tiny_forecaster

CHUNKS = "latent/c"


@pytest.fixture
def options(forecaster: Forecaster) -> EnsembleOptions:
    return EnsembleOptions(3, 2, 0, batch_size=2)


def write(
    path: Path,
    forecaster: Forecaster,
    analyses: Analysis | Sequence[Analysis],
    options: EnsembleOptions,
    *,
    stop_after: int | None = None,
    unsaved: bool = False,
) -> None:
    """Makes a forecast, or only its first steps, as a kill would leave it; `unsaved`, before progress is saved."""
    conditions = staggered([analyses] if isinstance(analyses, Analysis) else analyses)
    writer = LatentWriter(path, forecaster, conditions, options)
    steps = ((batch, step) for batch in writer.start() for step in batch.forecast())
    for done, (batch, step) in enumerate(steps, start=1):
        if done == stop_after and unsaved:
            writer.unfinished.save = lambda *_: None
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


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_the_store_holds_what_was_sampled(
    forecaster: Forecaster, analysis: Analysis, options: EnsembleOptions, tmp_path: Path
):
    write(tmp_path / "fc.zarr", forecaster, analysis, options)
    store = LatentStore(tmp_path / "fc.zarr")
    for batch in member_batches(forecaster, staggered([analysis]), options):
        for step in batch.forecast():
            for row, member in enumerate(batch.members):
                for index, lead in enumerate(step.valid_times - analysis.time):
                    frame = Frame(0, int(np.flatnonzero(store.layout.lead_times == lead)[0]), member)
                    assert (store.read([frame])[0] == step.latents[row, :, index]).all()
    assert (store.ocean(0) == analysis.ocean).all()


@pytest.mark.slow
def test_the_store_describes_itself(
    forecaster: Forecaster, analysis: Analysis, options: EnsembleOptions, tmp_path: Path
):
    write(tmp_path / "fc.zarr", forecaster, replace(analysis, filled=("w50",)), options)
    store = LatentStore(tmp_path / "fc.zarr")
    assert store.manifest.model == forecaster.name
    assert store.layout.channels == forecaster.channels
    assert store.layout.grid == forecaster.grid
    identity = json.loads(store.attributes["history"])
    assert identity["options"]["seed"] == 0
    assert identity["options"]["sampling"]["steps"] == 3
    assert identity["source"] == "a test"
    assert identity["filled"] == ["w50"]
    ds = xr.open_zarr(tmp_path / "fc.zarr", chunks=None, decode_timedelta=True)
    assert ds["time"].attrs["standard_name"] == "forecast_reference_time"
    assert ds["latent"].dims == ("time", "prediction_timedelta", "number", "latent", "y", "x")
    assert ds["latent"].dtype == np.float32
    assert ds["latent"].encoding["chunks"] == (1, 1, 2, 4, 4, 8)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stop_after", "unsaved"), [(1, False), (2, False), (3, False), (4, False), (1, True), (3, True)]
)
def test_a_killed_forecast_resumes_to_the_same_bytes(
    stop_after: int,
    unsaved: bool,
    whole: Path,
    forecaster: Forecaster,
    analysis: Analysis,
    options: EnsembleOptions,
    tmp_path: Path,
):
    write(tmp_path / "killed.zarr", forecaster, analysis, options, stop_after=stop_after, unsaved=unsaved)
    assert not (tmp_path / "killed.zarr").exists()
    write(tmp_path / "killed.zarr", forecaster, analysis, options)
    assert contents(tmp_path / "killed.zarr") == contents(whole)


@pytest.mark.slow
def test_a_forecast_killed_before_its_first_position_starts_afresh(
    forecaster: Forecaster, analysis: Analysis, options: EnsembleOptions, tmp_path: Path
):
    (tmp_path / "fc.zarr.partial" / "store" / "latent").mkdir(parents=True)
    write(tmp_path / "fc.zarr", forecaster, analysis, options)
    assert LatentStore(tmp_path / "fc.zarr").layout.members.tolist() == [0, 1, 2]


def test_latents_do_not_go_on_as_fields(
    forecaster: Forecaster, analysis: Analysis, options: EnsembleOptions, tmp_path: Path
):
    write(tmp_path / "fc.zarr", forecaster, analysis, options, stop_after=1)
    with pytest.raises(FileExistsError, match="kind of store was 'latents', now 'fields'"):
        ForecastWriter(tmp_path / "fc.zarr", forecaster, staggered([analysis]), options).start()


@pytest.mark.slow
def test_forecasts_from_the_hours_before_fill_the_hours_between(
    forecaster: Forecaster, analysis: Analysis, options: EnsembleOptions, tmp_path: Path
):
    options = replace(options, blocks=1)
    hourly = [replace(analysis, time=analysis.time - np.timedelta64(hour, "h")) for hour in range(6)]
    write(tmp_path / "whole.zarr", forecaster, hourly, options)
    write(tmp_path / "killed.zarr", forecaster, hourly, options, stop_after=7)
    write(tmp_path / "killed.zarr", forecaster, hourly, options)
    assert contents(tmp_path / "killed.zarr") == contents(tmp_path / "whole.zarr")
    store = LatentStore(tmp_path / "whole.zarr")
    np.testing.assert_array_equal(store.layout.lead_times, np.arange(1, 25) * np.timedelta64(1, "h"))
    assert store.read(list(all_frames([0], range(24), range(3)))).isfinite().all()


@pytest.mark.slow
def test_several_initial_times_share_a_store(
    forecaster: Forecaster, analysis: Analysis, options: EnsembleOptions, tmp_path: Path
):
    later = replace(analysis, time=analysis.time + np.timedelta64(1, "D"), ocean=~analysis.ocean)
    conditions = staggered([analysis]) + staggered([later])
    writer = LatentWriter(tmp_path / "fc.zarr", forecaster, conditions, options)
    for batch in writer.start():
        for step in batch.forecast():
            writer.append(batch, step)
    store = LatentStore(writer.finish())
    assert store.layout.init_times.tolist() == [
        start.time.astype("datetime64[ns]").item() for start in (analysis, later)
    ]
    assert (store.ocean(1) == later.ocean).all()
    first, second = store.read([Frame(0, 0, 0), Frame(1, 0, 0)])
    assert not (first == second).all()


@pytest.mark.parametrize(("batch_size", "expected"), [(1, 1), (2, 2), (8, 8), (50, 5), (24, 8), (7, 7), (11, 1)])
def test_batches_own_whole_chunks(batch_size: int, expected: int, forecaster: Forecaster):
    options = EnsembleOptions(50, 1, 0, batch_size=batch_size)
    assert members_per_chunk(options) == expected


def test_a_missing_chunk_is_named(kept):
    (kept.latents / CHUNKS / "0/2/1/0/0/0").unlink()
    with pytest.raises(ValueError, match=r"latent/c/0/2/1/0/0/0 is missing\. Copy or make fc\.latents\.zarr again"):
        LatentStore(kept.latents)
    (kept.latents / CHECKSUMS).unlink()  # as stores of earlier versions
    store = LatentStore(kept.latents)
    store.read([Frame(0, 2, 1)])
    with pytest.raises(ValueError, match=r"member 2 of the forecast from 2001-02-28T12, lead 18 h, is missing.*copy"):
        store.read([Frame(0, 2, 1), Frame(0, 2, 2)])


@pytest.mark.parametrize("damage", ["truncate", "flip"])
def test_a_damaged_chunk_is_named(kept, damage: str):
    (kept.latents / CHECKSUMS).unlink()
    chunk = kept.latents / CHUNKS / "0/0/0/0/0/0"
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 1
    chunk.write_bytes(content[: len(content) // 2] if damage == "truncate" else content)
    with pytest.raises(ValueError, match=r"member 0 of .*, lead 6 h, is damaged"):
        LatentStore(kept.latents).read([Frame(0, 0, 0)])


@pytest.mark.parametrize("lost", ["prediction_timedelta", "number", "ocean"])
def test_a_lost_small_array_is_found(kept, lost: str):
    for path in (kept.latents / lost / "c").rglob("*"):
        if path.is_file():
            path.unlink()
    with pytest.raises(ValueError, match=lost):
        LatentStore(kept.latents)
    (kept.latents / CHECKSUMS).unlink()
    with pytest.raises(ValueError, match=lost):
        LatentStore(kept.latents)
