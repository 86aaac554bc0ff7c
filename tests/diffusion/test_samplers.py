"""Samplers against the exact flow of Gaussian data, whose order of convergence is measured, and a golden sample."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from ladcast.diffusion.denoiser import Condition, Denoiser, karras_sigmas
from ladcast.diffusion.samplers import SAMPLERS, Sampler, dpmpp_2m, euler, find_sampler, heun
from ladcast.models.transformer import LatentTransformer

MEAN, STD = 0.7, 0.5
SHAPE = (2, 3, 4, 5, 6)
ORDER = {"euler": 1, "heun": 2, "dpmpp_2m": 2}
CALLS = {"euler": lambda steps: steps, "heun": lambda steps: 2 * steps - 1, "dpmpp_2m": lambda steps: steps}


def posterior_mean(x: Tensor, sigma: Tensor) -> Tensor:
    """Returns E[clean | x] for clean ~ N(MEAN, STD^2): the ideal denoiser."""
    return MEAN + STD**2 / (STD**2 + sigma**2) * (x - MEAN)


def exact_flow(noise: Tensor, sigma_max: Tensor) -> Tensor:
    """Solves the ODE for `posterior_mean`: the distance to the mean shrinks with sqrt(STD^2 + sigma^2)."""
    return MEAN + (noise * sigma_max - MEAN) * STD / (STD**2 + sigma_max**2).sqrt()


@pytest.fixture
def noise(generator: torch.Generator) -> Tensor:
    return torch.randn(SHAPE, generator=generator, dtype=torch.float64)


@pytest.fixture(params=SAMPLERS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def sampler(name: str) -> Sampler:
    return find_sampler(name)


def flow_error(sampler: Sampler, noise: Tensor, steps: int) -> float:
    """Measures the error of the flow; the last step to 0, which every solver shares, is of negligible length."""
    sigmas = karras_sigmas(steps, sigma_min=1e-5)
    return (sampler(posterior_mean, noise, sigmas) - exact_flow(noise, sigmas[0])).abs().max().item()


def test_the_error_falls_with_the_order_of_the_solver(name: str, sampler: Sampler, noise: Tensor):
    assert name in ORDER, f"Say in ORDER and CALLS which order '{name}' has and how often it calls the denoiser."
    errors = np.array([flow_error(sampler, noise, steps) for steps in (100, 200, 400)])
    assert np.log2(errors[:-1] / errors[1:]) == pytest.approx(ORDER[name], abs=0.15)


def test_many_steps_reach_the_exact_sample(name: str, sampler: Sampler, noise: Tensor):
    assert flow_error(sampler, noise, 1000) < {1: 2e-2, 2: 1e-4}[ORDER[name]]


def test_the_denoiser_is_called_as_often_as_said(name: str, sampler: Sampler, noise: Tensor):
    seen = []

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        seen.append((x.dtype, sigma.item()))
        return posterior_mean(x, sigma)

    sampler(denoise, noise, karras_sigmas(6))
    assert len(seen) == CALLS[name](6)
    assert min(sigma for _, sigma in seen) > 0


@pytest.mark.parametrize("steps", [2, 3, 7])
def test_data_at_one_point_is_found_with_any_number_of_steps(sampler: Sampler, noise: Tensor, steps: int):
    point = torch.full(SHAPE, MEAN, dtype=torch.float64)
    sample = sampler(lambda x, sigma: point, noise, karras_sigmas(steps))
    torch.testing.assert_close(sample, point, rtol=0, atol=1e-12)


def test_the_state_is_double_and_the_sample_in_the_noise_s_precision(sampler: Sampler, noise: Tensor):
    seen = set()

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        seen.add(x.dtype)
        return posterior_mean(x, sigma).float()

    single = sampler(denoise, noise.float(), karras_sigmas(20))
    assert seen == {torch.float64}
    assert single.dtype == torch.float32
    double = sampler(posterior_mean, noise, karras_sigmas(20))
    torch.testing.assert_close(single.double(), double, rtol=0, atol=1e-5)


def test_members_of_a_batch_do_not_meet(sampler: Sampler, noise: Tensor):
    together = sampler(posterior_mean, noise, karras_sigmas(5))
    alone = sampler(posterior_mean, noise[1:], karras_sigmas(5))
    assert torch.equal(together[1:], alone)


def test_the_noise_is_left_as_it_is(sampler: Sampler, noise: Tensor):
    before = noise.clone()
    sampler(posterior_mean, noise, karras_sigmas(5))
    assert torch.equal(noise, before)


def test_heun_is_closer_than_euler_for_the_same_number_of_calls(noise: Tensor):
    assert flow_error(heun, noise, 100) < flow_error(euler, noise, 199) / 5


def test_an_unknown_sampler_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"Unknown sampler 'hoin'\. Known samplers: euler, heun, dpmpp_2m"):
        find_sampler("hoin")


@torch.no_grad()
def test_heun_reproduces_the_sample_of_the_released_model(shared: Path, tmp_path: Path):
    golden = load_file(shared / "golden/transformer_io.safetensors")
    shutil.copyfile(shared / "golden/transformer_config.json", tmp_path / "config.json")
    shutil.copyfile(shared / "golden/transformer.safetensors", tmp_path / "diffusion_pytorch_model.safetensors")
    stamp = str(golden["init_time_yyyymmddhh"][0].item())
    init_time = np.datetime64(f"{stamp[:4]}-{stamp[4:6]}-{stamp[6:8]}T{stamp[8:]}", "s").astype(int)
    denoiser = Denoiser(LatentTransformer.from_pretrained(tmp_path))
    condition = Condition(golden["conditioning"][:1], torch.tensor([int(init_time)]))

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        return denoiser(x, sigma.expand(len(x)), condition)

    sample = heun(denoise, golden["sampler_noise"].double(), golden["sampler_sigmas"].double())
    expected = golden["sampler_output"].double()
    assert ((sample - expected).abs().max() / expected.abs().max()).item() < 1e-5


# The schedulers of diffusers are an independent account of two of our samplers.
def bent_posterior_mean(x: Tensor, sigma: Tensor) -> Tensor:
    """Returns a denoiser that is not linear, so that solvers differ."""
    return torch.tanh(posterior_mean(x, sigma))


@pytest.mark.parametrize(
    ("scheduler", "ours"), [("EDMEulerScheduler", euler), ("EDMDPMSolverMultistepScheduler", dpmpp_2m)]
)
def test_a_scheduler_gives_the_sample_of_our_own_solver(scheduler: str, ours, generator: torch.Generator):
    noise, sigmas = torch.randn(2, 3, 4, 5, 6, generator=generator), karras_sigmas(20)
    theirs = find_sampler(f"diffusers:{scheduler}")(bent_posterior_mean, noise, sigmas)
    torch.testing.assert_close(theirs, ours(bent_posterior_mean, noise, sigmas), atol=2e-5, rtol=0)


def test_a_scheduler_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="one of diffusers:EDMEulerScheduler"):
        find_sampler("diffusers:LCMScheduler")
