"""The order of training samples as a pure function of (seed, step): nothing to store, nothing to replay."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ladcast.data.reading import prefetch

SampleBatch = tuple[Tensor, ...]


@runtime_checkable
class BatchSource(Protocol):
    """A dataset that gathers whole batches."""

    def __len__(self) -> int: ...

    def batch(self, indices: npt.NDArray[np.int64]) -> SampleBatch:
        """Returns the samples at `indices`, stacked along a leading batch axis."""
        ...


def batch_indices(length: int, batch_size: int, *, seed: int, step: int) -> npt.NDArray[np.int64]:
    """Returns the samples of one training step: shuffled anew in every epoch, the short last batch dropped.

    Raises:
        ValueError: there are fewer samples than one batch needs.
    """
    per_epoch = length // batch_size
    if per_epoch == 0:
        raise ValueError(f"{length} training samples do not fill one batch of {batch_size}. Lower 'batch_size'.")
    epoch, position = divmod(step, per_epoch)
    order = np.random.default_rng([seed, epoch]).permutation(length)
    return order[position * batch_size : (position + 1) * batch_size]


def load_batches(
    source: BatchSource, batch_size: int, *, seed: int, steps: range, device: torch.device
) -> Iterator[SampleBatch]:
    """Yields the batch of every step on the device, gathering the next ones while the current one is used."""

    def gather(step: int) -> SampleBatch:
        parts = source.batch(batch_indices(len(source), batch_size, seed=seed, step=step))
        return tuple(_to_device(part, device) for part in parts)

    return prefetch(gather, steps, threads=2, ahead=4)


def _to_device(part: Tensor, device: torch.device) -> Tensor:
    if part.device == device or device.type != "cuda":
        return part.to(device)
    return part.pin_memory().to(device, non_blocking=True)
