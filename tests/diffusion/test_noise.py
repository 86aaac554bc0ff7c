"""Noise levels of training and sampling."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from scipy.stats import kstest

from ladcast.diffusion.noise import TrainingNoise, karras_sigmas


def test_training_noise_is_log_normal(generator: torch.Generator):
    logs = TrainingNoise(mean=0.3, std=1.7).sample(4000, generator).log()
    assert kstest(logs.numpy(), "norm", args=(0.3, 1.7)).pvalue > 0.01


def test_training_noise_is_a_function_of_the_generator():
    first, second = (TrainingNoise().sample(8, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("steps", [2, 5, 20])
def test_sampling_noise_falls_from_the_largest_to_the_smallest_then_to_zero(steps: int):
    sigmas = karras_sigmas(steps, sigma_min=0.01, sigma_max=50.0)
    assert sigmas.dtype == torch.float64
    assert len(sigmas) == steps + 1
    torch.testing.assert_close(sigmas[[0, -2, -1]], torch.tensor([50, 0.01, 0], dtype=torch.float64))
    assert (sigmas.diff() < 0).all()


@pytest.mark.parametrize("rho", [1.0, 3.0, 7.0])
def test_the_rho_th_root_falls_evenly(rho: float):
    roots = karras_sigmas(12, rho=rho)[:-1] ** (1 / rho)
    torch.testing.assert_close(roots.diff(), roots.diff().mean().expand(11))


def test_the_schedule_is_that_of_the_released_model(shared: Path):
    expected = load_file(shared / "golden/transformer_io.safetensors")["sampler_sigmas"]
    torch.testing.assert_close(karras_sigmas(len(expected) - 1).float(), expected)


@pytest.mark.parametrize(
    ("steps", "low", "high"), [(1, 0.002, 80.0), (5, 0.0, 80.0), (5, 80.0, 0.002), (5, -1.0, 80.0)]
)
def test_a_schedule_that_cannot_be_is_refused(steps: int, low: float, high: float):
    with pytest.raises(ValueError, match=rf"Expected steps >= 2 and 0 < sigma_min < sigma_max, got {steps}"):
        karras_sigmas(steps, sigma_min=low, sigma_max=high)
