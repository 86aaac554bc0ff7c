"""The weight average against its formula."""

import pytest
import torch

from ladcast.training.ema import WeightAverage


def test_it_follows_the_recurrence(generator: torch.Generator):
    """average <- d average + (1 - d) weights, with d = min(decay, (1 + n) / (10 + n))."""
    weights = {"a": torch.randn(3, 2, generator=generator), "b": torch.randn(4, generator=generator)}
    average = WeightAverage(weights, decay=0.4)
    expected = {name: tensor.double() for name, tensor in weights.items()}
    for n in range(12):
        weights = {name: torch.randn(tensor.shape, generator=generator) for name, tensor in weights.items()}
        average.update(weights)
        decay = min(0.4, (1 + n) / (10 + n))
        expected = {name: decay * expected[name] + (1 - decay) * weights[name] for name in weights}
        for name, tensor in expected.items():
            torch.testing.assert_close(average.weights[name].double(), tensor, rtol=1e-5, atol=1e-6)
    assert average.updates == 12


def test_weights_that_do_not_change_are_their_average():
    weights = {"a": torch.tensor([0.1, -3.0])}
    average = WeightAverage(weights, decay=0.999)
    for _ in range(50):
        average.update(weights)
    assert torch.equal(average.weights["a"], weights["a"])


def test_it_forgets_the_start_within_the_time_that_the_decay_says():
    average = WeightAverage({"a": torch.zeros(1)}, decay=0.9)
    for _ in range(100):
        average.update({"a": torch.ones(1)})
    assert average.weights["a"].item() == pytest.approx(1, abs=0.9**90)


def test_it_neither_follows_nor_changes_the_weights_it_was_given():
    weights = {"a": torch.nn.Parameter(torch.zeros(2))}
    average = WeightAverage(weights, decay=0.9)
    average.update({"a": torch.ones(2)})
    assert weights["a"].tolist() == [0, 0]
    assert not average.weights["a"].requires_grad
    weights["a"].data.fill_(7)
    assert average.weights["a"].max() < 1
