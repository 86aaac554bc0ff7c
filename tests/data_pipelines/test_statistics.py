"""Mean and standard deviation: numpy's numbers, whatever the units, the stride and the order."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from data_pipelines import Execution, StateSelection
from data_pipelines.statistics import FrameMoments, climatology, statistics
from ladcast.data.normalization import Normalizer, pack
from ladcast.fields import ChannelSet
from ladcast.verification.climatology import Climatology, fit_climatology

HERE = Execution(workers=0)


def assert_close(moments: FrameMoments, state: np.ndarray) -> None:
    """Compares with numpy over all axes but the channel's."""
    axes = (0, 2, 3)
    wide = state.astype(np.float64)
    mean, std = moments.mean_and_std()
    np.testing.assert_array_equal(moments.count.sum(0), np.isfinite(wide).sum(axes))
    np.testing.assert_allclose(mean, np.nanmean(wide, axes), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(std, np.nanstd(wide, axes), rtol=1e-10)


@pytest.fixture
def state(world: xr.Dataset, channels: ChannelSet) -> np.ndarray:
    return pack(world, channels).numpy()


@pytest.mark.parametrize("cuts", [[1], [50], [7, 8, 90], list(range(1, 101))])
def test_merged_parts_are_the_whole(state: np.ndarray, cuts: list[int]):
    assert_close(FrameMoments.concatenate(map(FrameMoments.of, np.split(state, cuts))), state)


def test_neither_cuts_nor_order_change_a_bit(state: np.ndarray):
    whole = FrameMoments.of(state).mean_and_std()
    parts = [FrameMoments.of(part) for part in np.split(state, [1, 17, 18, 60])]
    for order in ((0, 1, 2, 3, 4), (4, 2, 0, 3, 1)):
        merged = FrameMoments.concatenate(parts[k] for k in order).mean_and_std()
        np.testing.assert_array_equal(merged, whole)


def test_a_small_spread_about_a_large_mean_survives():
    """A sum of squares in float32 would lose it all: 1e6^2 x 2^-24 is 6e4."""
    state = 1e6 + np.random.default_rng(0).standard_normal((10, 1, 4, 5))
    assert_close(FrameMoments.concatenate([FrameMoments.of(state[:3]), FrameMoments.of(state[3:])]), state)


def test_nan_is_left_out_and_frames_of_nothing_else_change_nothing(state: np.ndarray):
    parts = [state, np.full_like(state[:2], np.nan)]
    merged = FrameMoments.concatenate(map(FrameMoments.of, parts))
    np.testing.assert_array_equal(merged.mean_and_std(), FrameMoments.of(state).mean_and_std())


def test_a_channel_without_values_has_no_mean():
    mean, std = FrameMoments.of(np.full((2, 1, 3, 4), np.nan)).mean_and_std()
    assert np.isnan(mean).all()
    assert np.isnan(std).all()


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [1, 7, 50])
def test_neither_chunks_nor_units_nor_workers_change_a_bit(
    world: xr.Dataset, store: Path, channel_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
):
    selection = StateSelection(channels=str(channel_file))
    expected = statistics(store, tmp_path / "a.json", selection=selection, execution=HERE).read_bytes()
    copy = tmp_path / "copy.zarr"
    world.chunk(time=chunk).to_zarr(copy)
    monkeypatch.setattr("data_pipelines.statistics.FRAMES_PER_UNIT", 3 * chunk)
    assert statistics(copy, tmp_path / "b.json", selection=selection, execution=HERE).read_bytes() == expected


@pytest.mark.slow
def test_workers_do_not_change_a_bit(store: Path, channel_file: Path, tmp_path: Path):
    files = [
        statistics(
            store,
            tmp_path / f"{workers}.json",
            selection=StateSelection(channels=str(channel_file)),
            execution=Execution(workers=workers),
        ).read_bytes()
        for workers in (0, 1)
    ]
    assert files[0] == files[1]


def test_a_hole_in_a_field_stops_the_stage(world: xr.Dataset, channel_file: Path, tmp_path: Path):
    hole = world.copy(deep=True)
    hole["temperature"][50, 0, 0, 0] = np.nan
    hole.to_zarr(tmp_path / "hole.zarr")
    selection = StateSelection(channels=str(channel_file))
    with pytest.raises(ValueError, match=r"'temperature' at 500 hPa: expected no NaN, got 0.7% NaN at 2020-01-13T12"):
        statistics(tmp_path / "hole.zarr", tmp_path / "a.json", selection=selection, execution=HERE)


@pytest.mark.parametrize("stride", [3, 100])
def test_every_nth_frame_counts(store: Path, channel_file: Path, tmp_path: Path, state, channels, stride: int):
    selection = StateSelection(channels=str(channel_file))
    path = statistics(store, tmp_path / "a.json", stride=stride, selection=selection, execution=HERE)
    expected = np.nanmean(state[::stride], (0, 2, 3), dtype=np.float64)
    np.testing.assert_allclose(Normalizer.load(path, channels).mean, expected, rtol=1e-6)


def test_the_stage_writes_what_a_normalizer_reads(
    store: Path, channel_file: Path, tmp_path: Path, state: np.ndarray, channels: ChannelSet
):
    path = statistics(
        store,
        tmp_path / "new" / "statistics.json",
        selection=StateSelection(channels=str(channel_file)),
        execution=HERE,
    )
    normalizer = Normalizer.load(path, channels)
    np.testing.assert_allclose(normalizer.mean, np.nanmean(state, (0, 2, 3), dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(normalizer.std, np.nanstd(state, (0, 2, 3), dtype=np.float64), rtol=1e-6)
    assert sorted(file.name for file in path.parent.iterdir()) == ["statistics.json", "statistics.json.manifest.json"]


def test_scaled_states_have_mean_0_and_spread_1(
    store: Path, channel_file: Path, tmp_path: Path, world: xr.Dataset, channels: ChannelSet
):
    path = statistics(
        store, tmp_path / "statistics.json", selection=StateSelection(channels=str(channel_file)), execution=HERE
    )
    state = pack(world, channels)
    scaled = Normalizer.load(path, channels)(state).masked_fill(state.isnan(), float("nan")).numpy()
    np.testing.assert_allclose(np.nanmean(scaled, (0, 2, 3)), 0, atol=1e-3)
    np.testing.assert_allclose(np.nanstd(scaled, (0, 2, 3)), 1, atol=1e-3)


def test_only_the_period_and_the_grid_that_are_asked_for_count(
    store: Path, channel_file: Path, tmp_path: Path, world: xr.Dataset, channels: ChannelSet
):
    path = statistics(
        store,
        tmp_path / "statistics.json",
        selection=StateSelection("2020-01-03", "2020-01-04T12", channels=str(channel_file), grid="16x9-south"),
        execution=HERE,
    )
    kept = world.sel(time=slice("2020-01-03T00", "2020-01-04T12")).isel(latitude=slice(1, None))
    assert kept.sizes["time"] == 7
    expected = np.nanmean(pack(kept, channels).numpy(), (0, 2, 3), dtype=np.float64)
    np.testing.assert_allclose(Normalizer.load(path, channels).mean, expected, rtol=1e-6)


@pytest.mark.parametrize("stride", [0, -1])
def test_a_stride_that_takes_no_frames_is_refused(store: Path, channel_file: Path, tmp_path: Path, stride: int):
    selection = StateSelection(channels=str(channel_file))
    with pytest.raises(ValueError, match=rf"--stride of at least 1, got {stride}"):
        statistics(store, tmp_path / "a.json", stride=stride, selection=selection, execution=HERE)


def test_the_file_holds_the_fit_of_the_period(store: Path, channel_file: Path, world: xr.Dataset, tmp_path: Path):
    path = climatology(
        store,
        tmp_path / "climatology.nc",
        selection=StateSelection(channels=str(channel_file), grid="16x9-south", end="2020-01-20"),
        window_days=365,
        step_days=61,
        execution=Execution(workers=0),
    )
    written = xr.load_dataset(path)
    kept = world.drop_vars("land_sea_mask").sel(time=slice(None, "2020-01-20T00")).isel(latitude=slice(1, None))
    expected = fit_climatology(kept, days=365, step=61)
    assert set(written.data_vars) == set(expected.data_vars)
    for name in expected.data_vars:
        np.testing.assert_allclose(written[name], expected[name].transpose(*written[name].dims), rtol=2**-8)
    assert written.attrs["source"] == "random numbers"
    assert set(Climatology(written).part("mean")) == {
        "geopotential",
        "temperature",
        "2m_temperature",
        "sea_surface_temperature",
    }


@pytest.mark.slow
def test_hours_and_quantiles_are_fitted_where_they_are_asked_for(
    store: Path, channel_file: Path, world: xr.Dataset, tmp_path: Path
):
    path = climatology(
        store,
        tmp_path / "climatology.nc",
        selection=StateSelection(channels=str(channel_file), grid="16x9-south"),
        window_days=365,
        step_days=61,
        hourly=True,
        quantiles=(0.1, 0.9),
        execution=Execution(workers=0),
    )
    written = Climatology(xr.load_dataset(path))
    assert written.dataset["hour"].values.tolist() == [0, 6, 12, 18]
    assert written.probabilities == (0.1, 0.9)
    at = world["time"].values[[1]]
    expected = Climatology(
        fit_climatology(
            world[["geopotential"]].isel(latitude=slice(1, None)), days=365, step=61, hourly=True, quantiles=(0.1, 0.9)
        )
    )
    xr.testing.assert_allclose(
        written.at("quantiles", at)["geopotential"].transpose("time", "level", "latitude", "longitude", "quantile"),
        expected.at("quantiles", at)["geopotential"].transpose("time", "level", "latitude", "longitude", "quantile"),
        rtol=2**-14,
    )
