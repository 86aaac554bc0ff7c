"""The learning rate schedule, the groups of AdamW, and its state by name."""

import copy
import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn

from ladcast.training.optimizer import (
    OptimizerOptions,
    build_optimizer,
    learning_rate,
    optimizer_state,
    restore_optimizer,
)

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
