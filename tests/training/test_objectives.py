"""The losses: training over several steps of a forecast, and the reconstruction of states."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ladcast.diffusion import Condition, Denoiser, TrainingNoise, denoising_loss, training_noise_like
from ladcast.fields import ChannelSet
from ladcast.forecasting.diffusion import DiffusionConfig, DiffusionStepper
from ladcast.forecasting.one_call import OneCallConfig
from ladcast.forecasting.stepper import FrameCounts, Stepper
from ladcast.grid import Grid
from ladcast.models.transformer import TransformerConfig
from ladcast.training.objectives import (
    CrpsObjective,
    CrpsTraining,
    DecodedScore,
    DiffusionObjective,
    DiffusionTraining,
    PushForward,
    almost_fair_crps,
    channel_weights,
    pool,
    reconstruction_error,
)
from ladcast.verification.crps import fair_crps, member_difference, member_error

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


@pytest.mark.parametrize("count", [2, 3, 5])
def test_the_almost_fair_crps_lies_between_the_fair_one_and_that_of_the_members(count: int, generator):
    """At alpha 1 it is what the scores of forecasts are computed with, at 0 the distance of two distributions."""
    members, truth = (torch.randn(*lead, 3, 4, 6, generator=generator) for lead in ((2, count), (2,)))
    by_member = members.transpose(0, 1)
    plain = member_error(by_member, truth) - (1 - 1 / count) / 2 * member_difference(by_member, truth)
    torch.testing.assert_close(almost_fair_crps(members, truth, 1.0), fair_crps(by_member, truth))
    torch.testing.assert_close(almost_fair_crps(members, truth, 0.0), plain)
    torch.testing.assert_close(
        almost_fair_crps(members, truth, 0.95), 0.95 * fair_crps(by_member, truth) + 0.05 * plain
    )


@pytest.mark.slow
def test_the_fair_crps_of_two_members_is_least_in_the_mean_where_they_are_drawn_as_the_truth_is(generator):
    truth, units = torch.randn(200_000, generator=generator), torch.randn(200_000, 2, generator=generator)
    spreads = torch.linspace(0.5, 1.5, 21)
    fair, almost = (
        torch.stack([almost_fair_crps(spread * units, truth, alpha).mean() for spread in spreads])
        for alpha in (1.0, 0.95)
    )
    assert spreads[fair.argmin()].item() == pytest.approx(1, abs=0.051)
    # What is almost fair asks for a little more or less than the truth's own spread, not for much.
    assert spreads[almost.argmin()].item() == pytest.approx(1, abs=0.101)


class Linear(Stepper):
    """Multiplies the last frame by the first weight and adds a random number of the member times the second one."""

    @classmethod
    def build(cls, config):
        return cls(config, nn.ParameterList([torch.tensor(0.8), torch.tensor(0.3)]))

    def __call__(self, past, init_time, noise):
        seen.append((past, init_time, noise))
        factor, spread = self.network
        last = past[:, :, -1:].expand(-1, -1, self.config.frames.future, -1, -1)
        return factor * last + spread * noise[..., None, None]

    def noise_shape(self, frame_shape):
        return (frame_shape[0], 1)


seen: list[tuple[torch.Tensor, ...]] = []


def crps_of(batch, config: CrpsTraining, seed: int = 0, *, stepper: Linear | None = None) -> torch.Tensor:
    frames = FrameCounts(batch[0].shape[2], batch[1].shape[2] // config.blocks)
    transformer = TransformerConfig(3, (-60.0, 60.0), (45.0, 315.0))
    stepper = stepper or Linear.build(OneCallConfig(transformer, frames))
    seen.clear()
    return CrpsObjective(config, ROWS)(stepper, batch, torch.Generator().manual_seed(seed))


def test_each_member_of_a_rollout_goes_on_from_its_own_forecast(batch):
    past, future, seconds = batch
    value = crps_of(batch, CrpsTraining(members=3, blocks=3))
    assert [len(known) for known, *_ in seen] == [6, 6, 6]
    assert torch.equal(seen[0][0], past.repeat_interleave(3, dim=0))
    assert [time.tolist() for _, time, _ in seen] == [
        [start + day * 86_400 for start in seconds.tolist() for _ in range(3)] for day in range(3)
    ]
    member, scores = past.repeat_interleave(3, dim=0)[:, :, -1], []
    for truth, (known, _, noise) in zip(future.chunk(3, dim=2), seen, strict=True):
        torch.testing.assert_close(known[:, :, -1], member)
        member = 0.8 * member + 0.3 * noise[..., None]
        score = almost_fair_crps(member.unflatten(0, (2, 3))[:, :, :, None].expand(-1, -1, -1, 4, -1, -1), truth, 0.95)
        scores.append((ROWS * score).mean())
    torch.testing.assert_close(value, torch.stack(scores).mean())


def slope(batch, config: CrpsTraining, weight: int) -> float:
    """Returns how fast the loss grows with a weight of the linear stepper, by two more weights near by."""
    values = []
    for change in (-1e-3, 1e-3):
        stepper = Linear.build(OneCallConfig(TransformerConfig(3, (-60.0, 60.0), (45.0, 315.0)), FrameCounts(2, 4)))
        with torch.no_grad():
            stepper.network[weight] += change
        values.append(crps_of(batch, config, stepper=stepper).item())
    return (values[1] - values[0]) / 2e-3


@pytest.mark.parametrize("weight", [0, 1])
def test_gradients_reach_the_first_call_unless_they_are_detached(batch, weight: int):
    batch = tuple(tensor.double() if tensor.is_floating_point() else tensor for tensor in batch)
    gradients = {}
    for detach in (False, True):
        stepper = Linear.build(OneCallConfig(TransformerConfig(3, (-60.0, 60.0), (45.0, 315.0)), FrameCounts(2, 4)))
        crps_of(batch, CrpsTraining(blocks=3, detach=detach), stepper=stepper).backward()
        gradients[detach] = stepper.network[weight].grad.item()
    whole = slope(batch, CrpsTraining(blocks=3), weight)
    assert gradients[False] == pytest.approx(whole, abs=5e-3)
    assert abs(gradients[True] - whole) > 2e-2


def test_errors_count_in_standard_deviations_of_changes(batch):
    """Latents, and the changes that a stepper says they have, in another unit are as well forecast as before."""
    past, future, seconds = batch
    config = OneCallConfig(
        TransformerConfig(3, (-60.0, 60.0), (45.0, 315.0)), FrameCounts(2, 12), change_std=((0.1, 0.2, 0.3),) * 12
    )
    tenfold = replace(config, change_std=((1.0, 2.0, 3.0),) * 12)
    plain = Linear.build(config)
    wide = Linear.build(tenfold)
    wide.network[1].data *= 10
    training = CrpsTraining(mean_weight=0.5)
    loss = crps_of(batch, training, stepper=plain)
    torch.testing.assert_close(crps_of((10 * past, 10 * future, seconds), training, stepper=wide), loss)


def test_the_mean_is_asked_for_without_noise_in_the_first_call(batch):
    past, future, _ = batch
    without = crps_of(batch, CrpsTraining(blocks=3))
    with_mean = crps_of(batch, CrpsTraining(blocks=3, mean_weight=0.2))
    error = 0.8 * past[:, :, -1:] - future[:, :, :4]
    torch.testing.assert_close(with_mean - without, 0.2 * (ROWS * error**2).mean())
    assert not seen[-1][2].any()


def test_pooled_cells_score_means_of_squares(batch):
    past, future, seconds = batch
    cells, both = (crps_of(batch, CrpsTraining(pooled=pooled)) for pooled in ((), (2,)))
    coarse = (F.avg_pool2d(x.flatten(0, 2), 2).unflatten(0, x.shape[:3]) for x in (past, future))
    torch.manual_seed(0)
    means = CrpsObjective(CrpsTraining(), ROWS.mean(0, keepdim=True))(
        Linear.build(OneCallConfig(TransformerConfig(3, (-60.0, 60.0), (45.0, 315.0)), FrameCounts(2, 12))),
        (*coarse, seconds),
        torch.Generator().manual_seed(0),
    )
    torch.testing.assert_close(both, (cells + means) / 2)  # the linear stepper commutes with means
    heavy = crps_of(batch, CrpsTraining(pooled=(2,), pooled_weights=(9.0,)))
    torch.testing.assert_close(heavy, (cells + 9 * means) / 2)


def test_weights_of_squares_are_as_many_as_sides():
    with pytest.raises(ValueError, match=r"a weight for each side of 'pooled', \[8, 32\], got \[1.0\]"):
        CrpsTraining(pooled=(8, 32), pooled_weights=(1.0,))


def decoded_crps(batch, config: CrpsTraining, decode: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """Scores one call whose decoded frames count 1, 10, 100 and 1000 times."""
    frames = batch[1].shape[2]
    fields = DecodedScore(decode, 10.0 ** torch.arange(frames)[:, None, None, None] * ROWS, downsampling=1)
    stepper = Linear.build(OneCallConfig(TransformerConfig(3, (-60.0, 60.0), (45.0, 315.0)), FrameCounts(2, frames)))
    seen.clear()
    return CrpsObjective(config, ROWS, fields)(stepper, batch, torch.Generator().manual_seed(0))


def test_decoded_fields_of_one_frame_are_scored(batch):
    past, future, seconds = batch
    config = CrpsTraining(decoded=1.0, pooled=(2,))
    value = decoded_crps((past, future[:, :, :4], seconds), config, lambda latent: latent.sum(dim=1, keepdim=True))
    (known, _, noise), scores = seen[0], []
    members = (0.8 * known[:, :, -1] + 0.3 * noise[..., None]).sum(dim=1).unflatten(0, (2, 2))
    for number, truth in enumerate(future[:, :, :4].sum(dim=1).unbind(dim=1)):
        of_side = [
            (pool(ROWS, side) * almost_fair_crps(pool(members, side), pool(truth, side), 0.95)).mean()
            for side in (1, 2)
        ]
        scores.append(10.0**number * torch.stack(of_side).mean().item())
    assert value.item() == pytest.approx(min(scores, key=lambda score: abs(score - value.item())), rel=1e-5)


def test_latents_that_are_fields_are_worth_the_same_decoded_or_not(batch):
    past, future, seconds = batch
    values = [
        decoded_crps((past, future[:, :, :1], seconds), CrpsTraining(decoded=share, pooled=(2,)), lambda latent: latent)
        for share in (0.0, 0.3, 1.0)
    ]
    torch.testing.assert_close(values[1:], [values[0], values[0]])


def test_an_objective_that_cannot_decode_says_so(batch):
    with pytest.raises(ValueError, match="Expected fields of an objective"):
        crps_of(batch, CrpsTraining(decoded=0.5))


def test_means_see_that_cells_err_together(generator):
    """Of a truth independent from cell to cell; members that are not score as well in cells, and worse in means."""
    truth = torch.randn(4000, 1, 4, 4, generator=generator)
    apart = torch.randn(4000, 2, 1, 4, 4, generator=generator)
    together = torch.randn(4000, 2, 1, 1, 1, generator=generator).expand(-1, -1, -1, 4, 4)

    def score(members: torch.Tensor, side: int) -> float:
        return almost_fair_crps(pool(members, side), pool(truth, side), 1.0).mean().item()

    assert score(together, 1) == pytest.approx(score(apart, 1), rel=0.03)
    assert score(together, 4) > 1.5 * score(apart, 4)


def test_squares_that_do_not_fill_the_field_are_refused():
    assert pool(torch.ones(2, 3, 4, 8), 9).shape == (2, 3, 1, 1)
    with pytest.raises(ValueError, match="squares of 3 cells do not fill a field of 4 x 8"):
        pool(torch.ones(2, 3, 4, 8), 3)


def test_members_are_those_of_the_generator(batch):
    assert torch.equal(crps_of(batch, CrpsTraining(), 5), crps_of(batch, CrpsTraining(), 5))
    assert not torch.equal(crps_of(batch, CrpsTraining(), 5), crps_of(batch, CrpsTraining(), 6))


GRID = Grid.regular(8, 4)
AREAS = torch.tensor(GRID.area_weights, dtype=torch.float32)
EVERYWHERE = torch.ones(3, *GRID.shape)


@pytest.fixture
def scaled(generator: torch.Generator) -> torch.Tensor:
    return torch.randn(2, 3, *GRID.shape, generator=generator)


def error(reconstruction: torch.Tensor, scaled: torch.Tensor, valid: torch.Tensor = EVERYWHERE) -> float:
    return reconstruction_error(reconstruction, scaled, weight=AREAS[:, None] * valid).mean().item()


@pytest.mark.parametrize("factor", [0.0, 0.5, 2.0])
def test_a_field_that_is_off_by_a_factor_has_the_relative_error_of_the_factor(scaled, factor: float):
    assert error(factor * scaled, scaled) == pytest.approx(abs(factor - 1), rel=1e-5)


def test_a_perfect_reconstruction_has_no_loss_and_a_finite_gradient(scaled):
    reconstruction = scaled.clone().requires_grad_(True)
    value = reconstruction_error(reconstruction, scaled, weight=AREAS[:, None] * EVERYWHERE).mean()
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
    valid[1, 1:3, 2:5] = 0
    reconstruction = scaled + 0.1 * torch.randn(scaled.shape, generator=generator)
    spoiled = torch.where(valid > 0, reconstruction, 1e3)
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


def test_errors_in_given_units_are_root_mean_squares(scaled):
    unit = torch.tensor([0.5, 1.0, 4.0])[:, None, None]
    made = reconstruction_error(scaled + 2.0, scaled, weight=AREAS[:, None] * EVERYWHERE, unit=unit)
    torch.testing.assert_close(made, torch.tensor([4.0, 2.0, 0.5]).expand(2, 3), rtol=1e-4, atol=0)


def test_the_weight_of_a_channel_is_the_product_of_what_is_said_of_it():
    channels = ChannelSet(("geopotential", "temperature"), ("2m_temperature",), (50, 500))
    weights = channel_weights({"z": 2.0, "500": 3.0, "t500": 0.5, "t2m": 4.0}, channels)
    expected = dict(zip(channels.names, (weights / weights[channels.index("t50")]).tolist(), strict=True))
    assert expected == pytest.approx({"z50": 2, "z500": 6, "t50": 1, "t500": 1.5, "t2m": 4})
    assert weights.mean().item() == pytest.approx(1)
    assert channel_weights({}, channels).tolist() == [1.0] * 5


@pytest.mark.parametrize("factors", [{"z": -1.0}, {"q": 1.0}, {"t": float("nan")}, {"z": 0.0, "t": 0.0, "t2m": 0.0}])
def test_channel_weights_that_name_nothing_or_weigh_nothing_are_refused(factors: dict[str, float]):
    with pytest.raises(ValueError, match="channel_weights: expected"):
        channel_weights(factors, ChannelSet(("geopotential", "temperature"), ("2m_temperature",), (50, 500)))
