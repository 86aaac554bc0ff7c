"""The losses: training over several steps of a forecast, and the reconstruction of states."""

import pytest
import torch
from torch import nn

from ladcast.diffusion.denoiser import Condition, Denoiser, denoising_loss, training_noise_like
from ladcast.diffusion.noise import TrainingNoise
from ladcast.forecasting.diffusion import DiffusionConfig, DiffusionStepper
from ladcast.forecasting.stepper import FrameCounts
from ladcast.grid import Grid
from ladcast.models.transformer import TransformerConfig
from ladcast.training.objectives import DiffusionObjective, DiffusionTraining, PushForward, relative_l2

ROWS = torch.tensor([[0.5], [1.5]])


class Recorder(nn.Module):
    """Is a network that remembers what it was conditioned on."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.3))
        self.calls: list[tuple[torch.Tensor, torch.Tensor, bool]] = []

    def forward(self, noisy, c_noise, past, init_time):
        self.calls.append((past, init_time, torch.is_grad_enabled()))
        return self.weight * noisy + past.mean(dim=2, keepdim=True)


@pytest.fixture
def batch(generator: torch.Generator) -> tuple[torch.Tensor, ...]:
    """Two past frames, and three blocks of four."""
    past, future = (torch.randn(2, 3, frames, 2, 4, generator=generator) for frames in (2, 12))
    return past, future, torch.tensor([0, 1_000_000])


def loss_of(model: Denoiser, batch: tuple[torch.Tensor, ...], push: PushForward, seed: int = 0) -> torch.Tensor:
    frames = FrameCounts(batch[0].shape[2], batch[1].shape[2] // push.blocks)
    stepper = DiffusionStepper(DiffusionConfig(TransformerConfig(3, (-60.0, 60.0), (45.0, 315.0)), frames), model)
    objective = DiffusionObjective(DiffusionTraining(push_forward=push), ROWS)
    return objective(stepper, batch, torch.Generator().manual_seed(seed))


def test_one_block_is_the_denoising_loss(batch):
    past, future, time_s = batch
    model = Denoiser(Recorder())
    generator = torch.Generator().manual_seed(0)
    sigma = TrainingNoise().sample(2, generator)
    unit = training_noise_like(future, generator)
    expected = denoising_loss(model, future, Condition(past, time_s), sigma=sigma, noise=unit, weight=ROWS)
    assert torch.equal(loss_of(model, batch, PushForward()), expected)


def test_the_clock_advances_and_forecasts_replace_the_past(batch):
    network = Recorder()
    loss_of(Denoiser(network), batch, PushForward(blocks=3, steps=2))
    trained = [(past, time_s) for past, time_s, gradient in network.calls if gradient]
    assert [time_s.tolist() for _, time_s in trained] == [
        [0, 1_000_000],
        [86_400, 1_086_400],
        [172_800, 1_172_800],
    ]
    assert torch.equal(trained[0][0], batch[0])
    for past, _ in trained[1:]:
        assert past.shape == batch[0].shape
        assert not any(torch.equal(past, batch[1][:, :, first : first + 2]) for first in range(11))


def test_forecasts_between_are_made_by_the_sampler_without_gradient(batch):
    network = Recorder()
    loss_of(Denoiser(network), batch, PushForward(blocks=3, steps=4))
    assert sum(not gradient for *_, gradient in network.calls) == 2 * (2 * 4 - 1)


def test_a_perfect_denoiser_is_conditioned_on_the_truth():
    """Its forecast is the truth, whatever the noise: so is what the next block starts from."""

    class Oracle(Denoiser):
        def forward(self, noisy, sigma, condition):
            seen.append(condition)
            return torch.ones_like(noisy) * (1 + condition.past[:, :, -1:])

    seen: list[Condition] = []
    past = torch.zeros(1, 1, 1, 2, 4)
    future = torch.ones(1, 1, 8, 2, 4)
    future[:, :, 4:] = 2
    assert loss_of(Oracle(nn.Identity()), (past, future, torch.tensor([0])), PushForward(blocks=2)).item() < 1e-9
    torch.testing.assert_close(seen[-1].past, torch.ones(1, 1, 1, 2, 4))


def test_randomness_is_that_of_the_generator(batch):
    model, push = Denoiser(Recorder()), PushForward(blocks=2, steps=2)
    assert torch.equal(loss_of(model, batch, push, 5), loss_of(model, batch, push, 5))
    assert not torch.equal(loss_of(model, batch, push, 5), loss_of(model, batch, push, 6))


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="blocks >= 1 and steps >= 2, got 0 and 4"):
        PushForward(blocks=0)


GRID = Grid.regular(8, 4)
AREAS = torch.tensor(GRID.area_weights, dtype=torch.float32)
EVERYWHERE = torch.ones(3, *GRID.shape, dtype=torch.bool)


@pytest.fixture
def scaled(generator: torch.Generator) -> torch.Tensor:
    return torch.randn(2, 3, *GRID.shape, generator=generator)


def error(reconstruction: torch.Tensor, scaled: torch.Tensor, valid: torch.Tensor = EVERYWHERE) -> float:
    return relative_l2(reconstruction, scaled, row_weight=AREAS, valid=valid).item()


@pytest.mark.parametrize("factor", [0.0, 0.5, 2.0])
def test_a_field_that_is_off_by_a_factor_has_the_relative_error_of_the_factor(scaled, factor: float):
    assert error(factor * scaled, scaled) == pytest.approx(abs(factor - 1), rel=1e-5)


def test_a_perfect_reconstruction_has_no_loss_and_a_finite_gradient(scaled):
    reconstruction = scaled.clone().requires_grad_(True)
    value = relative_l2(reconstruction, scaled, row_weight=AREAS, valid=EVERYWHERE)
    value.backward()
    assert value.item() <= 1.01e-6
    assert reconstruction.grad is not None
    assert reconstruction.grad.isfinite().all()


def test_the_reconstruction_loss_is_the_mean_over_samples_and_channels_of_ratios_of_norms(scaled, generator):
    reconstruction = torch.randn(scaled.shape, generator=generator)
    ratios = [
        ((AREAS[:, None] * (r - s) ** 2).sum() / (AREAS[:, None] * s**2).sum()).sqrt()
        for r, s in zip(reconstruction.flatten(0, 1), scaled.flatten(0, 1), strict=True)
    ]
    assert error(reconstruction, scaled) == pytest.approx(torch.stack(ratios).mean().item(), rel=1e-5)


def test_points_without_truth_do_not_count(scaled, generator):
    valid = EVERYWHERE.clone()
    valid[1, 1:3, 2:5] = False
    reconstruction = scaled + 0.1 * torch.randn(scaled.shape, generator=generator)
    spoiled = torch.where(valid, reconstruction, 1e3)
    assert error(spoiled, scaled, valid) == error(reconstruction, scaled, valid)
    assert error(spoiled, scaled) > 10 * error(reconstruction, scaled)


def test_an_error_weighs_as_much_as_its_area(scaled):
    """The squared loss of one changed row is in proportion to the row's area."""
    ones = torch.ones_like(scaled)
    squares = []
    for row in range(len(AREAS)):
        changed = ones.clone()
        changed[..., row, :] += 0.1
        squares.append(error(changed, ones) ** 2)
    torch.testing.assert_close(torch.tensor(squares) / squares[0], AREAS / AREAS[0], rtol=1e-4, atol=0)
