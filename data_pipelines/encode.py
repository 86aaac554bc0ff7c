"""Stage `encode`: the latents of a whole store, with the autoencoder's hash and their statistics."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from threading import Lock

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr

from data_pipelines import (
    ALWAYS,
    EXECUTION,
    LAYOUT,
    ExecutionArgument,
    LayoutArgument,
    PeriodArgument,
    StoreLayout,
)
from data_pipelines.manifest import Content, describe_times, fingerprint
from data_pipelines.product import produce
from data_pipelines.states import View, read_frames
from data_pipelines.statistics import FrameMoments
from data_pipelines.workers import WorkUnit, worker_number
from data_pipelines.zarr_store import StoredVariable, StoreRecipe, Template, write_frames, write_small
from ladcast.checkpoint import checkpoint_hash
from ladcast.data.lazy import prefetch
from ladcast.data.normalization import pack
from ladcast.data.reader import StateReader, XarrayReader, open_reader
from ladcast.device import find_device
from ladcast.forecasting.checkpoints import load_codec
from ladcast.forecasting.codec import LatentCodec
from ladcast.types import Scaled

READERS = 8
SHARDS_AT_ONCE = 4
"""By one GPU: while it encodes the frames of one shard, others are read, written and put on the disk."""
ENCODER = Lock()
"""Memory on the GPU has room for the activations of one batch, not of one for each shard."""


@dataclass(frozen=True)
class Encoding(StoreRecipe):
    """Makes a store of unscaled latents; a worker has one model, on a GPU of its own where there are several."""

    view: View
    autoencoder: Path
    weights: str
    device: str | None = None
    options: StoreLayout = field(default_factory=StoreLayout)

    def about(self) -> Content:
        """Describes the product."""
        weights = {"name": self.autoencoder.name, "fingerprint": self.weights}
        return {
            "stage": "encode",
            "inputs": {"store": self.view.about, "autoencoder": weights},
            "arguments": {**self.view.arguments, **asdict(self.options), "latents": "not scaled"},
            "autoencoder": checkpoint_hash(self.autoencoder),
            **describe_times(self.view.open()["time"].values),
        }

    @property
    def at_once(self) -> int:
        """Returns how many shards are made side by side."""
        return SHARDS_AT_ONCE if find_device(self.device).type == "cuda" else 1

    def make(self, folder: Path, unit: WorkUnit) -> Iterable[str]:
        """Encodes the frames of a shard, a batch at a time, while the next ones are read."""
        codec = self._codec()
        size, numbers = codec.frames_at_once, np.arange(unit.first, unit.stop)
        batches = np.split(numbers, range(size, len(numbers), size))
        read = partial(_read_scaled, _open(self.view, codec))
        scaled = prefetch(read, batches, threads=READERS, ahead=2 * READERS)
        raw = np.concatenate([_encoded(codec, batch) for batch in scaled])
        if not np.isfinite(raw).all():
            raise ValueError(f"{self.autoencoder} made latents that are not finite. Check how it was trained.")
        FrameMoments.of(raw).save(folder / unit.part)
        return [*write_frames(folder, [("latent", (unit.items,), raw)]), unit.part]

    def finish(self, folder: Path) -> Path:
        """Writes the statistics of the latents."""
        moments = FrameMoments.concatenate(FrameMoments.load(folder / unit.part) for unit in self.units())
        for name, values in zip(("latent_mean", "latent_std"), moments.mean_and_std(), strict=True):
            write_small(folder, name, values)
        return folder

    def template(self) -> Template:
        """Returns the layout of the store."""
        codec = self._codec()
        config = codec.autoencoder.config
        shape = (config.latent_channels, *codec.grid.coarsen(config.downsampling).shape)
        unknown = ("latent", np.full(shape[0], np.nan))
        fixed = xr.Dataset(
            {"latent_mean": unknown, "latent_std": unknown},
            {"time": self.view.open()["time"].values},
            {"autoencoder": checkpoint_hash(self.autoencoder), "store": self.view.store.name},
        )
        fields = {"latent": StoredVariable(("latent", "y", "x"), shape, {"long_name": "latent, not scaled"})}
        return Template.of(fixed, fields, self.options)

    def _codec(self) -> LatentCodec:
        return _load(self.autoencoder, self.weights, str(find_device(self.device, worker_number())))


def _encoded(codec: LatentCodec, batch: Scaled) -> npt.NDArray[np.float32]:
    with ENCODER:
        return codec.encode_raw(batch).cpu().numpy()


def _read_scaled(reader: StateReader, numbers: npt.NDArray[np.int64]) -> Scaled:
    if isinstance(reader, XarrayReader):  # which takes the fill value for what a store has lost
        return reader.normalizer(pack(read_frames(reader.ds.isel(time=numbers)), reader.normalizer.channels))
    scaled = np.empty((len(numbers), *reader.shape), np.float32)
    reader.read(numbers, scaled)
    return torch.from_numpy(scaled)


@lru_cache(maxsize=1)
def _open(view: View, codec: LatentCodec) -> StateReader:
    """Opens the states once a process."""
    return open_reader(view.open(), codec.normalizer.to("cpu"), view.store)


@lru_cache(maxsize=1)
def _load(autoencoder: Path, weights: str, device: str) -> LatentCodec:
    """Loads a model once a process; `weights` tells a new one of the same name apart."""
    return load_codec(autoencoder, device)


def encode(
    store: Path,
    autoencoder: Path,
    output: Path,
    *,
    period: PeriodArgument = ALWAYS,
    device: str | None = None,
    layout: LayoutArgument = LAYOUT,
    execution: ExecutionArgument = EXECUTION,
) -> Path:
    """Encode every frame of a store to unscaled latents in a Zarr store.

    Args:
        store: Zarr store in the WeatherBench 2 layout.
        autoencoder: checkpoint folder that `ladcast train autoencoder` wrote, or that of a forecaster.
        output: Zarr store to write: `latent(time, latent, y, x)`, and its mean and std per channel.
        device: cpu or cuda, by default a GPU where there is one; workers share the GPUs of a host.
    """
    weights = fingerprint(autoencoder)
    where = str(find_device(device, worker_number()))
    codec = _load(autoencoder, weights, where)
    view = View(store.absolute(), fingerprint(store), codec.normalizer.channels, codec.grid, period.start, period.end)
    gpus = torch.cuda.device_count() if where.startswith("cuda") else 0
    recipe = Encoding(view, autoencoder.absolute(), weights, device, layout)
    return produce(recipe, output, execution.by_default(gpus if gpus > 1 else 0))
