"""The training loop: a run that is interrupted anywhere and resumed is the uninterrupted one, bit for bit."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ladcast.checkpoint import read_tensors
from ladcast.training.ema import WeightAverage
from ladcast.training.loop import TrainingOptions, averaged, fit
from ladcast.training.optimizer import OptimizerOptions

OPTIONS = TrainingOptions(
    steps=9,
    batch_size=4,
    seed=3,
    ema_decay=0.7,
    log_every=2,
    checkpoint_every=1,
    optimizer=OptimizerOptions(learning_rate=0.02, warmup_steps=3),
)


class Line:
    """Serves the points of y = 3 x - 1."""

    def __len__(self) -> int:
        return 18

    def batch(self, indices: np.ndarray) -> tuple[torch.Tensor, ...]:
        x = torch.from_numpy(indices).float()[:, None] / 9 - 1
        return x, 3 * x - 1


def small_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(1, 5), nn.Tanh(), nn.Linear(5, 1))


def noisy_loss(model: nn.Module, batch: tuple[torch.Tensor, ...], generator: torch.Generator) -> torch.Tensor:
    x, y = batch
    return (model(x) - y + 0.1 * torch.randn(y.shape, generator=generator)).square().mean()


class KilledError(Exception):
    """Stands for the end of a job's time."""


def killed_at(step: int):
    """Returns a loss that ends the run when it is asked for its `step`-th value."""
    calls = iter(range(step))

    def loss(model: nn.Module, batch: tuple[torch.Tensor, ...], generator: torch.Generator) -> torch.Tensor:
        if next(calls, None) is None:
            raise KilledError
        return noisy_loss(model, batch, generator)

    return loss


def train(folder: Path, loss=noisy_loss, **changes) -> tuple[nn.Module, dict[str, torch.Tensor], list]:
    model, lines = small_model(), []
    options = replace(OPTIONS, **changes)
    weights = fit(model, loss, Line(), options, folder=folder, log=lambda *line: lines.append(line))
    return model, weights, lines


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("uninterrupted") / "resume"
    return *train(folder), read_tensors(folder)


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert set(first) == set(second)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("every", [1, 2, 4])
@pytest.mark.parametrize("killed", range(1, OPTIONS.steps))
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path: Path, uninterrupted, killed: int, every: int):
    model, weights, _, saved = uninterrupted
    with pytest.raises(KilledError):
        train(tmp_path / "resume", killed_at(killed), checkpoint_every=every)
    resumed, resumed_weights, _ = train(tmp_path / "resume", checkpoint_every=every)
    assert_same(resumed.state_dict(), model.state_dict())
    assert_same(resumed_weights, weights)
    assert_same(read_tensors(tmp_path / "resume"), saved)


def test_a_finished_run_is_not_trained_again(tmp_path: Path, uninterrupted):
    model, weights, _, _ = uninterrupted
    train(tmp_path / "resume")
    again, again_weights, lines = train(tmp_path / "resume", killed_at(0))
    assert not lines
    assert_same(again.state_dict(), model.state_dict())
    assert_same(again_weights, weights)


def test_a_run_is_not_resumed_with_another_order_of_samples(tmp_path: Path):
    train(tmp_path / "resume", steps=2)
    with pytest.raises(ValueError, match=r"order of samples is that of .*'seed': 3\}, this run's .*'seed': 4"):
        train(tmp_path / "resume", seed=4)
    with pytest.raises(ValueError, match=r"after 8 samples, no multiple of 'batch_size' 3"):
        train(tmp_path / "resume", batch_size=3)


def test_training_learns(tmp_path: Path):
    _, _, lines = train(tmp_path / "resume", steps=400, checkpoint_every=400, log_every=1)
    losses = [numbers["loss"] for _, numbers in lines]
    assert np.mean(losses[-20:]) < 0.05 * losses[0]


def test_the_log_comes_at_its_steps_and_at_the_end(uninterrupted):
    lines = uninterrupted[2]
    assert [step for step, _ in lines] == [2, 4, 6, 8, 9]
    assert all(set(numbers) == {"loss", "gradient_norm", "steps_per_s"} for _, numbers in lines)


def spoiled_from(step: int, spoil: float):
    """Returns a loss whose value and gradient are multiplied by `spoil` from a step on."""
    calls = iter(range(step))

    def loss(model: nn.Module, batch: tuple[torch.Tensor, ...], generator: torch.Generator) -> torch.Tensor:
        value = noisy_loss(model, batch, generator)
        return value if next(calls, None) is not None else value * spoil

    return loss


@pytest.mark.parametrize(("log_every", "checkpoint_every", "found"), [(1, 1, 4), (100, 2, 4), (5, 2, 4), (5, 100, 5)])
def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path, log_every, checkpoint_every, found: int):
    with pytest.raises(FloatingPointError, match=rf"The loss is nan at step {found}\..*lower 'learning_rate'"):
        train(
            tmp_path / "resume",
            spoiled_from(3, float("nan")),
            log_every=log_every,
            checkpoint_every=checkpoint_every,
        )
    if (tmp_path / "resume").exists():
        assert all(tensor.isfinite().all() for tensor in read_tensors(tmp_path / "resume").values())


def test_an_infinite_gradient_of_a_finite_loss_stops_the_run_too(tmp_path: Path):
    class Steep(torch.autograd.Function):
        @staticmethod
        def forward(ctx, value: torch.Tensor) -> torch.Tensor:
            return value.clone()

        @staticmethod
        def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:
            return gradient * float("inf")

    with pytest.raises(FloatingPointError, match=r"The gradient norm is (nan|inf) at step 1\."):
        train(tmp_path / "resume", lambda *arguments: Steep.apply(noisy_loss(*arguments)))
    assert not (tmp_path / "resume").exists()


def test_validation_sees_the_averaged_weights_and_leaves_the_run_as_it_was(tmp_path: Path, uninterrupted):
    seen, lines = [], []

    def validate(model: nn.Module) -> dict[str, float]:
        assert not model.training
        seen.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return {"rmse": float(len(seen))}

    model, folder = small_model(), tmp_path / "resume"
    options = replace(OPTIONS, checkpoint_every=4)
    weights = fit(
        model, noisy_loss, Line(), options, folder=folder, log=lambda *line: lines.append(line), validate=validate
    )
    assert [(step, numbers["rmse"]) for step, numbers in lines if "rmse" in numbers] == [(4, 1), (8, 2), (9, 3)]
    saved = {name.removeprefix("ema/"): t for name, t in read_tensors(folder).items() if name.startswith("ema/")}
    assert_same(seen[-1], saved)
    assert_same(weights, saved)
    assert_same(model.state_dict(), uninterrupted[0].state_dict())
    assert model.training


def test_averaged_weights_are_given_back_also_after_an_error():
    model = small_model()
    own = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    average = WeightAverage({name: tensor + 1 for name, tensor in own.items()}, 0.9)

    def validate() -> None:
        with averaged(model, average):
            assert_same(model.state_dict(), average.weights)
            raise KilledError

    with pytest.raises(KilledError):
        validate()
    assert_same(model.state_dict(), own)
    assert model.training
