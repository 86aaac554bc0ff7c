"""Training over several blocks: a forecaster learns to go on from its own forecasts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ladcast.diffusion.denoiser import Condition, Denoiser, denoising_loss, training_noise_like
from ladcast.diffusion.noise import TrainingNoise, karras_sigmas
from ladcast.diffusion.samplers import find_sampler
from ladcast.times import STEP
from ladcast.types import LatentSequence, PastSequence

STEP_S = int(STEP.astype("timedelta64[s]").astype(int))


@dataclass(frozen=True)
class PushForward:
    """Sets how many blocks of frames a training sample spans, and how the frames between are forecast.

    With `blocks` 1, training is that of single calls.
    """

    blocks: int = 1
    sampler: str = "heun"
    steps: int = 4
    sigma_min: float = 0.01
    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        if self.blocks < 1 or self.steps < 2:
            raise ValueError(f"Expected blocks >= 1 and steps >= 2, got {self.blocks} and {self.steps}.")

    def sigmas(self) -> Float[Tensor, " edge"]:
        """Returns the noise levels of a forecast."""
        return karras_sigmas(self.steps, sigma_min=self.sigma_min, sigma_max=self.sigma_max)


@dataclass(frozen=True)
class DiffusionObjective:
    """Holds what the loss of a forecaster depends on beside its batch."""

    noise: TrainingNoise
    row_weight: Float[Tensor, " y"]
    """Area of each latent row, with mean 1."""
    push_forward: PushForward


def diffusion_loss(
    denoiser: Denoiser,
    past: PastSequence,
    future: LatentSequence,
    init_time: Int[Tensor, " batch"],
    *,
    objective: DiffusionObjective,
    generator: torch.Generator,
) -> Float[Tensor, ""]:
    """Returns the denoising loss, averaged over blocks of the future.

    Each block is conditioned on a forecast of the block before it, at the time of that block's last frame. No gradient
    goes through the forecast (the push-forward trick, arXiv 2202.03376).
    """
    losses = []
    blocks = future.chunk(objective.push_forward.blocks, dim=2)
    for number, block in enumerate(blocks):
        condition = Condition(past, init_time)
        sigma = objective.noise.sample(len(block), generator)
        unit = training_noise_like(block, generator)
        losses.append(
            denoising_loss(denoiser, block, condition, sigma=sigma, noise=unit, row_weight=objective.row_weight)
        )
        if number + 1 < len(blocks):
            unit = training_noise_like(block, generator)
            forecast = _forecast(denoiser, unit, condition, objective.push_forward)
            past = torch.cat([past, forecast], dim=2)[:, :, -past.shape[2] :]
            init_time = init_time + block.shape[2] * STEP_S
    return torch.stack(losses).mean()


@torch.no_grad()
def _forecast(denoiser: Denoiser, noise: LatentSequence, condition: Condition, push: PushForward) -> LatentSequence:
    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        clean: Tensor = denoiser(x, sigma.expand(len(x)), condition)
        return clean

    return find_sampler(push.sampler)(denoise, noise, push.sigmas().to(noise.device))
