"""The order of samples is a pure function of (seed, step), and every epoch is a permutation."""

import numpy as np
import pytest
import torch

from ladcast.training.batches import batch_indices, load_batches


class Numbers:
    """Serves each index as its own sample."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def batch(self, indices: np.ndarray) -> tuple[torch.Tensor, ...]:
        numbers = torch.from_numpy(indices)
        return numbers, numbers.double().sqrt()


def epoch(number: int, *, length: int, batch_size: int, seed: int) -> np.ndarray:
    per_epoch = length // batch_size
    steps = range(number * per_epoch, (number + 1) * per_epoch)
    return np.concatenate([batch_indices(length, batch_size, seed=seed, step=step) for step in steps])


@pytest.mark.parametrize("number", [0, 1, 7])
def test_an_epoch_shows_every_sample_once(number: int):
    assert sorted(epoch(number, length=24, batch_size=4, seed=3)) == list(range(24))


def test_a_short_last_batch_is_dropped_and_no_sample_comes_twice():
    shown = epoch(0, length=26, batch_size=4, seed=3)
    assert len(shown) == 24
    assert len(set(shown)) == 24
    assert set(shown) <= set(range(26))


def test_epochs_and_seeds_shuffle_anew():
    options = {"length": 24, "batch_size": 4}
    orders = [epoch(number, seed=seed, **options).tolist() for number in (0, 1) for seed in (0, 1)]
    assert all(a != b for i, a in enumerate(orders) for b in orders[:i])


def test_every_sample_is_as_likely_in_every_place():
    first = [batch_indices(8, 1, seed=seed, step=0)[0] for seed in range(4000)]
    counts = np.bincount(first, minlength=8)
    assert abs(counts - 500).max() < 5 * np.sqrt(500)


def test_one_batch_must_be_filled():
    with pytest.raises(ValueError, match=r"3 training samples do not fill one batch of 4\. Lower 'batch_size'"):
        batch_indices(3, 4, seed=0, step=0)


@pytest.mark.parametrize("steps", [range(0), range(1), range(30), range(17, 23)])
def test_batches_come_in_the_order_of_their_steps(steps: range):
    batches = load_batches(Numbers(26), 4, seed=5, steps=steps, device=torch.device("cpu"))
    shown = [(numbers.tolist(), roots) for numbers, roots in batches]
    assert [numbers for numbers, _ in shown] == [batch_indices(26, 4, seed=5, step=step).tolist() for step in steps]
    for numbers, roots in shown:
        torch.testing.assert_close(roots**2, torch.tensor(numbers, dtype=torch.float64))
