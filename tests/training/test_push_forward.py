"""Training over several blocks: its clock, its conditioning and its gradient."""

import pytest
import torch
from torch import nn

from ladcast.diffusion.denoiser import Condition, Denoiser, denoising_loss, training_noise_like
from ladcast.diffusion.noise import TrainingNoise
from ladcast.training.push_forward import DiffusionObjective, PushForward, diffusion_loss

ROWS = torch.tensor([0.5, 1.5])


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
    objective = DiffusionObjective(TrainingNoise(), ROWS, push)
    return diffusion_loss(model, *batch, objective=objective, generator=torch.Generator().manual_seed(seed))


def test_one_block_is_the_denoising_loss(batch):
    past, future, time_s = batch
    model = Denoiser(Recorder())
    generator = torch.Generator().manual_seed(0)
    sigma = TrainingNoise().sample(2, generator)
    unit = training_noise_like(future, generator)
    expected = denoising_loss(model, future, Condition(past, time_s), sigma=sigma, noise=unit, row_weight=ROWS)
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
