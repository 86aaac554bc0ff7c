"""Datasets for training, in memory or on disk: single states, windows of states, and windows of latents."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ladcast.data.frames import FrameReader
from ladcast.data.reading import FRAMES_PER_BLOCK, prefetch
from ladcast.times import Times, to_epoch_seconds, windows
from ladcast.types import Latent, LatentSequence, PastSequence, Scaled


def load_scaled(
    reader: FrameReader, *, threads: int = 12, progress: Callable[[int, int], None] = lambda done, total: None
) -> Scaled:
    """Reads all frames, normalised, as float16 `time channel lat lon` held in memory.

    Half precision resolves normalised fields to 1e-3; it halves memory and doubles the loader's rate.
    """
    scaled = torch.empty(len(reader.times), *reader.shape, dtype=torch.float16)
    parts = scaled.split(FRAMES_PER_BLOCK)
    blocks = [frames.numpy() for frames in torch.arange(len(scaled)).split(FRAMES_PER_BLOCK)]
    read = prefetch(lambda block: read_frames(reader, block).half(), blocks, threads=threads, ahead=2 * threads)
    for done, (part, block) in enumerate(zip(parts, read, strict=True), start=1):
        part.copy_(block)
        progress(done, len(parts))
    return scaled


def read_frames(reader: FrameReader, frames: npt.NDArray[np.int64]) -> Scaled:
    """Returns the normalised frames `time channel lat lon`, as float32."""
    scaled = _empty((len(frames), *reader.shape))
    reader.read(frames, scaled.numpy())
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


class StoredWindows:
    """Serves windows of 6-hourly normalised frames straight from a store, as batches `(scaled, time)`.

    Each batch is read by `threads` threads of its own, sample by sample, into memory that is pinned for a GPU's sake
    with `pin_memory`. Windows never straddle a gap of the time axis.

    Raises:
        ValueError: no window of `length` consecutive frames exists.
    """

    def __init__(self, reader: FrameReader, *, length: int = 1, threads: int = 8, pin_memory: bool = False) -> None:
        self.reader, self.length, self.threads, self.pin_memory = reader, length, threads, pin_memory
        self.seconds = to_epoch_seconds(reader.times)
        self.windows = _windows(reader.times, length, "Download a longer stretch with `ladcast-data download`.")

    def __len__(self) -> int:
        return len(self.windows)

    def batch(
        self, indices: npt.NDArray[np.int64]
    ) -> tuple[Float[Tensor, "batch time channel lat lon"], Int[Tensor, "batch time"]]:
        """Returns the windows that start at `indices`, and the time of every frame in seconds since 1970."""
        frames = self.windows[indices]
        scaled = _empty((*frames.shape, *self.reader.shape), pin_memory=self.pin_memory)
        with ThreadPoolExecutor(self.threads) as pool:
            deque(pool.map(self.reader.read, frames, scaled.numpy()), maxlen=0)  # raises the first error
        return scaled, self.seconds[frames]


class StoredStates:
    """Serves single normalised states straight from a store, as batches `(scaled,)` like those of `StateDataset`."""

    def __init__(self, reader: FrameReader, *, threads: int = 8, pin_memory: bool = False) -> None:
        self.frames = StoredWindows(reader, threads=threads, pin_memory=pin_memory)

    def __len__(self) -> int:
        return len(self.frames)

    def batch(self, indices: npt.NDArray[np.int64]) -> tuple[Scaled]:
        """Returns the states at `indices`, as float32."""
        scaled, _ = self.frames.batch(indices)
        return (scaled[:, 0],)


class LatentDataset:
    """Serves windows of 6-hourly latents, as batches `(past, future, init_time)`.

    Windows never straddle a gap of the time axis. Of hourly latents they start at every hour.

    Raises:
        ValueError: no window of `past + future` consecutive frames exists.
    """

    def __init__(self, latents: Latent, times: Times, *, past: int = 1, future: int = 4) -> None:
        self.latents = latents
        self.seconds = to_epoch_seconds(times).to(latents.device)
        self.past, self.future = past, future
        self.windows = _windows(times, past + future, "Encode a longer stretch with `ladcast-data encode`.")

    def __len__(self) -> int:
        return len(self.windows)

    def batch(self, indices: npt.NDArray[np.int64]) -> tuple[PastSequence, LatentSequence, Int[Tensor, " batch"]]:
        """Returns past and future latents `batch latent time y x` and the last past time in seconds."""
        frames = torch.from_numpy(self.windows[indices]).to(self.latents.device)
        sequence = self.latents[frames].transpose(1, 2)
        init_time = self.seconds[frames[:, self.past - 1]]
        return sequence[:, :, : self.past], sequence[:, :, self.past :], init_time


def _empty(shape: tuple[int, ...], *, pin_memory: bool = False) -> Tensor:
    """Returns float32 memory of its own for each batch; torch keeps pinned memory and hands it out again."""
    if pin_memory:
        return torch.empty(shape, pin_memory=True)
    # numpy asks for huge pages: with 4 KB pages, first touching them takes half as long as reading into them.
    return torch.from_numpy(np.empty(shape, np.float32))


def _windows(times: Times, length: int, advice: str) -> npt.NDArray[np.int64]:
    found = windows(times, length)
    if not len(found):
        raise ValueError(
            f"Expected runs of {length} frames that are 6 h apart, found none among {len(times)}. {advice}"
        )
    return found
