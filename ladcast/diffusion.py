"""Elucidated diffusion (EDM, arXiv 2206.00364): noise levels, the preconditioned denoiser, its loss, and samplers.

A sampler solves the probability-flow ODE dx/dsigma = (x - D(x; sigma)) / sigma. It takes `(denoise, noise, sigmas)`:
`denoise(x, sigma)` estimates the clean latents at a scalar noise level, `noise` has unit variance, `sigmas` decrease to
a final 0 and stay on the CPU, so that no step waits for a GPU. The state is kept in float64, as float32 rounds at
sigma = 80 to a sizeable part of the smallest noise level.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from itertools import pairwise
from typing import Any

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


FEWEST_STEPS = 2
"""Of a sampler."""


def karras_sigmas(
    steps: int, *, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0
) -> Float[Tensor, " edge"]:
    """Returns `steps` noise levels from `sigma_max` to `sigma_min`, then 0, as float64 on the CPU (eq. 5 there)."""
    if steps < FEWEST_STEPS or not 0 < sigma_min < sigma_max:
        raise ValueError(
            f"Expected steps >= {FEWEST_STEPS} and 0 < sigma_min < sigma_max, got {steps}, {sigma_min}, {sigma_max}."
        )
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64, device="cpu")
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    return torch.cat([(high + ramp * (low - high)) ** rho, torch.zeros_like(ramp[:1])])


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


Denoise = Callable[[LatentSequence, Float[Tensor, ""]], LatentSequence]
Sampler = Callable[[Denoise, LatentSequence, Float[Tensor, " edge"]], LatentSequence]


def euler(denoise: Denoise, noise: LatentSequence, sigmas: Float[Tensor, " edge"]) -> LatentSequence:
    """Integrates with Euler steps: first order, one denoiser call a step."""
    x = noise.double() * sigmas[0]
    for sigma, sigma_next in pairwise(sigmas):
        slope = (x - denoise(x, sigma)) / sigma
        x = x + (sigma_next - sigma) * slope
    return x.to(noise.dtype)


def heun(denoise: Denoise, noise: LatentSequence, sigmas: Float[Tensor, " edge"]) -> LatentSequence:
    """Integrates with Heun steps (arXiv 2206.00364, algorithm 1): second order, 2 N - 1 denoiser calls."""
    x = noise.double() * sigmas[0]
    for sigma, sigma_next in pairwise(sigmas):
        slope = (x - denoise(x, sigma)) / sigma
        proposal = x + (sigma_next - sigma) * slope
        if sigma_next > 0:
            slope = (slope + (proposal - denoise(proposal, sigma_next)) / sigma_next) / 2
            proposal = x + (sigma_next - sigma) * slope
        x = proposal
    return x.to(noise.dtype)


def dpmpp_2m(denoise: Denoise, noise: LatentSequence, sigmas: Float[Tensor, " edge"]) -> LatentSequence:
    """Integrates with DPM-Solver++(2M) (arXiv 2211.01095, algorithm 2): second order, one call a step."""
    x = noise.double() * sigmas[0]
    previous: LatentSequence | None = None
    previous_step = torch.zeros(())
    for sigma, sigma_next in pairwise(sigmas):
        clean = denoise(x, sigma).double()
        log_step = (sigma / sigma_next).log()  # infinite at the last step, which returns `clean`
        if previous is None or sigma_next == 0:
            target = clean
        else:
            ratio = log_step / (2 * previous_step)
            target = (1 + ratio) * clean - ratio * previous
        x = sigma_next / sigma * x + (1 - sigma_next / sigma) * target
        previous, previous_step = clean, log_step
    return x.to(noise.dtype)


SAMPLERS: dict[str, Sampler] = {"euler": euler, "heun": heun, "dpmpp_2m": dpmpp_2m}
SCHEDULERS = ("EDMEulerScheduler", "EDMDPMSolverMultistepScheduler")
"""Those that solve the same ODE, from sigma_max to 0, with the preconditioning of arXiv 2206.00364."""


def find_sampler(name: str) -> Sampler:
    """Returns the sampler of this name, or of `diffusers:SCHEDULER`; raises ValueError that lists the known ones."""
    if name.startswith("diffusers:"):
        return scheduler_sampler(name.removeprefix("diffusers:"))
    if name not in SAMPLERS:
        raise ValueError(f"Unknown sampler '{name}'. Known samplers: {', '.join(SAMPLERS)}, diffusers:SCHEDULER.")
    return SAMPLERS[name]


def scheduler_sampler(name: str) -> Sampler:
    """Returns a sampler that steps with the diffusers scheduler of this name, in float32.

    Raises:
        ValueError: the scheduler is not one of `SCHEDULERS`.
    """
    if name not in SCHEDULERS:
        known = ", ".join(f"diffusers:{known}" for known in SCHEDULERS)
        raise ValueError(f"Expected a scheduler for the EDM preconditioning, one of {known}; got 'diffusers:{name}'.")

    def sample(denoise: Denoise, noise: LatentSequence, sigmas: Float[Tensor, " edge"]) -> LatentSequence:
        scheduler = _scheduler(name, sigmas)
        data = scheduler.config.sigma_data
        x = noise.double() * sigmas[0]
        for timestep, sigma in zip(scheduler.timesteps, sigmas[:-1], strict=True):
            total = sigma**2 + data**2
            # The scheduler preconditions by itself, so it is handed the raw output that our clean estimate implies.
            raw = (denoise(x, sigma) - data**2 / total * x) * total.sqrt() / (sigma * data)
            x = scheduler.step(raw, timestep, x).prev_sample.double()
        return x.to(noise.dtype)

    return sample


def _scheduler(name: str, sigmas: Float[Tensor, " edge"]) -> Any:
    scheduler = getattr(import_module("diffusers.schedulers"), name)(
        sigma_min=float(sigmas[-2]), sigma_max=float(sigmas[0])
    )
    scheduler.set_timesteps(len(sigmas) - 1)
    scheduler.sigmas = sigmas.to("cpu", torch.float32)
    scheduler.timesteps = scheduler.precondition_noise(scheduler.sigmas[:-1])
    return scheduler
