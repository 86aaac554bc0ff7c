"""Stage `statistics`: mean and standard deviation of every channel, in one pass."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr

from ladcast.data.normalization import Normalizer
from ladcast.data.packing import pack
from ladcast.data.reading import map_blocks, select_period
from ladcast.data.store import open_store
from ladcast.fields import ChannelSet, read_channels
from ladcast.grid import Grid


@dataclass(frozen=True)
class Moments:
    """Holds count, mean and sum of squared deviations per channel; `a + b` merges them (Chan et al. 1983)."""

    count: npt.NDArray[np.float64]
    mean: npt.NDArray[np.float64]
    deviations: npt.NDArray[np.float64]

    @classmethod
    def of(cls, state: npt.NDArray[np.floating]) -> Moments:
        """Computes the moments of `time channel lat lon`, leaving out NaN."""
        values = np.moveaxis(state, 1, 0).reshape(state.shape[1], -1).astype(np.float64)
        count = np.isfinite(values).sum(1).astype(np.float64)
        mean = np.nansum(values, 1) / np.maximum(count, 1)
        return cls(count, mean, np.nansum((values - mean[:, None]) ** 2, 1))

    def __add__(self, other: Moments) -> Moments:
        count = self.count + other.count
        share = other.count / np.maximum(count, 1)
        shift = other.mean - self.mean
        deviations = self.deviations + other.deviations + shift**2 * self.count * share
        return Moments(count, self.mean + shift * share, deviations)


def channel_moments(ds: xr.Dataset, channels: ChannelSet, *, stride: int = 1) -> Moments:
    """Computes the moments of every `stride`-th frame of a dataset in canonical layout."""
    blocks = map_blocks(ds, lambda block: Moments.of(pack(block, channels).numpy()), stride=stride)
    total = next(blocks)
    for block in blocks:
        total = total + block
    return total


def statistics(
    store: Path,
    output: Path,
    *,
    channels: str = "era5",
    grid: str | None = None,
    start: str | None = None,
    end: str | None = None,
    stride: int = 1,
) -> Path:
    """Write the mean and standard deviation of every channel to a JSON file.

    Args:
        store: Zarr store in the WeatherBench 2 layout.
        output: JSON file to write.
        channels: `era5`, or a YAML file that names another channel set.
        grid: grid of the model, such as 240x121-south, where it leaves out the south pole of the store.
        start: first time, such as 1979-01-01; use training years only.
        end: last time, inclusive.
        stride: take every n-th frame.
    """
    channel_set = read_channels(channels)
    ds = select_period(open_store(store, channel_set, Grid.parse(grid) if grid else None), start, end)
    moments = channel_moments(ds, channel_set, stride=stride)
    std = np.sqrt(moments.deviations / moments.count)
    mean = torch.from_numpy(moments.mean).float()
    normalizer = Normalizer(channel_set, mean, torch.from_numpy(std).float())
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_suffix(".partial")
    normalizer.save(temporary)
    temporary.rename(output)
    return output
