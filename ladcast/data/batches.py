"""Batches for training: their order, and how they are made ahead of their use.

The order is a pure function of (seed, step): there is nothing to store, and nothing to replay. Samples may lie in
memory, on the GPU or on disk.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Int
from torch import Tensor

from ladcast.data.lazy import prefetch
from ladcast.data.reader import StateReader
from ladcast.resumable import require_same
from ladcast.times import HOUR, Times, windows
from ladcast.types import Latent, LatentSequence, PastSequence, Scaled, to_epoch_seconds

READ_AT_ONCE, READ_BYTES = 40, 2**26
"""The most states, and bytes of them, that one thread reads before they are copied to their place."""


def load_scaled(
    reader: StateReader,
    *,
    threads: int = 12,
    progress: Callable[[int, int], None] = lambda done, total: None,
    device: torch.device | str = "cpu",
) -> Scaled:
    """Reads all states, normalised, as float16 `time channel lat lon` held in the memory of a device.

    Half precision resolves normalised fields to 1e-3; it halves memory and doubles the loader's rate. Of what a GPU
    holds, the host has a few pieces at a time.
    """
    scaled = torch.empty(len(reader.times), *reader.shape, dtype=torch.float16, device=device)
    size = min(max(READ_BYTES // (4 * math.prod(reader.shape)), 1), READ_AT_ONCE)
    pieces = torch.arange(len(scaled)).split(size)

    def read(indices: Int[Tensor, " time"]) -> Scaled:
        states = _empty((len(indices), *reader.shape))
        reader.read(indices.numpy(), states.numpy())
        return states.half()

    made = prefetch(read, pieces, threads=threads, ahead=2 * threads)
    for done, (place, states) in enumerate(zip(scaled.split(size), made, strict=True), start=1):
        place.copy_(states)
        progress(done, len(pieces))
    return scaled


class StateDataset:
    """Serves single normalised states from memory (of the CPU or a GPU), as batches `(scaled,)`."""

    def __init__(self, scaled: Scaled) -> None:
        self.scaled = scaled

    def __len__(self) -> int:
        return len(self.scaled)

    def batch(self, indices: npt.NDArray[np.int64]) -> tuple[Scaled]:
        """Returns the states at `indices`, in the precision and on the device that they are kept in."""
        return (self.scaled[torch.from_numpy(indices).to(self.scaled.device)],)


class StoredStates:
    """Serves single normalised states straight from a store, as batches `(scaled,)` like those of `StateDataset`.

    Each batch is read by `threads` threads of its own, state by state, into memory that is pinned for a GPU's sake with
    `pin_memory`.
    """

    def __init__(self, reader: StateReader, *, threads: int = 8, pin_memory: bool = False) -> None:
        self.reader, self.threads, self.pin_memory = reader, threads, pin_memory

    def __len__(self) -> int:
        return len(self.reader.times)

    def batch(self, indices: npt.NDArray[np.int64]) -> tuple[Scaled]:
        """Returns the states at `indices`, as float32."""
        scaled = _empty((len(indices), *self.reader.shape), pin_memory=self.pin_memory)
        with ThreadPoolExecutor(self.threads) as pool:
            deque(pool.map(self.reader.read, indices[:, None], scaled.numpy()[:, None]), maxlen=0)  # raises an error
        return (scaled,)


class LatentDataset:
    """Serves windows of latents that are `step` apart, as batches `(past, future, init_time)`.

    Windows never straddle a gap of the time axis. Of latents that are denser than `step`, such as hourly ones, windows
    start at each of them.

    Raises:
        ValueError: there is no window of `past + future` latents.
    """

    def __init__(self, latents: Latent, times: Times, *, past: int, future: int, step: np.timedelta64) -> None:
        self.latents = latents
        self.seconds = to_epoch_seconds(times).to(latents.device)
        self.past = past
        self.windows = windows(times, past + future, step)
        if not len(self.windows):
            raise ValueError(
                f"Expected runs of {past + future} times that are {step / HOUR:g} h apart, found none among "
                f"{len(times)}. Encode a longer stretch with `ladcast-data encode`."
            )

    def __len__(self) -> int:
        return len(self.windows)

    def batch(self, indices: npt.NDArray[np.int64]) -> tuple[PastSequence, LatentSequence, Int[Tensor, " batch"]]:
        """Returns past and future latents `batch latent time y x` and the last past time in seconds."""
        window = torch.from_numpy(self.windows[indices]).to(self.latents.device)
        sequence = self.latents[window].transpose(1, 2)
        init_time = self.seconds[window[:, self.past - 1]]
        return sequence[:, :, : self.past], sequence[:, :, self.past :], init_time


def _empty(shape: tuple[int, ...], *, pin_memory: bool = False) -> Tensor:
    """Returns float32 memory of its own for each batch; torch keeps pinned memory and hands it out again."""
    if pin_memory:
        return torch.empty(shape, pin_memory=True)
    # numpy asks for huge pages: with 4 KB pages, first touching them takes half as long as reading into them.
    return torch.from_numpy(np.empty(shape, np.float32))


SampleBatch = tuple[Tensor, ...]


@dataclass(frozen=True)
class SampleOrder:
    """Deals out `samples` in batches of `batch_size`, shuffled anew in every epoch.

    Epochs follow each other without a break: sample number n of a run is number n % samples of epoch n // samples, and
    a batch may hold the end of one epoch and the start of the next. So every epoch shows every sample once.
    `batch_size` counts the samples of all ranks together, and rank r takes every `world_size`-th of them: the order
    stays the same when a run goes on with another number of ranks, of workers or of samples a batch.

    Raises:
        ValueError: the samples do not fill a batch, the ranks do not divide it, or a number is out of range.
    """

    samples: int
    batch_size: int
    seed: int = 0
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.batch_size <= self.samples:
            raise ValueError(
                f"{self.samples} training samples do not fill one batch of {self.batch_size}. Lower 'batch_size'."
            )
        if self.seed < 0 or not 0 <= self.rank < self.world_size:
            raise ValueError(
                f"Expected seed >= 0 and 0 <= rank < world_size, got seed={self.seed}, rank={self.rank} of "
                f"{self.world_size}."
            )
        if self.batch_size % self.world_size:
            raise ValueError(
                f"A batch of {self.batch_size} does not divide among {self.world_size} ranks: choose a multiple."
            )

    def batch(self, step: int) -> npt.NDArray[np.int64]:
        """Returns the samples of this rank in training step `step`, which counts from 0."""
        # Numbered through the whole run, so that neither ranks nor the size of a batch change which samples come when.
        numbers = np.arange(step * self.batch_size + self.rank, (step + 1) * self.batch_size, self.world_size)
        epochs, places = np.divmod(numbers, self.samples)
        parts = [shuffle(self.samples, self.seed, e)[places[epochs == e]] for e in np.unique(epochs).tolist()]
        return np.concatenate(parts)

    def state(self, step: int) -> dict[str, int]:
        """Returns what a checkpoint keeps after `step` steps: how many samples were shown, of which order."""
        return {"samples_shown": step * self.batch_size, "samples": self.samples, "seed": self.seed}

    def resume(self, state: dict[str, int]) -> int:
        """Returns the step that follows on a `state`, also of another batch size.

        Raises:
            ValueError: the state is of other samples or another seed, or falls within a batch.
        """
        require_same(
            state,
            {"samples": self.samples, "seed": self.seed},
            "The checkpoint's order of samples",
            remedy="Go on with the same data and seed, or start a new run from the weights ('initial').",
        )
        step, rest = divmod(state["samples_shown"], self.batch_size)
        if rest:
            raise ValueError(
                f"The checkpoint was written after {state['samples_shown']} samples, no multiple of 'batch_size' "
                f"{self.batch_size}. Choose one that divides it."
            )
        return step


@lru_cache(maxsize=4)
def shuffle(samples: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """Returns the samples in the order of one epoch (0.13 s for a million of them, then kept).

    The order is that of 64-bit random numbers (Philox 4x64, Salmon et al. 2011, keyed by seed and epoch): numpy keeps
    the numbers of a bit generator for ever, but not those of `Generator.permutation`.
    """
    order = np.argsort(np.random.Philox(key=[seed, epoch]).random_raw(samples), kind="stable")
    order.setflags(write=False)
    return order


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
            gathered = source.batch(indices)
            pinned = (t if t.is_cuda or t.is_pinned() else t.contiguous().pin_memory() for t in gathered)
            sent = tuple(tensor.to(self.device, non_blocking=True) for tensor in pinned)
            return SentBatch(sent, self.stream.record_event())

    def receive(self, batch: SentBatch) -> SampleBatch:
        """Returns the batch for use on the current stream: the stream waits for the copy, the program does not."""
        if batch.arrival is not None:
            current = torch.cuda.current_stream(self.device)
            current.wait_event(batch.arrival)
            for tensor in batch.tensors:
                tensor.record_stream(current)
        return batch.tensors
