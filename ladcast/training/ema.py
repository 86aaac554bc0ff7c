"""Exponential moving average of weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ladcast.training.parallel import local_part


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
        torch._foreach_lerp_(averages, current, 1 - self.current_decay)
        self.updates += 1
