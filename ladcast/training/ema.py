"""Exponential moving average of weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class WeightAverage:
    """Averages weights with decay min(decay, (1 + n) / (10 + n)) after n updates, so that it warms up."""

    def __init__(self, weights: Mapping[str, Tensor], decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.weights = {name: tensor.detach().clone() for name, tensor in weights.items()}

    @torch.no_grad()
    def update(self, weights: Mapping[str, Tensor]) -> None:
        """Moves the average towards the current weights."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        averages = list(self.weights.values())
        torch._foreach_lerp_(averages, [weights[name] for name in self.weights], 1 - decay)
        self.updates += 1
