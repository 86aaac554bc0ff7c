"""The training data: normalised in half precision, and windows that no gap breaks."""

import numpy as np
import pytest
import torch
import xarray as xr

from ladcast.data.loading.datasets import READ_AT_ONCE, LatentDataset, StateDataset, StoredStates, load_scaled
from ladcast.data.loading.reader import open_reader
from ladcast.data.normalization import Normalizer, pack
from ladcast.fields import ChannelSet
from ladcast.grid import Grid
from ladcast.times import STEP


@pytest.fixture
def long_world(make, grid: Grid) -> xr.Dataset:
    """More states than are read at once, twice."""
    return make(grid, 2 * READ_AT_ONCE + 3)


@pytest.fixture
def normalizer(long_world: xr.Dataset, channels: ChannelSet) -> Normalizer:
    state = pack(long_world, channels).numpy()
    mean, std = (torch.from_numpy(f(state, axis=(0, 2, 3))) for f in (np.nanmean, np.nanstd))
    return Normalizer(channels, mean, std)


@pytest.mark.parametrize("stride", [1, 2, 5, 1000])
@pytest.mark.parametrize("threads", [1, 4])
def test_loaded_frames_are_the_normalised_ones_in_half_precision(
    long_world, channels, normalizer, stride: int, threads: int
):
    kept = long_world.isel(time=slice(None, None, stride))
    loaded = load_scaled(open_reader(kept, normalizer), threads=threads)
    assert loaded.dtype == torch.float16
    assert torch.equal(loaded, normalizer(pack(long_world, channels)[::stride]).half())


def test_progress_counts_to_the_end(long_world, normalizer):
    counts = []
    load_scaled(open_reader(long_world, normalizer), progress=lambda *count: counts.append(count))
    assert counts == [(1, 3), (2, 3), (3, 3)]


def test_a_frame_that_cannot_be_read_stops_the_loading(long_world, normalizer):
    holed = long_world.assign(temperature=long_world["temperature"].where(long_world["time"] != long_world["time"][50]))
    with pytest.raises(ValueError, match="finite values in the state, which fails in the channels: t300, t500, t850"):
        load_scaled(open_reader(holed, normalizer))


def test_states_are_served_as_they_are_kept(generator: torch.Generator):
    scaled = torch.randn(7, 3, 4, 5, generator=generator).half()
    data = StateDataset(scaled)
    assert len(data) == 7
    (batch,) = data.batch(np.array([4, 0, 4]))
    assert batch.dtype == torch.float16
    assert torch.equal(batch, scaled[[4, 0, 4]])


@pytest.mark.parametrize("threads", [1, 3])
def test_states_on_disk_are_those_in_memory(long_world, channels, normalizer, threads: int):
    reader = open_reader(long_world, normalizer)
    wanted = np.array([80, 3, 41, 3])
    (batch,) = StoredStates(reader, threads=threads).batch(wanted)
    assert torch.equal(batch, normalizer(pack(long_world, channels))[wanted])
    (held,) = StateDataset(load_scaled(reader)).batch(wanted)
    assert torch.equal(batch.half(), held)


def latents_that_tell_their_time(kept: np.ndarray) -> tuple[torch.Tensor, np.ndarray]:
    """Returns latents whose value is their step since the first, and their times."""
    numbers = torch.from_numpy(kept).double()
    latents = numbers[:, None, None, None].expand(-1, 2, 3, 4) + torch.tensor([0.0, 0.5])[:, None, None]
    return latents, np.datetime64("2020-02-27", "ns") + kept * STEP


@pytest.mark.parametrize(("past", "future"), [(1, 1), (1, 4), (2, 3), (3, 1)])
def test_windows_never_straddle_a_gap(past: int, future: int):
    random = np.random.default_rng(past + future)
    kept = np.sort(random.choice(200, size=170, replace=False))
    latents, times = latents_that_tell_their_time(kept)
    data = LatentDataset(latents, times, past=past, future=future, step=STEP)
    before, after, init_time = data.batch(np.arange(len(data)))
    assert before.shape == (len(data), 2, past, 3, 4)
    assert after.shape == (len(data), 2, future, 3, 4)
    steps = torch.cat([before, after], dim=2).diff(dim=2)
    assert torch.equal(steps, torch.ones_like(steps))
    possible = [n for n in kept if set(range(n, n + past + future)) <= set(kept)]
    assert before[:, 0, 0, 0, 0].tolist() == possible
    hours = np.datetime64("2020-02-27", "s").astype(int) + before[:, 0, -1, 0, 0].long() * 6 * 3600
    assert torch.equal(init_time, hours)


def test_windows_of_hourly_latents_start_at_every_hour():
    latents, _ = latents_that_tell_their_time(np.arange(40))
    times = np.datetime64("2020-02-27", "ns") + np.arange(40) * np.timedelta64(1, "h")
    data = LatentDataset(latents, times, past=1, future=4, step=STEP)
    past, future, init_time = data.batch(np.arange(len(data)))
    assert past[:, 0, 0, 0, 0].tolist() == list(range(16))
    assert future[3, 0, :, 0, 0].tolist() == [9, 15, 21, 27]
    assert init_time.diff().unique().tolist() == [3600]


def test_windows_take_any_step():
    latents, times = latents_that_tell_their_time(np.arange(40))
    past, future, init_time = LatentDataset(latents, times, past=1, future=2, step=np.timedelta64(24, "h")).batch(
        np.array([0, 5])
    )
    assert past[:, 0, 0, 0, 0].tolist() == [0, 5]
    assert future[:, 0, :, 0, 0].tolist() == [[4, 8], [9, 13]]
    assert init_time.diff().tolist() == [5 * 6 * 3600]


def test_channels_stay_apart_from_times():
    latents, times = latents_that_tell_their_time(np.arange(9))
    past, future, _ = LatentDataset(latents, times, past=2, future=3, step=STEP).batch(np.array([4]))
    assert past[0, :, :, 0, 0].tolist() == [[4, 5], [4.5, 5.5]]
    assert future[0, :, :, 0, 0].tolist() == [[6, 7, 8], [6.5, 7.5, 8.5]]


@pytest.mark.parametrize("kept", [np.arange(4), np.arange(0, 40, 2)])
def test_a_stretch_without_a_window_is_refused(kept: np.ndarray):
    latents, times = latents_that_tell_their_time(kept)
    with pytest.raises(
        ValueError, match=rf"runs of 5 times that are 6 h .* none among {len(kept)}\..*`ladcast-data encode`"
    ):
        LatentDataset(latents, times, past=1, future=4, step=STEP)
