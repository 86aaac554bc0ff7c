"""Batches come in the order of their steps, whatever makes them, and nothing is left when the reader stops.

The order of samples is a pure function of (seed, step), and every epoch is a permutation.
"""

import threading
import time

import numpy as np
import pytest
import torch
import xarray as xr

from ladcast.data.batches import (
    READ_AT_ONCE,
    BatchSource,
    LatentDataset,
    SampleOrder,
    StateDataset,
    StoredStates,
    load_batches,
    load_scaled,
    shuffle,
)
from ladcast.data.normalization import Normalizer, pack
from ladcast.data.reader import open_reader
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


CPU = torch.device("cpu")


class Numbers:
    """Serves each index as its own sample, batches of odd samples late."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.made: list[np.ndarray] = []

    def __len__(self) -> int:
        return self.length

    def batch(self, indices: np.ndarray) -> tuple[torch.Tensor, ...]:
        time.sleep(0.001 * (indices[0] % 2))
        self.made.append(indices)
        numbers = torch.from_numpy(indices)
        return numbers, numbers.double().sqrt()


class Broken(Numbers):
    """Fails at the batch that holds sample 13."""

    def batch(self, indices: np.ndarray) -> tuple[torch.Tensor, ...]:
        if 13 in indices:
            raise ValueError("sample 13 is broken")
        return super().batch(indices)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("steps", [range(0), range(1), range(30), range(17, 23)])
def test_batches_come_in_the_order_of_their_steps(steps: range, threads: int):
    order = SampleOrder(26, 4, seed=5)
    shown = list(load_batches(Numbers(26), order, steps=steps, device=CPU, threads=threads))
    assert [numbers.tolist() for numbers, _ in shown] == [order.batch(step).tolist() for step in steps]
    for numbers, roots in shown:
        torch.testing.assert_close(roots**2, numbers.double())


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("stopped", [0, 1, 7, 13])
def test_a_resumed_run_sees_the_rest_with_any_number_of_threads(stopped: int, threads: int):
    order = SampleOrder(26, 4, seed=5)
    whole = [numbers.tolist() for numbers, _ in load_batches(Numbers(26), order, steps=range(20), device=CPU)]
    first = order.resume(order.state(stopped))
    rest = load_batches(Numbers(26), order, steps=range(first, 20), device=CPU, threads=threads)
    assert [numbers.tolist() for numbers, _ in rest] == whole[stopped:]


def test_an_error_comes_at_the_turn_of_its_batch():
    order = SampleOrder(26, 2, seed=5)
    bad = next(step for step in range(13) if 13 in order.batch(step))
    batches = load_batches(Broken(26), order, steps=range(13), device=CPU, threads=3, ahead=8)
    for step in range(bad):
        assert next(batches)[0].tolist() == order.batch(step).tolist()
    with pytest.raises(ValueError, match="sample 13 is broken"):
        next(batches)


@pytest.mark.parametrize("ahead", [1, 4])
def test_no_more_batches_are_made_than_asked_for(ahead: int):
    source = Numbers(26)
    batches = load_batches(source, SampleOrder(26, 2), steps=range(13), device=CPU, ahead=ahead)
    assert not source.made
    for used in range(1, 6):
        next(batches)
        time.sleep(0.01)
        assert len(source.made) <= used + ahead
    batches.close()


def test_closing_early_leaves_no_threads():
    before = set(threading.enumerate())
    batches = load_batches(Numbers(26), SampleOrder(26, 2), steps=range(1000), device=CPU, threads=4)
    next(batches)
    assert set(threading.enumerate()) > before
    batches.close()
    assert set(threading.enumerate()) == before


def test_a_source_is_recognised_by_what_it_can():
    assert isinstance(Numbers(3), BatchSource)


@pytest.mark.gpu
def test_copies_to_the_gpu_are_whole_while_it_computes():
    """Large batches are checked on the GPU while other kernels run and pinned memory is used again."""

    class Large(Numbers):
        def batch(self, indices: np.ndarray) -> tuple[torch.Tensor, ...]:
            return (torch.from_numpy(indices)[:, None].float().expand(-1, 2_000_000).contiguous(),)

    order, device = SampleOrder(64, 8), torch.device("cuda")
    work = torch.randn(4096, 4096, device=device)
    for step, (batch,) in enumerate(load_batches(Large(64), order, steps=range(50), device=device)):
        work = (work @ work).clamp(-1, 1)
        expected = torch.from_numpy(order.batch(step)).float().to(device)
        assert torch.equal(batch.amin(1), expected)
        assert torch.equal(batch.amax(1), expected)


def shown(order: SampleOrder, steps: range) -> np.ndarray:
    return np.concatenate([order.batch(step) for step in steps])


@pytest.mark.parametrize(("samples", "batch_size"), [(24, 4), (26, 4), (7, 7), (5, 1), (101, 10)])
def test_every_epoch_shows_every_sample_once(samples: int, batch_size: int):
    order = SampleOrder(samples, batch_size, seed=3)
    seen = shown(order, range(3 * samples))
    for epoch in seen.reshape(-1, samples):
        assert sorted(epoch) == list(range(samples))


def test_epochs_and_seeds_shuffle_anew():
    orders = [shown(SampleOrder(24, 4, seed), range(6 * n, 6 * n + 6)).tolist() for n in (0, 1) for seed in (0, 1)]
    assert all(a != b for i, a in enumerate(orders) for b in orders[:i])


def test_every_sample_is_as_likely_in_every_place():
    orders = np.array([SampleOrder(8, 8, seed).batch(0) for seed in range(4000)])
    counts = [np.bincount(place, minlength=8) for place in orders.T]
    assert abs(np.array(counts) - 500).max() < 5 * np.sqrt(500)


def test_the_order_is_the_same_for_ever():
    # Known numbers of Philox 4x64-10; a change would make every resumed run another one.
    assert shuffle(8, 0, 0).tolist() == [0, 2, 1, 5, 4, 3, 6, 7]
    with pytest.raises(ValueError, match="read-only"):
        shuffle(8, 0, 0)[0] = 1


@pytest.mark.parametrize("world_size", [1, 2, 3, 6, 12])
def test_ranks_share_the_batch_of_every_step(world_size: int):
    whole = SampleOrder(50, 12, seed=1)
    ranks = [SampleOrder(50, 12, seed=1, rank=rank, world_size=world_size) for rank in range(world_size)]
    for step in range(20):
        parts = [rank.batch(step) for rank in ranks]
        assert {len(part) for part in parts} == {12 // world_size}
        assert np.stack(parts, axis=1).ravel().tolist() == whole.batch(step).tolist()


def test_ranks_are_disjoint_within_an_epoch():
    ranks = [SampleOrder(48, 12, rank=rank, world_size=4) for rank in range(4)]
    shares = [set(shown(rank, range(4)).tolist()) for rank in ranks]
    assert set.union(*shares) == set(range(48))
    assert sum(map(len, shares)) == 48


@pytest.mark.parametrize("step", [0, 1, 5, 6, 50])
@pytest.mark.parametrize(("batch_size", "world_size"), [(4, 1), (4, 2), (2, 2), (1, 1)])
def test_a_saved_state_goes_on_with_the_same_samples(step: int, batch_size: int, world_size: int):
    before = SampleOrder(26, 4, seed=7)
    ranks = [SampleOrder(26, batch_size, 7, rank, world_size) for rank in range(world_size)]
    first = ranks[0].resume(before.state(step))
    rest = [np.stack([rank.batch(k) for rank in ranks], axis=1).ravel() for k in range(first, first + 60)]
    expected = shown(before, range(step, step + 60))
    assert np.concatenate(rest).tolist() == expected[: 60 * batch_size].tolist()


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (SampleOrder(26, 4, seed=8), r"seed was 7, now 8"),
        (SampleOrder(27, 4, seed=7), r"samples was 26, now 27"),
        (SampleOrder(26, 8, seed=7), r"after 12 samples, no multiple of 'batch_size' 8"),
    ],
)
def test_a_state_of_another_order_is_refused(other: SampleOrder, message: str):
    with pytest.raises(ValueError, match=message):
        other.resume(SampleOrder(26, 4, seed=7).state(3))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"samples": 3, "batch_size": 4}, r"3 training samples do not fill one batch of 4\. Lower 'batch_size'"),
        ({"samples": 9, "batch_size": 0}, "9 training samples do not fill one batch of 0"),
        ({"samples": 9, "batch_size": 4, "world_size": 3}, "batch of 4 does not divide among 3 ranks"),
        ({"samples": 9, "batch_size": 4, "rank": 2, "world_size": 2}, "rank=2 of 2"),
        ({"samples": 9, "batch_size": 4, "seed": -1}, "seed=-1"),
    ],
)
def test_impossible_orders_are_refused(arguments: dict[str, int], message: str):
    with pytest.raises(ValueError, match=message):
        SampleOrder(**arguments)
