"""Samplers of the probability-flow ODE dx/dsigma = (x - D(x; sigma)) / sigma: plain functions, one a solver.

Each takes `(denoise, noise, sigmas)`: `denoise(x, sigma)` estimates the clean latents at a scalar noise
level, `noise` has unit variance, `sigmas` decrease to a final 0. The state is kept in float64, as float32
rounds at sigma = 80 to a sizeable part of the smallest noise level.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ladcast.types import LatentSequence

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
