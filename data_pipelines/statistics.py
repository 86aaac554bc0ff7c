"""Stage `statistics`: mean and standard deviation of every channel, in one pass."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import xarray as xr

from data_pipelines.manifest import Content, describe_times
from data_pipelines.moments import Moments
from data_pipelines.options import EVERYTHING, EXECUTION, ExecutionArgument, SelectionArgument
from data_pipelines.product import produce
from data_pipelines.reading import read_frames
from data_pipelines.view import View
from data_pipelines.work import WorkUnit, time_units
from ladcast.data.normalization import Normalizer
from ladcast.data.packing import pack
from ladcast.data.prefetch import prefetch

FRAMES_PER_UNIT = 120
FRAMES_AT_ONCE = 8
READERS = 2


@dataclass(frozen=True)
class Statistics:
    """Makes the file of a `Normalizer` from every `stride`-th frame of a view."""

    view: View
    stride: int = 1

    def about(self) -> Content:
        """Describes the product."""
        return {
            "stage": "statistics",
            "inputs": {"store": self.view.about},
            "arguments": {**self.view.arguments, "stride": self.stride},
            **describe_times(self._frames()["time"].values),
        }

    def units(self) -> Sequence[WorkUnit]:
        """Cuts the frames that count."""
        return time_units(self._frames()["time"].values, FRAMES_PER_UNIT)

    def create(self, folder: Path) -> None:
        """Needs nothing."""

    def make(self, folder: Path, unit: WorkUnit) -> Iterable[str]:
        """Keeps the moments of each frame, a few kB."""
        frames = self._frames().isel(time=unit.items)
        Moments.concatenate(self._moments(frames)).save(folder / unit.part)
        return [unit.part]

    def finish(self, folder: Path) -> Path:
        """Merges the units."""
        moments = Moments.concatenate(Moments.load(folder / unit.part) for unit in self.units())
        mean, std = (torch.from_numpy(values).float() for values in moments.mean_and_std())
        path = folder / "statistics.json"
        Normalizer(self.view.channels, mean, std).save(path)
        return path

    def _frames(self) -> xr.Dataset:
        return self.view.open().isel(time=slice(None, None, self.stride))

    def _moments(self, frames: xr.Dataset) -> Iterable[Moments]:
        """Yields the moments of a few frames at a time, while the next ones are read."""
        starts = range(0, frames.sizes["time"], FRAMES_AT_ONCE)
        pieces = [frames.isel(time=slice(first, first + FRAMES_AT_ONCE)) for first in starts]
        for piece in prefetch(read_frames, pieces, threads=READERS, ahead=READERS):
            yield Moments.of(pack(piece, self.view.channels).numpy())


def statistics(
    store: Path,
    output: Path,
    *,
    stride: int = 1,
    selection: SelectionArgument = EVERYTHING,
    execution: ExecutionArgument = EXECUTION,
) -> Path:
    """Write the mean and standard deviation of every channel to a JSON file.

    Args:
        store: Zarr store in the WeatherBench 2 layout.
        output: JSON file to write.
        stride: take every n-th frame.
        selection: what to read; use training years only.
        execution: where to do the work.
    """
    return produce(Statistics(View.of(store, selection), stride), output, execution)
