"""The training loop: a run that is interrupted anywhere and resumed is the uninterrupted one, bit for bit."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ladcast.data.batches import SampleOrder
from ladcast.training.logs import Validation
from ladcast.training.loop import TrainingContext, TrainingInterruptedError, TrainingState, averaged, fit
from ladcast.training.optimizer import WeightAverage, learning_rate
from ladcast.training.options import AnomalyPolicy, OptimizerOptions, TrainingOptions
from ladcast.training.snapshots import Snapshots

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


def test_training_is_plain_adamw(tmp_path: Path):
    """The loop written out: the optimizer's first step is its first one, and each step has noise of its own."""
    fitted, _, _ = train(tmp_path)
    model, state = small_model(), TrainingState(small_model(), OPTIONS, SampleOrder(18, 4, 3))
    weights, vectors = ([p for p in model.parameters() if (p.ndim > 1) == matrix] for matrix in (True, False))
    optimizer = torch.optim.AdamW(
        [{"params": weights}, {"params": vectors, "weight_decay": 0.0}], betas=(0.9, 0.99), weight_decay=0.01
    )
    for step in range(OPTIONS.steps):
        state.step = step
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(OPTIONS.optimizer.learning_rate, OPTIONS.optimizer, step, OPTIONS.steps)
        noise = torch.Generator().manual_seed(state.seed(0))
        optimizer.zero_grad()
        noisy_loss(model, Line().batch(SampleOrder(18, 4, 3).batch(step)), noise).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    assert_same(fitted.state_dict(), model.state_dict())


def test_each_micro_batch_of_each_step_and_run_has_noise_of_its_own():
    draws = []
    for seed in (0, 1):
        state = TrainingState(small_model(), replace(OPTIONS, seed=seed), SampleOrder(18, 4, seed))
        for state.step in range(20):
            generators = [torch.Generator().manual_seed(state.seed(micro_batch)) for micro_batch in range(8)]
            draws += [torch.rand((), generator=generator, dtype=torch.float64).item() for generator in generators]
    assert len(set(draws)) == len(draws) == 320


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
    weights = fit(model, loss, Line(), options, TrainingContext(folder, lambda *line: lines.append(line)))
    return model, weights, lines


def saved_state(folder: Path) -> dict[str, torch.Tensor]:
    """Returns every tensor of the newest snapshot, by name."""
    model = small_model()
    state = TrainingState(model, OPTIONS, SampleOrder(18, 4, 3))
    tensors = state.tensors()
    assert Snapshots(folder).load_newest(tensors) is not None
    return {
        f"{part}/{name}": tensor
        for part, content in tensors.items()
        for name, tensor in content.items()
        if isinstance(tensor, torch.Tensor)
    }


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("uninterrupted") / "resume"
    return *train(folder), saved_state(folder)


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert set(first) == set(second)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.slow
@pytest.mark.parametrize("every", [1, 2, 4])
@pytest.mark.parametrize("killed", range(1, OPTIONS.steps))
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path: Path, uninterrupted, killed: int, every: int):
    model, weights, _, saved = uninterrupted
    with pytest.raises(KilledError):
        train(tmp_path / "resume", killed_at(killed), checkpoint_every=every)
    resumed, resumed_weights, _ = train(tmp_path / "resume", checkpoint_every=every)
    assert_same(resumed.state_dict(), model.state_dict())
    assert_same(resumed_weights, weights)
    assert_same(saved_state(tmp_path / "resume"), saved)


def test_a_finished_run_is_not_trained_again(tmp_path: Path, uninterrupted):
    model, weights, _, _ = uninterrupted
    train(tmp_path / "resume")
    again, again_weights, lines = train(tmp_path / "resume", killed_at(0))
    assert not lines
    assert_same(again.state_dict(), model.state_dict())
    assert_same(again_weights, weights)


def test_a_run_is_not_resumed_with_another_order_of_samples(tmp_path: Path):
    train(tmp_path / "resume", steps=2)
    with pytest.raises(ValueError, match=r"order of samples was made of .*: seed was 3, now 4"):
        train(tmp_path / "resume", seed=4)
    with pytest.raises(ValueError, match=r"after 8 samples, no multiple of 'batch_size' 3"):
        train(tmp_path / "resume", batch_size=3)


def test_a_run_is_not_resumed_with_what_makes_other_weights(tmp_path: Path):
    def run(**inputs: str) -> None:
        context = TrainingContext(tmp_path, lambda *line: None, inputs=inputs)
        fit(small_model(), noisy_loss, Line(), replace(OPTIONS, steps=2), context)

    run(latents="1", model="2")
    run(latents="1", model="2")
    with pytest.raises(ValueError, match=r"latents was .*, now .*\. Choose another 'output'"):
        run(latents="3", model="2")


@pytest.mark.slow
def test_training_learns(tmp_path: Path):
    _, _, lines = train(tmp_path / "resume", steps=400, checkpoint_every=400, log_every=1)
    losses = [numbers["loss"] for _, numbers in lines]
    assert np.mean(losses[-20:]) < 0.05 * losses[0]


def test_the_log_comes_at_its_steps_and_at_the_end(uninterrupted):
    lines = uninterrupted[2]
    assert [step for step, _ in lines] == [2, 4, 6, 8, 9]
    names = {"loss", "gradient_norm", "learning_rate", "ema_decay", "steps_per_s", "samples_per_s"}
    assert all(set(numbers) == names for _, numbers in lines)


def spoiled_from(step: int, spoil: float):
    """Returns a loss whose value and gradient are multiplied by `spoil` from a step on."""
    calls = iter(range(step))

    def loss(model: nn.Module, batch: tuple[torch.Tensor, ...], generator: torch.Generator) -> torch.Tensor:
        value = noisy_loss(model, batch, generator)
        return value if next(calls, None) is not None else value * spoil

    return loss


@pytest.mark.parametrize(("log_every", "checkpoint_every"), [(1, 1), (100, 2), (5, 100)])
def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path, log_every: int, checkpoint_every: int):
    with pytest.raises(FloatingPointError, match=r"The loss is nan at step 4\..*lower 'learning_rate'"):
        train(
            tmp_path / "resume",
            spoiled_from(3, float("nan")),
            log_every=log_every,
            checkpoint_every=checkpoint_every,
        )
    if checkpoint_every < 4:
        assert all(tensor.isfinite().all() for tensor in saved_state(tmp_path / "resume").values())


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

    def validate(model: nn.Module) -> Validation:
        assert not model.training
        seen.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return Validation({"rmse": float(len(seen))})

    model, folder = small_model(), tmp_path / "resume"
    context = TrainingContext(folder, lambda *line: lines.append(line[:2]), validate=validate)
    weights = fit(model, noisy_loss, Line(), replace(OPTIONS, checkpoint_every=4), context)
    assert [(step, numbers["rmse"]) for step, numbers in lines if "rmse" in numbers] == [(4, 1), (8, 2), (9, 3)]
    saved = {name.removeprefix("ema/"): t for name, t in saved_state(folder).items() if name.startswith("ema/")}
    assert_same(seen[-1], saved)
    assert_same(weights, saved)
    assert_same(model.state_dict(), uninterrupted[0].state_dict())
    assert model.training


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["validate", "log"])
@pytest.mark.parametrize("killed", [4, 8, 9])
def test_a_validation_that_a_kill_has_cut_is_made_up(tmp_path: Path, uninterrupted, killed: int, stage: str):
    """Also that of the last step, after which nothing is left to train; none is made twice."""
    rows: list[int] = []
    kills = {(stage, killed)}

    def kill(*moment: str | int) -> None:
        if moment in kills:
            kills.remove(moment)
            raise KilledError

    def train_on() -> dict[str, torch.Tensor]:
        def validate(model: nn.Module) -> Validation:
            kill("validate", [4, 8, 9][len(rows)])
            return Validation({"rmse": 0.0})

        def log(step: int, numbers: dict[str, float], validation: Validation | None = None) -> None:
            if validation is not None:
                kill("log", step)
                rows.append(step)

        context = TrainingContext(tmp_path, log, validate=validate)
        options = replace(OPTIONS, checkpoint_every=4, checkpoint_in_background=False)
        return fit(small_model(), noisy_loss, Line(), options, context)

    with pytest.raises(KilledError):
        train_on()
    weights = train_on()
    assert rows == [4, 8, 9]
    assert_same(weights, uninterrupted[1])
    train_on()
    assert rows == [4, 8, 9]


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


@pytest.mark.parametrize("asked", [1, 4, 8])
def test_a_run_that_is_asked_to_stop_saves_and_is_resumed(tmp_path: Path, uninterrupted, asked: int):
    answers = iter([*[False] * (asked - 1), True])
    context = TrainingContext(tmp_path / "resume", lambda *line: None, interrupted=answers.__next__)
    with pytest.raises(TrainingInterruptedError, match=f"after step {asked}; the state is saved"):
        fit(small_model(), noisy_loss, Line(), replace(OPTIONS, checkpoint_every=100), context)
    model, weights, _ = train(tmp_path / "resume", checkpoint_every=100)
    assert_same(model.state_dict(), uninterrupted[0].state_dict())
    assert_same(weights, uninterrupted[1])


def test_threads_of_the_loader_do_not_matter(tmp_path: Path, uninterrupted):
    with pytest.raises(KilledError):
        train(tmp_path / "resume", killed_at(5), loader_threads=3)
    assert_same(train(tmp_path / "resume", loader_threads=1)[1], uninterrupted[1])


@pytest.mark.slow
def test_micro_batches_take_the_steps_of_one_batch(tmp_path: Path):
    def plain_loss(model: nn.Module, batch: tuple[torch.Tensor, ...], generator: torch.Generator) -> torch.Tensor:
        return (model(batch[0]) - batch[1]).square().mean()

    weights = [train(tmp_path / f"{size}", plain_loss, micro_batch_size=size)[1] for size in (None, 1, 2)]
    for other in weights[1:]:
        torch.testing.assert_close(other, weights[0], rtol=1e-5, atol=1e-6)


def test_a_bad_batch_may_be_skipped(tmp_path: Path):
    """Step 4 leaves the weights as they are; with the limit reached the run stops."""
    skip = AnomalyPolicy("skip", limit=1)
    seen: list[torch.Tensor] = []

    def spoiled_once(model: nn.Module, batch: tuple[torch.Tensor, ...], generator: torch.Generator) -> torch.Tensor:
        seen.append(model[0].weight.detach().clone())
        return noisy_loss(model, batch, generator) * (float("nan") if len(seen) == 4 else 1)

    _, _, lines = train(tmp_path / "skip", spoiled_once, anomaly=skip)
    assert torch.equal(seen[4], seen[3])
    assert not torch.equal(seen[3], seen[2])
    assert (4, {"anomalies": 1}) in lines
    with pytest.raises(FloatingPointError, match=r"nan at step 5.*2 anomalies so far, limit 1"):
        train(tmp_path / "stop", spoiled_from(3, float("nan")), anomaly=skip)


class Recorder(Line):
    """Remembers which batches were asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, ...]] = []

    def batch(self, indices: np.ndarray) -> tuple[torch.Tensor, ...]:
        self.asked.append(tuple(indices.tolist()))
        return super().batch(indices)


def test_a_roll_back_returns_to_the_checkpoint_and_leaves_the_bad_batch_out(tmp_path: Path):
    """Batch 3 (of step 4) is bad: the run goes back to step 2 and goes on with batch 4; a later start does the same."""
    order = SampleOrder(18, 4, 3)
    bad = Line().batch(order.batch(3))[0]
    steps: list[int] = []

    def loss(model: nn.Module, batch: tuple[torch.Tensor, ...], generator: torch.Generator) -> torch.Tensor:
        steps.append(next(n for n in range(20) if torch.equal(batch[0], Line().batch(order.batch(n))[0])))
        return noisy_loss(model, batch, generator) * (float("nan") if torch.equal(batch[0], bad) else 1)

    changes = {"checkpoint_every": 2, "anomaly": AnomalyPolicy("roll_back")}
    _, weights, _ = train(tmp_path / "one", loss, **changes)
    assert steps == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    calls = iter(range(8))

    def killed(*arguments) -> torch.Tensor:
        if next(calls, None) is None:
            raise KilledError
        return loss(*arguments)

    with pytest.raises(KilledError):
        train(tmp_path / "two", killed, **changes)
    assert_same(train(tmp_path / "two", loss, **changes)[1], weights)


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match=r"batch_size 12 does not divide among 2 ranks in micro-batches of 4.*of 8"):
        TrainingOptions(batch_size=12, micro_batch_size=4).micro_batches(2)
    with pytest.raises(ValueError, match=r"choose a multiple of 5"):
        TrainingOptions(batch_size=12).micro_batches(5)
