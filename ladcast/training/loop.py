"""The training loop: the same one for the autoencoder and the forecaster, resumable at any step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from ladcast.checkpoint import MANIFEST, read_document, read_tensors, write_checkpoint
from ladcast.data.loader import BatchSource, SampleBatch, load_batches
from ladcast.data.sampling import SampleOrder
from ladcast.training.ema import WeightAverage
from ladcast.training.optimizer import (
    OptimizerOptions,
    build_optimizer,
    learning_rate,
    optimizer_tensors,
    restore_optimizer,
)

Loss = Callable[[nn.Module, SampleBatch, torch.Generator], Tensor]
Log = Callable[[int, dict[str, float]], None]
Validate = Callable[[nn.Module], dict[str, float]]


@dataclass(frozen=True)
class TrainingOptions:
    """Sets the length, batches, averaging and bookkeeping of a training run."""

    steps: int = 1000
    batch_size: int = 4
    seed: int = 0
    ema_decay: float = 0.9999
    bf16: bool = True
    compile: bool = False
    log_every: int = 100
    checkpoint_every: int = 1000
    optimizer: OptimizerOptions = field(default_factory=OptimizerOptions)


def fit(
    model: nn.Module,
    loss: Loss,
    data: BatchSource,
    options: TrainingOptions,
    *,
    folder: Path,
    log: Log,
    validate: Validate | None = None,
) -> dict[str, Tensor]:
    """Trains `model` in place and returns its averaged weights.

    `loss(model, batch, generator)` draws all randomness from `generator`, which is seeded by (seed, step): a
    run that was killed and resumed from `folder` repeats the uninterrupted one. `validate` is called with the
    averaged weights at every checkpoint.

    Raises:
        FloatingPointError: the loss or its gradient is not finite at a step that is logged or saved.
        ValueError: the data do not fill a batch, or `folder` is of a run with other data or another seed.
    """
    device = next(model.parameters()).device
    order = SampleOrder(len(data), options.batch_size, options.seed)
    optimizer = build_optimizer(model, options.optimizer)
    average = WeightAverage(model.state_dict(), options.ema_decay)
    first = resume(folder, model, optimizer, average, order)
    network = cast(nn.Module, torch.compile(model)) if options.compile else model
    generator = torch.Generator(device=device)
    steps = range(first, options.steps)
    started = time.monotonic()
    batches = load_batches(data, order, steps=steps, device=device)
    for step, batch in zip(steps, batches, strict=True):
        generator.manual_seed(options.seed * 1_000_003 + step)
        with torch.autocast(device.type, torch.bfloat16, enabled=options.bf16 and device.type == "cuda"):
            value = loss(network, batch, generator)
        norm = descend(value, model, optimizer, options, step=step)
        average.update(model.state_dict())
        done = step + 1
        if _due(done, options.log_every, options.steps):
            speed = (done - first) / (time.monotonic() - started)
            log(done, {**_finite(done, loss=value, gradient_norm=norm), "steps_per_s": speed})
        if _due(done, options.checkpoint_every, options.steps):
            _finite(done, loss=value, gradient_norm=norm)
            save(folder, model, optimizer, average, position=order.state(done))
            if validate is not None:
                with averaged(model, average):
                    log(done, validate(model))
    return average.weights


def descend(
    loss: Tensor, model: nn.Module, optimizer: torch.optim.Optimizer, options: TrainingOptions, *, step: int
) -> Tensor:
    """Moves the weights one step down the gradient of `loss`; returns the gradient's norm before clipping."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(options.optimizer, step, options.steps)
    loss.backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), options.optimizer.max_gradient_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norm


def save(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: WeightAverage,
    *,
    position: dict[str, int],
) -> None:
    """Writes everything the next step depends on; `position` is that in the order of samples."""
    parts = {"model": model.state_dict(), "ema": average.weights, "optimizer": optimizer_tensors(optimizer)}
    tensors = {f"{part}/{name}": tensor for part, content in parts.items() for name, tensor in content.items()}
    write_checkpoint(folder, tensors, {MANIFEST: {"position": position, "ema_updates": average.updates}})


def resume(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, average: WeightAverage, order: SampleOrder
) -> int:
    """Restores the state that `save` wrote, if there is one, and returns the next step."""
    if not folder.is_dir():
        return 0
    manifest = read_document(folder, MANIFEST)
    step = order.resume(manifest["position"])
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "ema": {}, "optimizer": {}}
    for key, tensor in read_tensors(folder).items():
        part, _, name = key.partition("/")
        parts[part][name] = tensor
    model.load_state_dict(parts["model"])
    restore_optimizer(optimizer, parts["optimizer"])
    for name, tensor in average.weights.items():
        tensor.copy_(parts["ema"][name])
    average.updates = manifest["ema_updates"]
    return step


@contextmanager
def averaged(model: nn.Module, average: WeightAverage) -> Iterator[None]:
    """Lends the averaged weights to the model within a `with` block."""
    own = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    training = model.training
    model.load_state_dict(average.weights)
    model.eval()
    try:
        yield
    finally:
        model.load_state_dict(own)
        model.train(training)


def _due(done: int, every: int, steps: int) -> bool:
    return done % every == 0 or done == steps


def _finite(step: int, **values: Tensor) -> dict[str, float]:
    numbers = {name: value.item() for name, value in values.items()}
    for name, number in numbers.items():
        if not math.isfinite(number):
            raise FloatingPointError(
                f"The {name.replace('_', ' ')} is {number} at step {step}. The last checkpoint is whole: resume from "
                f"it with a lower 'learning_rate' or 'max_gradient_norm'."
            )
    return numbers
