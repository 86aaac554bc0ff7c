"""Datasets for training: single states, in memory or on disk, and windows of latents."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Int
from torch import Tensor

from ladcast.data.lazy import prefetch
from ladcast.data.loading.reader import StateReader
from ladcast.times import HOUR, Times, to_epoch_seconds, windows
from ladcast.types import Latent, LatentSequence, PastSequence, Scaled

READ_AT_ONCE = 40
"""States that one thread reads before they are copied to their place."""


def load_scaled(
    reader: StateReader, *, threads: int = 12, progress: Callable[[int, int], None] = lambda done, total: None
) -> Scaled:
    """Reads all states, normalised, as float16 `time channel lat lon` held in memory.

    Half precision resolves normalised fields to 1e-3; it halves memory and doubles the loader's rate.
    """
    scaled = torch.empty(len(reader.times), *reader.shape, dtype=torch.float16)
    pieces = torch.arange(len(scaled)).split(READ_AT_ONCE)
    read = prefetch(partial(_read_half, reader), pieces, threads=threads, ahead=2 * threads)
    for done, (place, states) in enumerate(zip(scaled.split(READ_AT_ONCE), read, strict=True), start=1):
        place.copy_(states)
        progress(done, len(pieces))
    return scaled


def _read_half(reader: StateReader, indices: Int[Tensor, " time"]) -> Scaled:
    states = _empty((len(indices), *reader.shape))
    reader.read(indices.numpy(), states.numpy())
    return states.half()


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
