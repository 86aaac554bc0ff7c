"""Mean and standard deviation: numpy's numbers, whatever the blocks, the stride and the order."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from data_pipelines.statistics import Moments, channel_moments, statistics
from ladcast.data import reading
from ladcast.data.normalization import Normalizer
from ladcast.data.packing import pack
from ladcast.fields import ChannelSet


def std(moments: Moments) -> np.ndarray:
    return np.sqrt(moments.deviations / moments.count)


def assert_close(moments: Moments, state: np.ndarray) -> None:
    """Compares with numpy over all axes but the channel's."""
    axes = (0, 2, 3)
    wide = state.astype(np.float64)
    np.testing.assert_array_equal(moments.count, np.isfinite(wide).sum(axes))
    np.testing.assert_allclose(moments.mean, np.nanmean(wide, axes), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(std(moments), np.nanstd(wide, axes), rtol=1e-10)


@pytest.fixture
def state(world: xr.Dataset, channels: ChannelSet) -> np.ndarray:
    return pack(world, channels).numpy()


@pytest.mark.parametrize("cuts", [[1], [50], [7, 8, 90], list(range(1, 101))])
def test_merged_parts_are_the_whole(state: np.ndarray, cuts: list[int]):
    first, *others = np.split(state, cuts)
    total = Moments.of(first)
    for part in others:
        total = total + Moments.of(part)
    assert_close(total, state)


def test_merging_does_not_mind_the_order(state: np.ndarray):
    a, b = Moments.of(state[:30]), Moments.of(state[30:])
    np.testing.assert_allclose((a + b).mean, (b + a).mean, rtol=1e-13)
    np.testing.assert_allclose((a + b).deviations, (b + a).deviations, rtol=1e-10)


def test_a_small_spread_about_a_large_mean_survives():
    """A sum of squares in float32 would lose it all: 1e6^2 x 2^-24 is 6e4."""
    state = 1e6 + np.random.default_rng(0).standard_normal((10, 1, 4, 5))
    assert_close(Moments.of(state[:3]) + Moments.of(state[3:]), state)


def test_nan_is_left_out_and_a_part_of_nothing_else_changes_nothing(state: np.ndarray):
    whole = Moments.of(state)
    merged = whole + Moments.of(np.full_like(state[:2], np.nan))
    for name in ("count", "mean", "deviations"):
        np.testing.assert_array_equal(getattr(merged, name), getattr(whole, name))


@pytest.mark.parametrize("frames", [1, 7, 40, 1000])
@pytest.mark.parametrize("stride", [1, 3, 100])
def test_the_moments_of_a_store_do_not_depend_on_its_blocks(
    world: xr.Dataset, channels: ChannelSet, monkeypatch: pytest.MonkeyPatch, frames: int, stride: int
):
    monkeypatch.setattr(reading, "FRAMES_PER_BLOCK", frames)
    expected = pack(world.isel(time=slice(None, None, stride)), channels).numpy()
    assert_close(channel_moments(world, channels, stride=stride), expected)


def test_the_stage_writes_what_a_normalizer_reads(
    store: Path, channel_file: Path, tmp_path: Path, state: np.ndarray, channels: ChannelSet
):
    path = statistics(store, tmp_path / "new" / "statistics.json", channels=str(channel_file))
    normalizer = Normalizer.load(path, channels)
    np.testing.assert_allclose(normalizer.mean, np.nanmean(state, (0, 2, 3), dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(normalizer.std, np.nanstd(state, (0, 2, 3), dtype=np.float64), rtol=1e-6)
    assert [file.name for file in path.parent.iterdir()] == ["statistics.json"]


def test_scaled_states_have_mean_0_and_spread_1(
    store: Path, channel_file: Path, tmp_path: Path, world: xr.Dataset, channels: ChannelSet
):
    path = statistics(store, tmp_path / "statistics.json", channels=str(channel_file))
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
        channels=str(channel_file),
        grid="16x9-south",
        start="2020-01-03",
        end="2020-01-04T12",
    )
    kept = world.sel(time=slice("2020-01-03T00", "2020-01-04T12")).isel(latitude=slice(1, None))
    assert kept.sizes["time"] == 7
    expected = np.nanmean(pack(kept, channels).numpy(), (0, 2, 3), dtype=np.float64)
    np.testing.assert_allclose(Normalizer.load(path, channels).mean, expected, rtol=1e-6)
