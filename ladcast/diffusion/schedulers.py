"""Samplers from Hugging Face diffusers: its EDM schedulers, driven by our denoiser on our noise levels."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ladcast.diffusion.samplers import Denoise, Sampler
from ladcast.types import LatentSequence

SCHEDULERS = ("EDMEulerScheduler", "EDMDPMSolverMultistepScheduler")
"""Those that solve the same ODE, from sigma_max to 0, with the preconditioning of arXiv 2206.00364."""


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
