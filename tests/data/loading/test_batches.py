"""Batches come in the order of their steps, whatever makes them, and nothing is left when the reader stops."""

import threading
import time

import numpy as np
import pytest
import torch

from ladcast.data.loading.batches import BatchSource, load_batches
from ladcast.data.loading.order import SampleOrder

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
