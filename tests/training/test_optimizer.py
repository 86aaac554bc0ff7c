"""AdamW with its schedule and its state by name, the weight average, and the watch over gradients."""

import copy
import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn

from ladcast.training.optimizer import (
    GradientWatch,
    WeightAverage,
    build_optimizer,
    learning_rate,
    optimizer_state,
    restore_optimizer,
)
from ladcast.training.options import AnomalyPolicy, OptimizerOptions

OPTIONS = OptimizerOptions(learning_rate=2e-3, warmup_steps=10, final_fraction=0.1, weight_decay=0.3)


def rates(total: int = 110, options: OptimizerOptions = OPTIONS) -> list[float]:
    return [learning_rate(options, step, total) for step in range(total + 1)]


def test_the_rate_climbs_evenly_then_follows_a_cosine():
    schedule = rates()
    assert schedule[:10] == pytest.approx([2e-3 * step / 10 for step in range(1, 11)])
    cosine = [0.1 + 0.9 * (1 + math.cos(math.pi * step / 100)) / 2 for step in range(101)]
    assert schedule[10:] == pytest.approx([2e-3 * share for share in cosine])


def test_the_rate_is_continuous_and_never_leaves_its_range():
    schedule = rates()
    assert max(schedule) == pytest.approx(2e-3)
    assert schedule[-1] == pytest.approx(2e-4)
    assert min(schedule) > 0
    assert max(abs(b - a) for a, b in pairwise(schedule)) <= 2e-3 / 10 + 1e-12


def test_after_the_last_step_the_rate_stays_at_its_end():
    assert learning_rate(OPTIONS, 500, 110) == pytest.approx(2e-4)


@pytest.mark.parametrize("warmup", [0, 50])
def test_a_run_without_or_within_its_warm_up_has_a_rate(warmup: int):
    options = OptimizerOptions(warmup_steps=warmup)
    assert all(0 < rate <= options.learning_rate for rate in rates(50, options))


def test_vectors_are_not_decayed():
    """With no gradient AdamW only decays: weights shrink by 1 - rate x decay, biases stay."""
    model = nn.Linear(3, 2)
    model.requires_grad_(True)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = build_optimizer(model, OPTIONS)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.testing.assert_close(model.weight.detach(), before["weight"] * (1 - 2e-3 * 0.3))
    assert torch.equal(model.bias.detach(), before["bias"])


def test_frozen_parameters_stay_out():
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    model[0].requires_grad_(False)
    groups = build_optimizer(model, OPTIONS).param_groups
    assert {id(p) for group in groups for p in group["params"]} == {id(p) for p in model[1].parameters()}


def step_once(model: nn.Module, optimizer: torch.optim.Optimizer, inputs: torch.Tensor) -> None:
    model(inputs).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def test_a_restored_optimizer_takes_the_same_steps(generator: torch.Generator):
    inputs = torch.randn(5, 3, generator=generator)
    model, twin = nn.Linear(3, 2), nn.Linear(3, 2)
    optimizer, restored = build_optimizer(model, OPTIONS), build_optimizer(twin, OPTIONS)
    for _ in range(3):
        step_once(model, optimizer, inputs)
    twin.load_state_dict(model.state_dict())
    restore_optimizer(twin, restored, copy.deepcopy(optimizer_state(model, optimizer)))
    for _ in range(3):
        step_once(model, optimizer, inputs)
        step_once(twin, restored, inputs)
    assert torch.equal(model.weight, twin.weight)
    assert torch.equal(model.bias, twin.bias)


def test_a_restored_optimizer_keeps_its_own_settings(generator: torch.Generator):
    model = nn.Linear(3, 2)
    optimizer, other = build_optimizer(model, OPTIONS), build_optimizer(model, replace(OPTIONS, weight_decay=0.5))
    step_once(model, optimizer, torch.randn(5, 3, generator=generator))
    restore_optimizer(model, other, optimizer_state(model, optimizer))
    assert [group["weight_decay"] for group in other.param_groups] == [0.5, 0.0]
    assert {values["step"].item() for values in other.state.values()} == {1}


def test_the_state_has_the_names_of_the_parameters_that_are_trained(generator: torch.Generator):
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    model[0].requires_grad_(False)
    optimizer = build_optimizer(model, OPTIONS)
    step_once(model, optimizer, torch.randn(5, 3, generator=generator))
    tensors = {name for name, value in optimizer_state(model, optimizer).items() if isinstance(value, torch.Tensor)}
    assert tensors == {f"state.1.{p}.{s}" for p in ("weight", "bias") for s in ("step", "exp_avg", "exp_avg_sq")}


def test_the_average_follows_its_recurrence(generator: torch.Generator):
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


def test_the_average_forgets_the_start_within_the_time_that_the_decay_says():
    average = WeightAverage({"a": torch.zeros(1)}, decay=0.9)
    for _ in range(100):
        average.update({"a": torch.ones(1)})
    assert average.weights["a"].item() == pytest.approx(1, abs=0.9**90)


def test_the_average_neither_follows_nor_changes_the_weights_it_was_given():
    weights = {"a": nn.Parameter(torch.zeros(2))}
    average = WeightAverage(weights, decay=0.9)
    average.update({"a": torch.ones(2)})
    assert weights["a"].tolist() == [0, 0]
    assert not average.weights["a"].requires_grad
    weights["a"].data.fill_(7)
    assert average.weights["a"].max() < 1


@pytest.mark.parametrize(("loss", "norm"), [(float("nan"), 1.0), (1.0, float("inf")), (float("-inf"), 1.0)])
def test_what_is_not_finite_is_an_anomaly_from_the_first_step(loss: float, norm: float):
    watch = GradientWatch(AnomalyPolicy())
    assert watch.find(loss, norm) is not None
    assert watch.steps == 0


def test_a_spike_is_one_only_after_the_norm_is_known():
    watch = GradientWatch(AnomalyPolicy("skip", spike=5.0))
    assert watch.find(1.0, 100.0) is None
    for _ in range(400):
        assert watch.find(1.0, 2.0) is None
    assert watch.mean == pytest.approx(2, rel=0.1)
    assert "more than 5 times its mean" in str(watch.find(1.0, 12.0))
    assert watch.find(1.0, 8.0) is None


def test_without_a_spike_set_any_finite_norm_is_fine():
    watch = GradientWatch(AnomalyPolicy())
    assert all(watch.find(1.0, 10.0**power) is None for power in range(-30, 30))


def test_the_mean_is_that_of_all_steps_at_first():
    watch = GradientWatch(AnomalyPolicy())
    for norm in (1.0, 2.0, 6.0):
        watch.find(0.0, norm)
    assert watch.mean == pytest.approx(3)


def test_a_restored_watch_goes_on():
    watch, twin = (GradientWatch(AnomalyPolicy("skip", spike=3.0)) for _ in range(2))
    for step in range(130):
        watch.find(1.0, 1.0 + step % 3)
    watch.count("x", 3)
    twin.restore(watch.state())
    assert twin.state() == watch.state()
    assert (watch.find(1.0, 7.0), watch.mean) == (twin.find(1.0, 7.0), twin.mean)


def test_a_spike_below_the_mean_is_refused():
    with pytest.raises(ValueError, match="spike > 1"):
        AnomalyPolicy(spike=0.5)
