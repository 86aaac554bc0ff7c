"""Noise levels: the distribution of sigma in training and the grid of sigmas in sampling."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ladcast.types import Positive


@dataclass(frozen=True)
class TrainingNoise:
    """Describes ln sigma ~ N(mean, std^2) (Karras et al. 2022, arXiv 2206.00364, table 1)."""

    mean: float = -1.2
    std: Positive = 1.2

    def sample(self, size: int, generator: torch.Generator) -> Float[Tensor, " batch"]:
        """Draws `size` noise levels on the generator's device."""
        normal = torch.randn(size, generator=generator, device=generator.device)
        return (self.mean + self.std * normal).exp()


def karras_sigmas(
    steps: int, *, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0
) -> Float[Tensor, " edge"]:
    """Returns `steps` noise levels from `sigma_max` down to `sigma_min`, then 0, as float64 (eq. 5 there)."""
    if steps < 2 or not 0 < sigma_min < sigma_max:
        raise ValueError(f"Expected steps >= 2 and 0 < sigma_min < sigma_max, got {steps}, {sigma_min}, {sigma_max}.")
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    return torch.cat([(high + ramp * (low - high)) ** rho, torch.zeros(1, dtype=torch.float64)])
