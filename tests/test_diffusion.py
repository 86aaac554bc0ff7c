"""The denoiser: its limits, its scales, losses that are known; samplers against the exact flow, and their order."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.stats import kstest
from torch import Tensor, nn

from ladcast.diffusion import (
    SAMPLERS,
    Condition,
    Denoiser,
    Sampler,
    TrainingNoise,
    denoising_loss,
    dpmpp_2m,
    euler,
    find_sampler,
    heun,
    karras_sigmas,
    training_noise_like,
)
from ladcast.models.transformer import LatentTransformer


def test_training_noise_is_log_normal(generator: torch.Generator):
    logs = TrainingNoise(mean=0.3, std=1.7).sample(4000, generator).log()
    assert kstest(logs.numpy(), "norm", args=(0.3, 1.7)).pvalue > 0.01


def test_noise_levels_are_a_function_of_the_generator():
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


SHAPE = (6, 3, 2, 4, 5)
CONDITION = Condition(torch.zeros(6, 3, 1, 4, 5), torch.arange(6))


class Constant(nn.Module):
    """A network that returns one value and keeps what it is called with."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, noisy: Tensor, c_noise: Tensor, past: Tensor, init_time: Tensor) -> Tensor:
        self.seen = noisy, c_noise, past, init_time
        return torch.full_like(noisy, self.value)


def gaussian(scale: float, generator: torch.Generator, shape: tuple[int, ...] = SHAPE) -> Tensor:
    return scale * torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("value", [0.0, 1.0, -3.0])
def test_without_noise_the_input_returns_whatever_the_network_says(value: float, generator):
    noisy = gaussian(1, generator)
    output = Denoiser(Constant(value))(noisy, torch.full((6,), 1e-6), CONDITION)
    torch.testing.assert_close(output, noisy, rtol=0, atol=1e-5)


@pytest.mark.parametrize("sigma_data", [0.5, 2.0])
def test_in_pure_noise_only_the_network_counts(sigma_data: float, generator):
    sigma = 1e6
    output = Denoiser(Constant(3.0), sigma_data)(gaussian(sigma, generator), torch.full((6,), sigma), CONDITION)
    torch.testing.assert_close(output, torch.full_like(output, 3 * sigma_data), rtol=0, atol=1e-4)


@pytest.mark.parametrize("sigma", [0.01, 0.5, 40.0])
def test_the_network_sees_unit_variance_and_a_quarter_of_ln_sigma(sigma: float, generator):
    shape = (6, 30, 20, 4, 5)
    network = Constant(0.0)
    noisy = gaussian(0.5, generator, shape) + sigma * gaussian(1, generator, shape)
    condition = Condition(gaussian(1, generator).float()[:, :, :1], torch.arange(6))
    Denoiser(network)(noisy, torch.full((6,), sigma), condition)
    seen, c_noise, past, init_time = network.seen
    assert seen.std().item() == pytest.approx(1, abs=0.02)
    torch.testing.assert_close(c_noise, torch.full((6,), sigma).log() / 4)
    assert past is condition.past
    assert init_time is condition.init_time


def test_the_state_stays_in_double_precision_around_a_network_in_single(generator):
    network = Constant(0.0)
    output = Denoiser(network)(gaussian(1, generator), torch.ones(6, dtype=torch.float64), CONDITION)
    assert output.dtype == torch.float64
    assert {tensor.dtype for tensor in network.seen[:3]} == {torch.float32}


@pytest.mark.parametrize("sigma", [0.02, 0.5, 30.0])
@pytest.mark.parametrize("sigma_data", [0.5, 1.5])
def test_a_network_of_zero_is_the_ideal_denoiser_of_gaussian_data_with_loss_one(sigma, sigma_data, generator):
    """E[x | noisy] is then c_skip noisy, its error sigma^2 sigma_data^2 / (sigma^2 + sigma_data^2) = 1 / lambda."""
    shape = (50, 200, 2, 4, 5)
    clean, noise = gaussian(sigma_data, generator, shape).float(), gaussian(1, generator, shape).float()
    condition = Condition(torch.zeros(50, 200, 1, 4, 5), torch.arange(50))

    def loss_of(value: float) -> float:
        denoiser = Denoiser(Constant(value), sigma_data)
        sigmas = torch.full((50,), sigma)
        loss = denoising_loss(denoiser, clean, condition, sigma=sigmas, noise=noise, weight=torch.ones(4, 1))
        return loss.item()

    assert loss_of(0.0) == pytest.approx(1, abs=0.01)
    assert loss_of(0.3) == pytest.approx(1 + 0.3**2, abs=0.01)


def test_a_perfect_denoiser_has_no_loss(generator):
    clean, noise = gaussian(0.5, generator), gaussian(1, generator)
    sigma = torch.tensor([0.1, 0.2, 0.5, 1.0, 5.0, 20.0], dtype=torch.float64)

    class Perfect(nn.Module):
        """Returns the F that makes D the clean latents: (clean - c_skip noisy) / c_out."""

        def forward(self, scaled: Tensor, *_: Tensor) -> Tensor:
            total = (sigma**2 + 0.25).reshape(-1, 1, 1, 1, 1)
            c_out = 0.5 * sigma.reshape(-1, 1, 1, 1, 1) / total.sqrt()
            return (clean - 0.25 / total * scaled * total.sqrt()) / c_out

    condition = Condition(torch.zeros(6, 3, 1, 4, 5, dtype=torch.float64), torch.arange(6))
    weight = torch.ones(4, 1, dtype=torch.float64)
    loss = denoising_loss(Denoiser(Perfect()), clean, condition, sigma=sigma, noise=noise, weight=weight)
    assert loss.item() < 1e-12


def test_the_loss_is_linear_in_the_row_weights(generator):
    clean, noise = gaussian(0.5, generator).float(), gaussian(1, generator).float()
    sigma, rows = torch.rand(6, generator=generator) + 0.1, torch.tensor([0.4, 1.6, 1.4, 0.6])

    def loss(weight: Tensor) -> Tensor:
        denoiser = Denoiser(Constant(0.2))
        return denoising_loss(denoiser, clean, CONDITION, sigma=sigma, noise=noise, weight=weight[:, None])

    by_row = torch.stack([loss(row) for row in torch.eye(4)])
    torch.testing.assert_close(loss(rows), (rows * by_row).sum())


def test_training_noise_is_a_function_of_the_generator():
    clean = torch.zeros(SHAPE, dtype=torch.float64)
    first, second = (training_noise_like(clean, torch.Generator().manual_seed(3)) for _ in range(2))
    assert (first.shape, first.dtype) == (clean.shape, clean.dtype)
    assert torch.equal(first, second)
    assert first.std().item() == pytest.approx(1, abs=0.1)


MEAN, STD = 0.7, 0.5
FLOW_SHAPE = (2, 3, 4, 5, 6)
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
    return torch.randn(FLOW_SHAPE, generator=generator, dtype=torch.float64)


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
    point = torch.full(FLOW_SHAPE, MEAN, dtype=torch.float64)
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


@pytest.mark.slow
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
