"""How a step changes the weights: AdamW and Muon with a warmed-up cosine, the average of the weights, bad gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from ladcast.nn.block import blocks
from ladcast.training.distributed import local_part
from ladcast.training.options import AnomalyPolicy, OptimizerOptions


class Muon(torch.optim.Optimizer):
    """Momentum whose update of each matrix is replaced by the nearest orthogonal one (Jordan et al. 2024).

    Convolutions count as matrices of `out` rows. An update has a root mean square of 0.2 times the rate, about that of
    AdamW, whose rates therefore serve (arXiv 2502.16982, section 2.2). Matrices of one shape are computed together:
    small ones cost a GPU more in launches than in arithmetic.
    """

    MOMENTUM = 0.95

    def __init__(self, parameters: Iterable[Tensor], *, lr: float, weight_decay: float) -> None:
        super().__init__(list(parameters), {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Changes the weights by their gradients; there is no closure."""
        for group in self.param_groups:
            by_shape: dict[tuple[int, ...], list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape.setdefault(tuple(parameter.shape), []).append(parameter)
            for parameters in by_shape.values():
                self._change(parameters, group["lr"], group["weight_decay"])

    def _change(self, parameters: list[Tensor], rate: float, weight_decay: float) -> None:
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        for parameter in parameters:
            self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
        momenta = [self.state[parameter]["momentum"] for parameter in parameters]
        torch._foreach_lerp_(momenta, gradients, 1 - self.MOMENTUM)
        ahead = torch._foreach_lerp(gradients, momenta, self.MOMENTUM)  # Nesterov's
        matrices = torch.stack(ahead).flatten(2)
        updates = orthogonalized(matrices) * (0.2 * max(matrices.shape[1:]) ** 0.5)
        torch._foreach_mul_(parameters, 1 - rate * weight_decay)
        torch._foreach_add_(parameters, list(updates.unflatten(2, parameters[0].shape[1:])), alpha=-rate)


def orthogonalized(matrices: Float[Tensor, "matrix row column"]) -> Float[Tensor, "matrix row column"]:
    """Returns the orthogonal matrix nearest to each, roughly: most singular values come between 0.7 and 1.2.

    Five iterations of a polynomial of fifth order (Newton-Schulz), in bfloat16 on a GPU, as Muon's authors do.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if tall else matrices).to(torch.bfloat16 if matrices.is_cuda else torch.float32)
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        square = x @ x.mT
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return torch.as_tensor(x.mT if tall else x, dtype=matrices.dtype)


def build_optimizers(model: nn.Module, options: OptimizerOptions) -> list[torch.optim.Optimizer]:
    """Creates AdamW, and Muon where the options ask for it, with all of their state at zero.

    Vectors (biases, norms) are not decayed. The rates of the groups are their peak rates.
    """
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    inner: set[str] = set()
    if options.muon_learning_rate is not None:
        units = {id(unit) for unit in blocks(model)}
        within = tuple(f"{name}." for name, module in model.named_modules() if id(module) in units)
        matrices = (name for name, parameter in parameters.items() if parameter.ndim > 1)
        inner = {name for name in matrices if name.startswith(within) and "modulation" not in name}
        if any(isinstance(parameters[name], DTensor) for name in inner):
            raise ValueError("Muon needs whole matrices: use sharding 'ddp', or leave out muon_learning_rate.")
    outer = [parameter for name, parameter in parameters.items() if name not in inner]
    groups = [
        {"params": [p for p in outer if p.ndim > 1], "weight_decay": options.weight_decay},
        {"params": [p for p in outer if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(groups, lr=options.learning_rate, betas=(0.9, 0.99), fused=outer[0].is_cuda)
    ]
    if inner and options.muon_learning_rate is not None:
        chosen = [parameter for name, parameter in parameters.items() if name in inner]
        optimizers.append(Muon(chosen, lr=options.muon_learning_rate, weight_decay=options.weight_decay))
    optimizer_state(model, optimizers)  # creates the state by a step with a gradient of zero, which must not count
    for values in optimizers[0].state.values():
        values["step"].zero_()
    return optimizers


def learning_rate(peak: float, options: OptimizerOptions, step: int, total_steps: int) -> float:
    """Returns the learning rate of one step, a pure function of the step and of the peak rate."""
    if step < options.warmup_steps:
        return peak * (step + 1) / options.warmup_steps
    progress = (step - options.warmup_steps) / max(total_steps - options.warmup_steps, 1)
    cosine = (1 + math.cos(math.pi * min(progress, 1.0))) / 2
    return peak * (options.final_fraction + (1 - options.final_fraction) * cosine)


def optimizer_state(model: nn.Module, optimizers: list[torch.optim.Optimizer]) -> dict[str, Any]:
    """Returns the state of optimizers by the names of parameters, which do not depend on the number of ranks."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict

    flat = StateDictOptions(flatten_optimizer_state_dict=True)
    state: dict[str, Any] = get_optimizer_state_dict(model, optimizers, options=flat)
    return state


def restore_optimizers(model: nn.Module, optimizers: list[torch.optim.Optimizer], state: dict[str, Any]) -> None:
    """Puts back the moments and the counts of `optimizer_state`; the settings of the groups stay as they are."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_optimizer_state_dict

    flat = StateDictOptions(flatten_optimizer_state_dict=True)
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    settings = [{name: value for name, value in group.items() if name != "params"} for group in groups]
    set_optimizer_state_dict(model, optimizers, state, options=flat)
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    for group, own in zip(groups, settings, strict=True):
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
