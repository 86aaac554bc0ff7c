"""The order of samples is a pure function of (seed, step), and every epoch is a permutation."""

import numpy as np
import pytest

from ladcast.data.loading.order import SampleOrder, shuffle


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
        (SampleOrder(26, 4, seed=8), r"'seed': 7\}, this run's .*'seed': 8"),
        (SampleOrder(27, 4, seed=7), r"'samples': 26, .* this run's .*'samples': 27"),
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
