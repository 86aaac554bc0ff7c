"""Samplers of the probability-flow ODE dx/dsigma = (x - D(x; sigma)) / sigma: plain functions, one a solver.

Each takes `(denoise, noise, sigmas)`: `denoise(x, sigma)` estimates the clean latents at a scalar noise
level, `noise` has unit variance, `sigmas` decrease to a final 0. The state is kept in float64, as float32
rounds at sigma = 80 to a sizeable part of the smallest noise level.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

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


def find_sampler(name: str) -> Sampler:
    """Returns the sampler of this name, or of `diffusers:SCHEDULER`; raises ValueError that lists the known ones."""
    if name.startswith("diffusers:"):
        from ladcast.diffusion.schedulers import scheduler_sampler

        return scheduler_sampler(name.removeprefix("diffusers:"))
    if name not in SAMPLERS:
        raise ValueError(f"Unknown sampler '{name}'. Known samplers: {', '.join(SAMPLERS)}, diffusers:SCHEDULER.")
    return SAMPLERS[name]
