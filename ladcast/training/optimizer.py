"""How a step changes the weights: AdamW with a warmed-up cosine schedule, the average of the weights, bad gradients."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ladcast.training.options import AnomalyPolicy, OptimizerOptions
from ladcast.training.parallel import local_part


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


class WeightAverage:
    """Averages weights with decay min(decay, (1 + n) / (10 + n)) after n updates, so that it warms up.

    Each rank averages the part of the weights that it holds.
    """

    def __init__(self, weights: Mapping[str, Tensor], decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.weights = {name: tensor.detach().clone() for name, tensor in weights.items()}

    @property
    def current_decay(self) -> float:
        """Returns the decay of the next update."""
        return min(self.decay, (1 + self.updates) / (10 + self.updates))

    @torch.no_grad()
    def update(self, weights: Mapping[str, Tensor]) -> None:
        """Moves the average towards the current weights."""
        averages = [local_part(average) for average in self.weights.values()]
        current = [local_part(weights[name]) for name in self.weights]
        # One kernel launch for many tensors: alone, small ones cost a GPU more in launches than in arithmetic.
        torch._foreach_lerp_(averages, current, 1 - self.current_decay)
        self.updates += 1


class GradientWatch:
    """The usual size of the gradient, and how often a step was an anomaly."""

    MEMORY_STEPS = 100

    def __init__(self, policy: AnomalyPolicy) -> None:
        self.policy = policy
        self.mean = 0.0
        self.steps = 0
        self.anomalies = 0

    def find(self, loss: float, norm: float) -> str | None:
        """Returns what is wrong with a step, or None and learns its gradient norm.

        All ranks must give the same numbers.
        """
        for name, value in (("loss", loss), ("gradient norm", norm)):
            if not math.isfinite(value):
                return f"The {name} is {value}"
        spike = self.policy.spike
        if spike is not None and self.steps >= self.MEMORY_STEPS and norm > spike * self.mean:
            return f"The gradient norm is {norm:.3g}, more than {spike:g} times its mean {self.mean:.3g}"
        self.steps += 1
        self.mean += (norm - self.mean) / min(self.steps, self.MEMORY_STEPS)
        return None

    def count(self, problem: str, step: int) -> None:
        """Counts an anomaly; raises FloatingPointError where the policy is to stop."""
        self.anomalies += 1
        if self.policy.action == "stop" or self.anomalies > self.policy.limit:
            raise FloatingPointError(
                f"{problem} at step {step}. The last checkpoint is whole: resume from it with a lower 'learning_rate' "
                f"or 'max_gradient_norm', or with another 'anomaly.action' than '{self.policy.action}' "
                f"({self.anomalies} anomalies so far, limit {self.policy.limit})."
            )

    def state(self) -> dict[str, float]:
        """Returns what a checkpoint keeps."""
        return {"mean": self.mean, "steps": self.steps, "anomalies": self.anomalies}

    def restore(self, state: dict[str, float]) -> None:
        """Puts back what `state` returned."""
        self.mean, self.steps, self.anomalies = state["mean"], int(state["steps"]), int(state["anomalies"])
