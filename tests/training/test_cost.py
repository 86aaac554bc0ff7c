"""Counted arithmetic and memory, against what is known by hand."""

import pytest
import torch
from torch import nn

from ladcast import device
from ladcast.forecasting.diffusion import DiffusionConfig, DiffusionStepper
from ladcast.models.transformer import TransformerConfig
from ladcast.training.cost import Footprint, count_flops, measure
from ladcast.training.distributed import Loss
from ladcast.training.objectives import DiffusionObjective, DiffusionTraining, PushForward


def mean_square(model: nn.Module, batch: tuple[torch.Tensor, ...], generator: torch.Generator) -> torch.Tensor:
    return model(batch[0]).square().mean()


SAMPLE = (torch.zeros(1, 8),)


@pytest.mark.slow
def test_two_layers_cost_what_they_cost():
    """2 n m FLOPs forward, as many for the gradient of weights, and for that of inputs but for the first layer."""
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    footprint = measure(model, mean_square, SAMPLE, bf16=False)
    assert footprint.flops_per_sample == 2 * (2 * 8 * 16 + 3 * 16 * 4)
    assert count_flops(model, mean_square, SAMPLE) == footprint.flops_per_sample
    assert footprint.parameters == footprint.trained == 8 * 16 + 16 + 16 * 4 + 4
    assert footprint.state_bytes() == 20 * footprint.parameters
    assert footprint.state_bytes(4) == 5 * footprint.parameters
    kept = 8 + 16 + 4  # the inputs of both layers, the second also the result of the ReLU, and what is squared
    assert footprint.sample_bytes == 4 * kept


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("groups", [1, 4])
def test_convolutions_in_groups_cost_what_each_group_costs(groups: int, transposed: bool):
    """The first layer has no gradient of its inputs, the second has."""
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    first, second = nn.Conv2d(4, 8, 1, bias=False), kind(8, 8, 3, stride=2, padding=1, groups=groups, bias=False)
    sample = (torch.zeros(1, 4, 10, 12),)
    cells = 10 * 12 if transposed else 5 * 6
    expected = 2 * (2 * 4 * 8 * 10 * 12) + 3 * (2 * cells * 8 * 8 // groups * 9)
    assert count_flops(nn.Sequential(first, second), mean_square, sample) == expected


def test_frozen_weights_have_no_gradient_and_no_moments():
    model = nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 4))
    model[0].requires_grad_(False)
    footprint = measure(model, mean_square, SAMPLE, bf16=False)
    assert footprint.flops_per_sample == 2 * (8 * 16 + 2 * 16 * 4)
    assert footprint.state_bytes() == 8 * (8 * 16 + 16) + 20 * (16 * 4 + 4)


def test_nothing_real_is_touched():
    model = nn.Linear(8, 2)
    before = model.weight.detach().clone()
    measure(model, mean_square, SAMPLE, bf16=True)
    assert torch.equal(model.weight, before)
    assert model.weight.grad is None
    assert type(model.weight) is nn.Parameter


def small_stepper() -> tuple[DiffusionStepper, tuple[torch.Tensor, ...]]:
    depth = {"refiner_blocks": 0, "dual_blocks": 0, "single_blocks": 2}
    config = TransformerConfig(3, (-60.0, 60.0), (45.0, 315.0), heads=2, head_dim=8, rope_axes_dim=(2, 2, 4), **depth)
    with torch.device("meta"):
        stepper = DiffusionStepper.build(DiffusionConfig(config))
    return stepper, (torch.empty(1, 3, 1, 4, 4), torch.empty(1, 3, 4, 4, 4), torch.zeros(1, dtype=torch.int64))


def denoising(stepper: DiffusionStepper, *, blocks: int = 1) -> Loss:
    objective = DiffusionObjective(DiffusionTraining(push_forward=PushForward(blocks, steps=2)), torch.ones(4))
    return lambda _, batch, generator: objective(stepper, batch, generator)


@pytest.mark.slow
def test_attention_counts_with_the_square_of_its_tokens():
    """The rest of a transformer grows with the tokens: its second difference over their number is attention alone."""
    stepper, (past, future, time_s) = small_stepper()
    frames = (2, 4, 6)
    flops = [
        count_flops(
            stepper.network, denoising(stepper), (past, future[:, :, :1].expand(-1, -1, number, -1, -1), time_s)
        )
        for number in frames
    ]
    joint = [16 * (number + 1) for number in frames]
    squares = joint[2] ** 2 - 2 * joint[1] ** 2 + joint[0] ** 2
    products, blocks, width = 2 + 5, 2, 16  # products of attention forward and backward, which makes one anew
    assert flops[2] - 2 * flops[1] + flops[0] == 2 * products * blocks * width * squares


@pytest.fixture(scope="module")
def counted() -> dict[str, Footprint]:
    """The footprints of a small denoiser: in float32, in bfloat16, and that with recomputed blocks."""
    stepper, sample = small_stepper()
    loss = denoising(stepper)
    ways = {
        "wide": {"bf16": False},
        "narrow": {"bf16": True},
        "recomputed": {"bf16": True, "recompute": True},
    }
    found = {name: measure(stepper.network, loss, sample, **way) for name, way in ways.items()}
    assert "forward" not in vars(stepper.network.network.single_blocks[0])
    return found


@pytest.mark.slow
def test_a_step_that_is_too_large_to_be_done_counts_as_one_that_is(
    counted: dict[str, Footprint], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(device, "COUNTED_FOR_REAL", 0)
    stepper, sample = small_stepper()
    assert measure(stepper.network, denoising(stepper), sample, bf16=True) == counted["narrow"]


@pytest.mark.slow
def test_recomputing_takes_less_memory_and_no_more_arithmetic_of_the_model(counted: dict[str, Footprint]):
    assert counted["recomputed"].sample_bytes < 0.6 * counted["narrow"].sample_bytes
    assert counted["recomputed"].flops_per_sample == counted["narrow"].flops_per_sample


@pytest.mark.slow
def test_bfloat16_halves_most_activations(counted: dict[str, Footprint]):
    assert 0.5 < counted["narrow"].sample_bytes / counted["wide"].sample_bytes < 0.95


@pytest.mark.slow
def test_device_memory_adds_up(counted: dict[str, Footprint]):
    footprint = counted["narrow"]
    more = footprint.device_bytes(7, shards=2) - footprint.device_bytes(4, shards=2)
    assert more == pytest.approx(3 * footprint.sample_bytes)


@pytest.mark.slow
def test_forecasts_between_blocks_are_counted():
    """Two blocks cost two steps of training, and the calls that forecast the first: three of Heun's two steps."""
    stepper, (past, future, time_s) = small_stepper()
    one = count_flops(stepper.network, denoising(stepper), (past, future, time_s))
    longer = (past, future.repeat(1, 1, 2, 1, 1), time_s)
    two = count_flops(stepper.network, denoising(stepper, blocks=2), longer)
    assert 2 * one + 3 * one / 4 < two < 2 * one + 3 * one / 2
