"""Datasets for training: states for the autoencoder, windows of latents for the forecaster."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr
from jaxtyping import Int
from torch import Tensor

from ladcast.data.normalization import Normalizer
from ladcast.data.packing import pack
from ladcast.data.reading import FRAMES_PER_BLOCK, map_blocks
from ladcast.fields import ChannelSet
from ladcast.times import Times, to_epoch_seconds, windows
from ladcast.types import Latent, LatentSequence, PastSequence, Scaled


def load_scaled(
    ds: xr.Dataset,
    channels: ChannelSet,
    normalizer: Normalizer,
    *,
    stride: int = 1,
    threads: int = 12,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Scaled:
    """Reads every `stride`-th frame, normalised, as float16 `time channel lat lon` held in memory.

    Half precision resolves normalised fields to 1e-3; it halves memory and doubles the loader's rate.
    """
    frames = len(range(0, ds.sizes["time"], stride))
    scaled = torch.empty(frames, len(channels), ds.sizes["latitude"], ds.sizes["longitude"], dtype=torch.float16)
    parts = scaled.split(FRAMES_PER_BLOCK)
    blocks = map_blocks(ds, lambda block: normalizer(pack(block, channels)).half(), stride=stride, threads=threads)
    for done, (part, block) in enumerate(zip(parts, blocks, strict=True), start=1):
        part.copy_(block)
        progress(done, len(parts))
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


class LatentDataset:
    """Serves windows of consecutive latents, as batches `(past, future, init_time)`.

    Windows never straddle a gap of the time axis.

    Raises:
        ValueError: no window of `past + future` consecutive frames exists.
    """

    def __init__(self, latents: Latent, times: Times, *, past: int = 1, future: int = 4) -> None:
        self.latents = latents
        self.seconds = to_epoch_seconds(times).to(latents.device)
        self.past, self.future = past, future
        self.first = windows(times, past + future)
        if self.first.size == 0:
            raise ValueError(
                f"Expected runs of {past + future} consecutive 6-hourly frames, found none among "
                f"{len(times)} times. Encode a longer stretch with `ladcast-data encode`."
            )

    def __len__(self) -> int:
        return len(self.first)

    def batch(self, indices: npt.NDArray[np.int64]) -> tuple[PastSequence, LatentSequence, Int[Tensor, " batch"]]:
        """Returns past and future latents `batch latent time y x` and the last past time in seconds."""
        window = np.arange(self.past + self.future)
        frames = torch.from_numpy(self.first[indices][:, None] + window).to(self.latents.device)
        sequence = self.latents[frames].transpose(1, 2)
        init_time = self.seconds[frames[:, self.past - 1]]
        return sequence[:, :, : self.past], sequence[:, :, self.past :], init_time
