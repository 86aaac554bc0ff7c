"""Checks of a training run before it waits in a queue: its configuration, data, paths and memory.

A run can be planned before its data are there: what a step takes follows from the configuration alone.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import torch
import xarray as xr
from torch import nn

from ladcast.config import ConfigError, load_config
from ladcast.data.batches import SampleOrder
from ladcast.data.normalization import Normalizer
from ladcast.documents import read_mapping
from ladcast.forecasting.checkpoints import load_codec
from ladcast.forecasting.codec import LatentCodec
from ladcast.forecasting.plan import describe_seconds
from ladcast.grid import Grid
from ladcast.models.autoencoder import Autoencoder
from ladcast.recipes import Period
from ladcast.recipes.autoencoder import AutoencoderRecipe, AutoencoderRun, reconstruction_loss
from ladcast.recipes.forecaster import ForecasterRecipe, ForecasterRun
from ladcast.recipes.latents import decode_scaled, latent_rows
from ladcast.recipes.recipe import GIB, Recipe, describe_step, digest
from ladcast.times import STEP, Times, parse_time
from ladcast.training.cost import FLOAT_BYTES, Footprint, measure
from ladcast.training.distributed import Loss
from ladcast.training.logs import find_trackers
from ladcast.training.objectives import DecodedScore, Objective, find_objective

COPIES = 3
"""Snapshots on disk at the time that the third one is written."""
GPU_FLOPS, CPU_FLOPS = 1e14, 3e10
"""What a rank computes in a second when it trains: a tenth of the data sheet of an H100, and one core."""
USABLE = 0.92
"""Share of a GPU's memory that is left beside the workspaces of its libraries."""


KINDS: dict[str, type[Recipe]] = {kind.kind: kind for kind in (AutoencoderRecipe, ForecasterRecipe)}


def _kind_of(config: Path) -> type[Recipe]:
    """Returns the kind of model that a configuration is of: a forecaster learns from latents."""
    content = read_mapping(config) if config.is_file() else {}
    return ForecasterRecipe if "latents" in content else AutoencoderRecipe


def open_recipe(config: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Reads a configuration of either model and opens, but does not read, the data that it names; raises as `open`."""
    return _kind_of(config).of_config(config, overrides)(torch.device("cpu"))


class UnreadAutoencoder(AutoencoderRecipe):
    """A run whose states and statistics are not there yet."""

    @classmethod
    def plan(cls, run: AutoencoderRun) -> UnreadAutoencoder:
        """Makes the recipe of a configuration, with every 6 hours of its training period as samples."""
        channels, grid = run.data.channel_set(), Grid.parse(run.data.grid)
        ones, static = torch.ones(len(channels)), torch.zeros(len(run.data.static), *grid.shape)
        store = xr.Dataset(coords={"time": _times(run.train)})
        return cls(run, store, Normalizer(channels, 0 * ones, ones), static, None)

    def loss(self, network: nn.Module, device: torch.device) -> Loss:
        """Returns the loss as if all points counted."""
        valid = torch.ones(len(self.channels), *self.grid.shape, dtype=torch.bool)
        static, chosen = self.static.to(device), self.run.loss
        return reconstruction_loss(self.config, static, self.grid, valid=valid, channels=self.channels, options=chosen)


class UnreadForecaster(ForecasterRecipe):
    """A run whose latents, and perhaps whose autoencoder, are not there yet."""

    @classmethod
    def plan(cls, run: ForecasterRun, config: Path) -> UnreadForecaster:
        """Makes the recipe of a configuration, with every 6 hours of its training period as latents.

        Raises:
            ConfigError: there is neither the autoencoder nor, beside `config`, the configuration that makes it.
        """
        codec = load_codec(run.autoencoder, "cpu") if run.autoencoder.is_dir() else _codec_to_come(run, config)
        times, network = _times(run.train), codec.autoencoder.config
        shape = (len(times), network.latent_channels, *codec.grid.coarsen(network.downsampling).shape)
        unread = dask.array.zeros(shape, chunks=(1, *shape[1:]), dtype=np.float32)
        latents = xr.Dataset({"latent": (("time", "latent", "y", "x"), unread)}, {"time": times})
        return cls(run, codec, digest(asdict(network)), latents)

    @cached_property
    def changes(self) -> torch.Tensor:
        """Returns ones, as nobody knows yet how much latents change."""
        return torch.ones(self.run.frames.future, self.codec.autoencoder.config.latent_channels, device="cpu")

    def objective(self, device: torch.device) -> Objective:
        """Returns the objective with equal weights."""
        network, config = self.codec.autoencoder.config, self.objective_config
        weight, channels = latent_rows(self.codec.grid, network).to(device), len(self.codec.normalizer.channels)
        fields = None
        if getattr(config, "decoded", 0) > 0:
            ones = torch.ones(self.run.frames.future, channels, self.codec.grid.shape[0], 1, device=device)
            fields = DecodedScore(partial(decode_scaled, self.codec), ones, network.downsampling)
        return find_objective(config.kind)(config, weight, fields)


def _codec_to_come(run: ForecasterRun, config: Path) -> LatentCodec:
    """Returns the codec, with fresh weights, whose configuration lies beside that of the forecaster."""
    for beside in sorted(config.resolve().parent.glob("*.yaml")):
        content = _mapping_in(beside)
        made = beside.parent / str(content.get("output")) / "autoencoder"
        if "statistics" in content and made.resolve() == run.autoencoder.resolve():
            recipe = UnreadAutoencoder.plan(load_config(beside, AutoencoderRun))
            network: Autoencoder = recipe.network()
            return LatentCodec(network, recipe.normalizer, recipe.grid, static=recipe.static).requires_grad_(False)
    raise ConfigError(
        f"Neither the autoencoder {run.autoencoder} is there, nor beside {config} a configuration whose output it is: "
        "what a step takes depends on it."
    )


def _mapping_in(path: Path) -> dict[str, Any]:
    """Returns the mapping that a file holds; nothing where it is another document, or none that can be read."""
    try:
        return read_mapping(path)
    except (OSError, ValueError):
        return {}


def _times(period: Period) -> Times:
    times: Times = np.arange(parse_time(period.start), parse_time(period.end) + STEP, STEP)
    return times


def plan_without_data(
    config: Path, overrides: Sequence[str] = (), kind: str | None = None
) -> tuple[Recipe, list[Path]] | None:
    """Plans a recipe whose data are not all there; returns it and what is missing, or nothing where they are.

    `kind` is a key of `KINDS`; by default the configuration says what it is of.

    Raises:
        ConfigError, FileNotFoundError, ValueError: see `open_recipe`; the configuration is of another kind.
    """
    if (KINDS[kind] if kind else _kind_of(config)) is ForecasterRecipe:
        run = load_config(config, ForecasterRun, overrides)
        missing = [path for path in (run.autoencoder, run.latents, run.initial) if path and not path.exists()]
        return (UnreadForecaster.plan(run, config), missing) if missing else None
    maker = load_config(config, AutoencoderRun, overrides)
    missing = [path for path in (maker.data.path, maker.statistics, maker.initial) if path and not path.exists()]
    return (UnreadAutoencoder.plan(maker), missing) if missing else None


def check_plan(recipe: Recipe, ranks: int, gpu_memory_gib: float | None) -> str:
    """Returns a description of the run on `ranks` ranks; None for the memory stands for CPUs.

    Raises:
        ConfigError: the batch does not divide, memory or the disk is too small, or the output cannot be written.
    """
    options = recipe.run.training
    SampleOrder(recipe.samples, options.batch_size, options.seed)
    find_trackers(recipe.run.trackers)
    with torch.device("meta"):
        network = recipe.network()
    footprint = recipe.count(
        measure,
        network,
        recipe.loss(network, torch.device("cpu")),
        bf16=options.bf16 and gpu_memory_gib is not None,
        recompute=options.recompute,
    )
    text = describe_step(recipe.sample, footprint, options, ranks)
    if gpu_memory_gib is not None:
        _check_memory(footprint, recipe, ranks, gpu_memory_gib)
    _check_output(recipe.run.output, footprint)
    epochs = options.steps * options.batch_size / recipe.samples
    rate = CPU_FLOPS if gpu_memory_gib is None else GPU_FLOPS
    seconds = footprint.flops_per_sample * options.batch_size * options.steps / ranks / rate
    return (
        f"run         {recipe.kind}, {options.steps} steps, {recipe.samples} samples, {epochs:.2f} epochs\n{text}\n"
        f"time        {describe_seconds(seconds)} at {rate / 1e12:g} TFLOP/s a rank, without reading and validation"
    )


def _check_memory(footprint: Footprint, recipe: Recipe, ranks: int, gpu_memory_gib: float) -> None:
    options = recipe.run.training
    shards = ranks if options.sharding == "fsdp" else 1
    micro = options.batch_size // ranks // options.micro_batches(ranks)
    room = USABLE * gpu_memory_gib * GIB - recipe.bytes_on_gpu
    if footprint.device_bytes(micro, shards=shards) <= room:
        return
    fits = int((room - footprint.state_bytes(shards) - footprint.fixed_bytes) // footprint.sample_bytes)
    micro_fits = max((size for size in range(1, micro) if micro % size == 0 and size <= fits), default=0)
    advice = [f"training.micro_batch_size={micro_fits}"] if micro_fits else []
    advice += [] if options.recompute else ["training.recompute=true"]
    advice += [] if options.sharding == "fsdp" or ranks == 1 else ["training.sharding=fsdp"]
    advice += ["data_on_gpu=false"] if recipe.bytes_on_gpu else []
    raise ConfigError(
        f"A rank needs {footprint.device_bytes(micro, shards=shards) / GIB:.1f} GiB, a GPU has room for "
        f"{max(room, 0) / GIB:.1f} GiB beside {recipe.bytes_on_gpu / GIB:.1f} GiB of data. Try "
        f"{' or '.join(advice) or 'a larger GPU or more of them'}."
    )


def _check_output(output: Path, footprint: Footprint) -> None:
    existing = next(folder for folder in (output.absolute(), *output.absolute().parents) if folder.exists())
    if not os.access(existing, os.W_OK):
        raise ConfigError(f"The output {output} cannot be written: no permission in {existing}.")
    needed = COPIES * FLOAT_BYTES * (2 * footprint.parameters + 2 * footprint.trained)
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise ConfigError(
            f"The output {output} needs {needed / GIB:.1f} GiB for snapshots, {existing} has {free / GIB:.1f} GiB free."
        )
