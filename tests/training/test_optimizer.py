"""AdamW with its schedule and its state by name, the weight average, and the watch over gradients."""

import copy
import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn

from ladcast.nn.block import ResidualBlock
from ladcast.nn.sphere import Poles
from ladcast.training.optimizer import (
    GradientWatch,
    Muon,
    WeightAverage,
    build_optimizers,
    learning_rate,
    optimizer_state,
    orthogonalized,
    restore_optimizers,
)
from ladcast.training.options import AnomalyPolicy, OptimizerOptions

OPTIONS = OptimizerOptions(learning_rate=2e-3, warmup_steps=10, final_fraction=0.1, weight_decay=0.3)


def rates(total: int = 110, options: OptimizerOptions = OPTIONS) -> list[float]:
    return [learning_rate(options.learning_rate, options, step, total) for step in range(total + 1)]


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
    assert learning_rate(2e-3, OPTIONS, 500, 110) == pytest.approx(2e-4)


@pytest.mark.parametrize("warmup", [0, 50])
def test_a_run_without_or_within_its_warm_up_has_a_rate(warmup: int):
    options = OptimizerOptions(warmup_steps=warmup)
    assert all(0 < rate <= options.learning_rate for rate in rates(50, options))


@pytest.mark.slow
def test_vectors_are_not_decayed():
    """With no gradient AdamW only decays: weights shrink by 1 - rate x decay, biases stay."""
    model = nn.Linear(3, 2)
    model.requires_grad_(True)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    (optimizer,) = build_optimizers(model, OPTIONS)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.testing.assert_close(model.weight.detach(), before["weight"] * (1 - 2e-3 * 0.3))
    assert torch.equal(model.bias.detach(), before["bias"])


def test_frozen_parameters_stay_out():
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    model[0].requires_grad_(False)
    (optimizer,) = build_optimizers(model, OPTIONS)
    assert {id(p) for group in optimizer.param_groups for p in group["params"]} == {
        id(p) for p in model[1].parameters()
    }


def step_once(model: nn.Module, optimizers: list[torch.optim.Optimizer], inputs: torch.Tensor) -> None:
    model(inputs).square().mean().backward()
    for optimizer in optimizers:
        optimizer.step()
    model.zero_grad()


def block() -> nn.Module:
    """A network with a convolutional block, whose matrices Muon takes, between two layers that it leaves."""
    return nn.Sequential(nn.Conv2d(3, 4, 1), ResidualBlock(4, poles=Poles()), nn.Conv2d(4, 2, 1))


@pytest.mark.parametrize("options", [OPTIONS, replace(OPTIONS, muon_learning_rate=1e-2)], ids=["adamw", "muon"])
def test_restored_optimizers_take_the_same_steps(options: OptimizerOptions, generator: torch.Generator):
    inputs = torch.randn(2, 3, 4, 6, generator=generator)
    model, twin = block(), block()
    optimizers, restored = build_optimizers(model, options), build_optimizers(twin, options)
    for _ in range(3):
        step_once(model, optimizers, inputs)
    twin.load_state_dict(model.state_dict())
    restore_optimizers(twin, restored, copy.deepcopy(optimizer_state(model, optimizers)))
    for _ in range(3):
        step_once(model, optimizers, inputs)
        step_once(twin, restored, inputs)
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(one, other)


def test_muon_takes_the_matrices_within_blocks_and_adamw_the_rest():
    model = block()
    adamw, muon = build_optimizers(model, replace(OPTIONS, muon_learning_rate=1e-2))
    inner = [p for p in model[1].parameters() if p.ndim > 1]
    assert inner
    assert {id(p) for p in muon.param_groups[0]["params"]} == {id(p) for p in inner}
    rest = {id(p) for p in model.parameters()} - {id(p) for p in inner}
    assert {id(p) for group in adamw.param_groups for p in group["params"]} == rest


@pytest.mark.parametrize("shape", [(3, 8, 20), (2, 20, 8), (4, 16, 24)])
def test_orthogonalized_matrices_keep_their_directions_and_have_singular_values_near_one(
    shape: tuple[int, ...], generator: torch.Generator
):
    matrices = torch.randn(shape, generator=generator)
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    aligned = u.mT @ orthogonalized(matrices) @ v.mT
    values = aligned.diagonal(dim1=1, dim2=2)
    assert values.min() > 0.6
    assert values.max() < 1.25
    torch.testing.assert_close(aligned, torch.diag_embed(values), atol=1e-4, rtol=0)


def test_an_update_of_muon_has_a_fifth_of_the_rate_as_root_mean_square(generator: torch.Generator):
    weight = nn.Parameter(torch.zeros(32, 8, 3, 3))
    weight.grad = torch.randn(weight.shape, generator=generator)
    Muon([weight], lr=0.5, weight_decay=0.0).step()
    assert weight.detach().square().mean().sqrt().item() == pytest.approx(0.5 * 0.2, rel=0.2)


def test_a_restored_optimizer_keeps_its_own_settings(generator: torch.Generator):
    model = nn.Linear(3, 2)
    own, other = build_optimizers(model, OPTIONS), build_optimizers(model, replace(OPTIONS, weight_decay=0.5))
    step_once(model, own, torch.randn(5, 3, generator=generator))
    restore_optimizers(model, other, optimizer_state(model, own))
    assert [group["weight_decay"] for group in other[0].param_groups] == [0.5, 0.0]
    assert {values["step"].item() for values in other[0].state.values()} == {1}


def test_the_state_has_the_names_of_the_parameters_that_are_trained(generator: torch.Generator):
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    model[0].requires_grad_(False)
    optimizers = build_optimizers(model, OPTIONS)
    step_once(model, optimizers, torch.randn(5, 3, generator=generator))
    tensors = {name for name, value in optimizer_state(model, optimizers).items() if isinstance(value, torch.Tensor)}
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
