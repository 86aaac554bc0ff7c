"""The EDM denoiser: noise levels, the preconditioning of a backbone, and the loss it is trained with."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ladcast.types import LatentSequence, PastSequence, Positive


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


@dataclass(frozen=True, eq=False)
class Condition:
    """Holds what a forecast starts from: past latents and their last valid time in seconds since 1970."""

    past: PastSequence
    init_time: Int[Tensor, " batch"]


class Denoiser(nn.Module):
    """Estimates clean latents: D(x; sigma) = c_skip x + c_out F(c_in x; c_noise) (arXiv 2206.00364, eq. 7).

    The backbone F is called as `network(noisy, c_noise, past, init_time)`.
    """

    def __init__(self, network: nn.Module, sigma_data: float = 0.5) -> None:
        super().__init__()
        self.network = network
        self.sigma_data = sigma_data

    def forward(self, noisy: LatentSequence, sigma: Float[Tensor, " batch"], condition: Condition) -> LatentSequence:
        """Returns the expectation of the clean latents given the noisy ones, in the dtype of `noisy`."""
        scale = (sigma**2 + self.sigma_data**2).sqrt()
        c_skip = _per_sample(self.sigma_data**2 / scale**2)
        c_out = _per_sample(sigma * self.sigma_data / scale)
        c_in = _per_sample(1 / scale)
        dtype = condition.past.dtype
        network_input = (c_in * noisy).to(dtype)
        output: LatentSequence = self.network(
            network_input, (sigma.log() / 4).to(dtype), condition.past, condition.init_time
        )
        return (c_skip * noisy + c_out * output).to(noisy.dtype)


def denoising_loss(
    denoiser: Denoiser,
    clean: LatentSequence,
    condition: Condition,
    *,
    sigma: Float[Tensor, " batch"],
    noise: LatentSequence,
    weight: Tensor,
) -> Float[Tensor, ""]:
    """Returns E[lambda(sigma) w |D(clean + sigma noise; sigma) - clean|^2] with lambda = 1 / c_out^2.

    The weights w, with mean 1, broadcast against `latent time y x`: `y 1` for the areas of rows.
    """
    denoised = denoiser(clean + _per_sample(sigma) * noise, sigma, condition)
    data = denoiser.sigma_data
    level_weight = (sigma**2 + data**2) / (sigma * data) ** 2
    squared_error = (denoised - clean).float() ** 2
    weighted: LatentSequence = _per_sample(level_weight) * weight * squared_error
    return weighted.mean()


def _per_sample(values: Float[Tensor, " batch"]) -> Float[Tensor, "batch 1 1 1 1"]:
    return values.reshape(-1, 1, 1, 1, 1)


def training_noise_like(clean: LatentSequence, generator: torch.Generator) -> LatentSequence:
    """Draws unit Gaussian noise in the shape and dtype of the clean latents."""
    return torch.randn(clean.shape, generator=generator, device=generator.device, dtype=clean.dtype)
