"""Batches for training, made ahead of their use: the same for samples in memory, on the GPU and on disk."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ladcast.data.loading.order import SampleOrder
from ladcast.data.prefetch import prefetch

SampleBatch = tuple[Tensor, ...]


@runtime_checkable
class BatchSource(Protocol):
    """A dataset that gathers whole batches."""

    def __len__(self) -> int: ...

    def batch(self, indices: npt.NDArray[np.int64]) -> SampleBatch:
        """Returns the samples at `indices`, stacked along a leading batch axis."""
        ...


def load_batches(
    source: BatchSource, order: SampleOrder, *, steps: range, device: torch.device, threads: int = 2, ahead: int = 4
) -> Generator[SampleBatch, None, None]:
    """Yields the batch of every step on the device, while `threads` threads make up to `ahead` further ones.

    A batch is a function of its step alone: a run that is resumed with `range(step, ...)` sees the same batches. An
    error comes at the turn of its batch. Closing the iterator ends all its threads.
    """
    copy = DeviceCopy(device)

    def make(step: int) -> SentBatch:
        return copy.send(source, order.batch(step))

    with closing(prefetch(make, steps, threads=threads, ahead=ahead)) as made:
        for batch in made:
            yield copy.receive(batch)


@dataclass(frozen=True)
class SentBatch:
    """A batch on its way to the device, and the event of its arrival."""

    tensors: SampleBatch
    arrival: torch.cuda.Event | None


class DeviceCopy:
    """Moves batches to a device beside the computation there: from pinned memory, on a CUDA stream of its own.

    torch hands pinned memory out again only after the copies from it are done.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self.stream = torch.cuda.Stream(device)
            # Data that were put on the GPU before are ready for this stream too.
            self.stream.wait_stream(torch.cuda.current_stream(device))

    def send(self, source: BatchSource, indices: npt.NDArray[np.int64]) -> SentBatch:
        """Gathers a batch and begins its copy."""
        if self.stream is None:
            return SentBatch(tuple(tensor.to(self.device) for tensor in source.batch(indices)), None)
        with torch.cuda.stream(self.stream):
            sent = tuple(_pinned(tensor).to(self.device, non_blocking=True) for tensor in source.batch(indices))
            return SentBatch(sent, self.stream.record_event())

    def receive(self, batch: SentBatch) -> SampleBatch:
        """Returns the batch for use on the current stream: the stream waits for the copy, the program does not."""
        if batch.arrival is not None:
            current = torch.cuda.current_stream(self.device)
            current.wait_event(batch.arrival)
            for tensor in batch.tensors:
                tensor.record_stream(current)
        return batch.tensors


def _pinned(tensor: Tensor) -> Tensor:
    return tensor if tensor.device.type == "cuda" or tensor.is_pinned() else tensor.contiguous().pin_memory()
