"""On a GPU: the arithmetic is counted, training in bfloat16 follows that on a CPU, and a stopped run goes on."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ladcast.forecasting.diffusion import DiffusionConfig, DiffusionStepper
from ladcast.models.transformer import TransformerConfig
from ladcast.training.cost import count_flops, measure
from ladcast.training.distributed import Ranks
from ladcast.training.loop import TrainingContext, TrainingInterruptedError, fit
from ladcast.training.objectives import DiffusionObjective, DiffusionTraining, PushForward
from ladcast.training.options import OptimizerOptions, TrainingOptions

pytestmark = pytest.mark.gpu
DEVICE = torch.device("cuda")
SIZE = TransformerConfig(
    3, (-60.0, 60.0), (45.0, 315.0), heads=2, head_dim=8, dual_blocks=1, single_blocks=1, rope_axes_dim=(2, 2, 4)
)
OPTIONS = TrainingOptions(
    steps=8,
    batch_size=4,
    log_every=1,
    checkpoint_every=4,
    optimizer=OptimizerOptions(learning_rate=1e-3, warmup_steps=1),
)


class Waves:
    """Serves latents in memory of the CPU."""

    def __len__(self) -> int:
        return 32

    def batch(self, indices: np.ndarray) -> tuple[Tensor, ...]:
        phase = torch.from_numpy(indices).float()[:, None, None, None, None]
        x = torch.arange(8) * torch.pi / 4 + torch.arange(5)[:, None, None] / 3
        frames = (x + phase).sin().expand(-1, 3, 5, 4, 8)
        return frames[:, :, :1], frames[:, :, 1:], torch.from_numpy(indices) * 3600


def new_stepper(device: torch.device) -> DiffusionStepper:
    torch.manual_seed(0)
    stepper = DiffusionStepper.build(DiffusionConfig(SIZE))
    stepper.network.to(device)
    return stepper


def loss_of(stepper: DiffusionStepper, device: torch.device, *, blocks: int = 1):
    training = DiffusionTraining(push_forward=PushForward(blocks))
    objective = DiffusionObjective(training, torch.ones(4, 1, device=device))
    return lambda _, batch, generator: objective(stepper, batch, generator)


def train(folder: Path, options: TrainingOptions = OPTIONS, **around) -> tuple[dict[str, Tensor], list[float]]:
    losses: list[float] = []

    def log(step: int, numbers: dict[str, float]) -> None:
        losses.append(numbers["loss"])

    stepper, context = new_stepper(DEVICE), TrainingContext(folder, log, Ranks(device=DEVICE), **around)
    return fit(stepper.network, loss_of(stepper, DEVICE), Waves(), options, context), losses


def test_arithmetic_and_memory_are_counted_as_on_a_cpu():
    sample = Waves().batch(np.zeros(1, np.int64))
    counts = set()
    for device in (DEVICE, torch.device("cpu")):
        stepper = new_stepper(device)
        counts.add(count_flops(stepper.network, loss_of(stepper, device), sample))
    assert len(counts) == 1
    with torch.device("meta"):
        planned = DiffusionStepper.build(DiffusionConfig(SIZE))
    loss = loss_of(planned, torch.device("cpu"))
    assert measure(planned.network, loss, sample, bf16=True, recompute=False).sample_bytes > 0


def test_a_model_learns_in_bfloat16(tmp_path: Path):
    _, losses = train(tmp_path, replace(OPTIONS, steps=200))
    assert np.mean(losses[-20:]) < 0.6 * np.mean(losses[:20])


@pytest.mark.parametrize("compiled", [False, True])
def test_a_run_that_was_stopped_goes_on(tmp_path: Path, compiled: bool):
    options = replace(OPTIONS, compile=compiled)
    expected, losses = train(tmp_path / "whole", options)
    steps = iter(range(100))
    with pytest.raises(TrainingInterruptedError):
        train(tmp_path / "stopped", options, interrupted=lambda: next(steps) == 4)
    weights, rest = train(tmp_path / "stopped", options)
    np.testing.assert_allclose(rest, losses[5:], rtol=1e-2)
    for name, tensor in expected.items():
        torch.testing.assert_close(weights[name], tensor, rtol=1e-2, atol=1e-3)


def test_two_blocks_are_trained(tmp_path: Path):
    class Longer(Waves):
        def batch(self, indices: np.ndarray) -> tuple[Tensor, ...]:
            past, future, time = super().batch(indices)
            return past, torch.cat([future, future], dim=2), time

    stepper = new_stepper(DEVICE)
    context = TrainingContext(tmp_path, lambda step, numbers: None, Ranks(device=DEVICE))
    weights = fit(stepper.network, loss_of(stepper, DEVICE, blocks=2), Longer(), OPTIONS, context)
    assert all(tensor.isfinite().all() for tensor in weights.values())
