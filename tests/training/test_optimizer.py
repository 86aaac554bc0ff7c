"""The learning rate schedule, the groups of AdamW, and its state as tensors."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from ladcast.training.optimizer import (
    OptimizerOptions,
    build_optimizer,
    learning_rate,
    optimizer_tensors,
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
    tensors = {name: tensor.clone() for name, tensor in optimizer_tensors(optimizer).items()}
    restore_optimizer(restored, tensors)
    for _ in range(3):
        step_once(model, optimizer, inputs)
        step_once(twin, restored, inputs)
    assert torch.equal(model.weight, twin.weight)
    assert torch.equal(model.bias, twin.bias)
