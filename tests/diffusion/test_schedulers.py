"""The schedulers of diffusers are an independent account of two of our samplers."""

import pytest
import torch
from torch import Tensor

from ladcast.diffusion.noise import karras_sigmas
from ladcast.diffusion.samplers import dpmpp_2m, euler, find_sampler

MEAN, STD = 0.7, 0.5


def posterior_mean(x: Tensor, sigma: Tensor) -> Tensor:
    """Returns E[clean | x] for clean ~ N(MEAN, STD^2), bent so that solvers differ."""
    return torch.tanh(MEAN + STD**2 / (STD**2 + sigma**2) * (x - MEAN))


@pytest.mark.parametrize(
    ("scheduler", "ours"), [("EDMEulerScheduler", euler), ("EDMDPMSolverMultistepScheduler", dpmpp_2m)]
)
def test_a_scheduler_gives_the_sample_of_our_own_solver(scheduler: str, ours, generator: torch.Generator):
    noise, sigmas = torch.randn(2, 3, 4, 5, 6, generator=generator), karras_sigmas(20)
    theirs = find_sampler(f"diffusers:{scheduler}")(posterior_mean, noise, sigmas)
    torch.testing.assert_close(theirs, ours(posterior_mean, noise, sigmas), atol=2e-5, rtol=0)


def test_a_scheduler_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="one of diffusers:EDMEulerScheduler"):
        find_sampler("diffusers:LCMScheduler")
