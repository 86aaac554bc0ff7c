"""AdamW with a warmed-up cosine schedule, and its state by the names of parameters."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class OptimizerOptions:
    """Sets AdamW and its schedule: linear warm-up, then a cosine to `final_fraction` of the peak rate."""

    learning_rate: float = 1e-4
    weight_decay: float = 0.01
    warmup_steps: int = 500
    final_fraction: float = 0.01
    max_gradient_norm: float = 1.0


def build_optimizer(model: nn.Module, options: OptimizerOptions) -> torch.optim.AdamW:
    """Creates AdamW, with all of its state at zero; vectors (biases, norms) are not decayed."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": options.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    fused = parameters[0].is_cuda
    optimizer = torch.optim.AdamW(groups, lr=options.learning_rate, betas=(0.9, 0.99), fused=fused)
    optimizer_state(model, optimizer)  # creates the state by a step with a gradient of zero, which must not count
    for values in optimizer.state.values():
        values["step"].zero_()
    return optimizer


def learning_rate(options: OptimizerOptions, step: int, total_steps: int) -> float:
    """Returns the learning rate of one step, a pure function of the step."""
    if step < options.warmup_steps:
        return options.learning_rate * (step + 1) / options.warmup_steps
    progress = (step - options.warmup_steps) / max(total_steps - options.warmup_steps, 1)
    cosine = (1 + math.cos(math.pi * min(progress, 1.0))) / 2
    return options.learning_rate * (options.final_fraction + (1 - options.final_fraction) * cosine)


def optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Returns the optimizer's state by the names of parameters, which do not depend on the number of ranks."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict

    flat = StateDictOptions(flatten_optimizer_state_dict=True)
    state: dict[str, Any] = get_optimizer_state_dict(model, optimizer, options=flat)
    return state


def restore_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Puts back the moments and the counts of `optimizer_state`; the settings of the groups stay as they are."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_optimizer_state_dict

    flat = StateDictOptions(flatten_optimizer_state_dict=True)
    settings = [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
    set_optimizer_state_dict(model, optimizer, state, options=flat)
    for group, own in zip(optimizer.param_groups, settings, strict=True):
        group.update(own)
