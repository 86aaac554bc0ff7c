"""The one-call stepper: what it starts from, what makes its members, and what does not."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ladcast.data.analysis import Analysis
from ladcast.diffusion import Condition
from ladcast.forecasting.checkpoints import load_forecaster, save_forecaster
from ladcast.forecasting.ensemble import EnsembleOptions, member_batches, staggered
from ladcast.forecasting.forecaster import Forecaster
from ladcast.forecasting.one_call import OneCallStepper
from worlds import one_call_of

CHANGES = tuple((0.1 * k,) * 4 for k in range(1, 5))


@pytest.fixture
def retrofit(forecaster: Forecaster) -> Forecaster:
    """The tiny forecaster with the weights of its denoiser in a one-call stepper."""
    return one_call_of(forecaster, change_std=CHANGES)


def inputs(rows: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(1, 4, 1, 4, 8, generator=generator).expand(rows, -1, -1, -1, -1), torch.full((rows,), 10**9)


@torch.no_grad()
@pytest.mark.parametrize("change_std", [None, CHANGES])
def test_without_noise_it_is_the_denoiser_of_nothing_but_noise(
    forecaster: Forecaster, retrofit: Forecaster, change_std
):
    past, seconds = inputs(2)
    config = replace(retrofit.stepper.config, change_std=change_std)
    made = replace(retrofit.stepper, config=config)(past, seconds, torch.zeros(2, 5))
    sigma = torch.full((2,), config.sigma_start)
    denoised = forecaster.stepper.network(torch.zeros(2, 4, 4, 4, 8), sigma, Condition(past, seconds))
    torch.testing.assert_close(made, config.frames_of(denoised, past), rtol=1e-6, atol=1e-6)
    assert denoised.abs().max() > 0.01


@torch.no_grad()
def test_members_are_made_by_their_numbers_alone(retrofit: Forecaster):
    past, seconds = inputs(3)
    noise = torch.randn(3, *retrofit.noise_shape, generator=torch.Generator().manual_seed(3))
    assert retrofit.stepper(past, seconds, noise).std(dim=0).min() > 0
    torch.nn.init.zeros_(retrofit.stepper.network.noise.weight)
    one, *others = retrofit.stepper(past, seconds, noise)
    assert all(torch.equal(one, other) for other in others)


def test_every_member_of_a_new_network_begins_apart_but_near(retrofit: Forecaster):
    """Whatever the number of random numbers, the perturbation of the condition has one size."""
    for numbers in (4, 64):
        network = OneCallStepper.build(replace(retrofit.stepper.config, noise_features=numbers)).network
        perturbation = network.noise(torch.randn(1000, numbers))
        assert perturbation.std().item() == pytest.approx(0.1, rel=0.3)


def latents(forecaster: Forecaster, analysis: Analysis, members: int, batch_size: int) -> Tensor:
    """Returns the latents of two days of an ensemble."""
    options = EnsembleOptions(members, 2, 7, batch_size=batch_size)
    batches = member_batches(forecaster, staggered([analysis]), options)
    rows = [torch.cat([step.latents for step in batch.forecast()], dim=2)[: len(batch.members)] for batch in batches]
    return torch.cat(rows)


@pytest.mark.slow
def test_a_member_is_the_same_bits_in_an_ensemble_and_batch_of_any_size(retrofit: Forecaster, analysis: Analysis):
    few, many, alone = (latents(retrofit, analysis, *sizes) for sizes in ((3, 8), (7, 5), (2, 1)))
    assert torch.equal(few, many[:3])
    assert torch.equal(few[:2], alone)
    assert not torch.equal(few[0], few[1])


def test_a_folder_holds_it(retrofit: Forecaster, tmp_path: Path):
    save_forecaster(retrofit, tmp_path / "model", {}, dtype=None)
    loaded = load_forecaster(tmp_path / "model", "cpu")
    assert loaded.stepper.config == retrofit.stepper.config
    past, _ = inputs(2)
    noise = torch.randn(2, *loaded.noise_shape)
    time = np.datetime64("2001-01-01", "ns")
    torch.testing.assert_close(loaded.step(past, time, noise), retrofit.step(past, time, noise))


@torch.no_grad()
def test_a_field_of_noise_is_seen_in_the_place_of_noisy_frames(forecaster: Forecaster, retrofit: Forecaster):
    """The weights of a denoiser then make a forecast of the noise at its place, and nothing is new."""
    config = replace(retrofit.stepper.config, noise_features=0, change_std=None)
    stepper = OneCallStepper.build(config)
    stepper.network.load_state_dict(forecaster.stepper.network.state_dict())
    assert stepper.noise_shape((4, 4, 8)) == (4, 4, 4, 8)
    past, seconds = inputs(2)
    noise = torch.randn(2, 4, 4, 4, 8, generator=torch.Generator().manual_seed(3))
    sigma, data = config.sigma_start, config.sigma_data
    noisy = noise * (sigma**2 + data**2) ** 0.5  # which the denoiser scales to the noise
    denoised = forecaster.stepper.network(noisy, torch.full((2,), sigma), Condition(past, seconds))
    skipped = data**2 / (sigma**2 + data**2) * noisy
    torch.testing.assert_close(stepper(past, seconds, noise), denoised - skipped, rtol=1e-5, atol=1e-5)


def test_it_has_one_call_and_no_settings(retrofit: Forecaster):
    assert retrofit.stepper.calls == 1
    assert retrofit.stepper.settings() == {}
    assert retrofit.stepper.shortened(retrofit.stepper.config).transformer.single_blocks == 1
