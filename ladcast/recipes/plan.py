"""Checks of a training run before it waits in a queue: its configuration, data, paths and memory."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import xarray as xr
from torch import nn

from ladcast.checkpoint import checkpoint_hash, read_document
from ladcast.config import ConfigError, load_config
from ladcast.data.loading.batches import SampleBatch, SampleOrder
from ladcast.data.normalization import Normalizer
from ladcast.diffusion.denoiser import Denoiser
from ladcast.forecasting.checkpoints import CONFIG, load_codec
from ladcast.grid import Grid
from ladcast.models.autoencoder import Autoencoder
from ladcast.models.transformer import LatentTransformer
from ladcast.recipes.autoencoder import AutoencoderRun, autoencoder_config, reconstruction_loss
from ladcast.recipes.forecaster import (
    ForecasterRun,
    check_latents,
    count_samples,
    forecast_loss,
    token_rows,
    transformer_config,
)
from ladcast.recipes.launch import GIB, describe
from ladcast.recipes.validation import check_validation
from ladcast.training.footprint import FLOAT_BYTES, Footprint, measure
from ladcast.training.options import TrainingOptions
from ladcast.training.parallel import Loss
from ladcast.training.push_forward import DiffusionObjective
from ladcast.training.trackers import find_trackers

COPIES = 3
"""Snapshots on disk at the time that the third one is written."""
USABLE = 0.92
"""Share of a GPU's memory that is left beside the workspaces of its libraries."""


@dataclass(frozen=True)
class Sketch:
    """Is a training run without its data and weights: a model on the device "meta", its loss, and a sample's shape."""

    kind: str
    run: Any
    model: nn.Module
    loss: Loss
    sample: SampleBatch
    samples: int
    data_bytes: int = 0
    """Of the training data, where they are kept in GPU memory."""

    @property
    def options(self) -> TrainingOptions:
        """Returns the options of the run."""
        options: TrainingOptions = self.run.training
        return options


def sketch_run(config: Path, overrides: Sequence[str] = ()) -> Sketch:
    """Reads a configuration of either model and opens, but does not read, the data that it names.

    Raises:
        ConfigError, FileNotFoundError, ValueError: something that the run needs is missing or does not fit.
    """
    import yaml

    content = yaml.safe_load(config.read_text()) if config.is_file() else {}
    if isinstance(content, dict) and "latents" in content:
        return _sketch_forecaster(load_config(config, ForecasterRun, overrides))
    return _sketch_autoencoder(load_config(config, AutoencoderRun, overrides))


def check_plan(sketch: Sketch, ranks: int, gpu_memory_gib: float | None) -> str:
    """Returns a description of the run on `ranks` ranks; None for the memory stands for CPUs.

    Raises:
        ConfigError: the batch does not divide, memory or the disk is too small, or the output cannot be written.
    """
    options = sketch.options
    SampleOrder(sketch.samples, options.batch_size, options.seed)
    find_trackers(sketch.run.trackers)
    footprint = measure(
        sketch.model,
        sketch.loss,
        sketch.sample,
        bf16=options.bf16 and gpu_memory_gib is not None,
        recompute=options.recompute,
    )
    text = describe(sketch.sample, footprint, options, ranks)
    if gpu_memory_gib is not None:
        _check_memory(footprint, sketch, ranks, gpu_memory_gib)
    _check_output(sketch.run.output, footprint)
    epochs = options.steps * options.batch_size / sketch.samples
    return f"run         {sketch.kind}, {options.steps} steps, {sketch.samples} samples, {epochs:.2f} epochs\n{text}"


def _sketch_autoencoder(run: AutoencoderRun) -> Sketch:
    channels, grid = run.data.channel_set(), Grid.parse(run.data.grid)
    store = run.data.open()
    Normalizer.load(run.statistics, channels)
    run.validation.select(store)
    samples = len(range(0, run.train.select(store).sizes["time"], run.stride))
    if run.initial is not None:
        load_codec(run.initial, "cpu")
    with torch.device("meta"):
        model = Autoencoder(autoencoder_config(run.model, channels, grid, len(run.data.static)))
    if run.part == "decoder":
        model.encoder.requires_grad_(False)
    static, valid = torch.zeros(len(run.data.static), *grid.shape), torch.ones(len(channels), *grid.shape) > 0
    sample = (torch.empty(1, len(channels), *grid.shape, device="meta"),)
    held = 2 * samples * len(channels) * grid.shape[0] * grid.shape[1] if run.data_on_gpu else 0
    return Sketch("autoencoder", run, model, reconstruction_loss(static, grid, valid), sample, samples, held)


def _sketch_forecaster(run: ForecasterRun) -> Sketch:
    codec = load_codec(run.autoencoder, "cpu")
    store = xr.open_zarr(run.latents, chunks=None)
    check_latents(run, store, checkpoint_hash(run.autoencoder))
    period = run.train.select(store)
    samples = count_samples(run, period)
    if run.validation is not None:
        check_validation(run.validation, codec.normalizer.channels)
    if run.initial is not None:
        read_document(run.initial, CONFIG)
    autoencoder = codec.autoencoder.config
    with torch.device("meta"):
        model = Denoiser(LatentTransformer(transformer_config(run, autoencoder, codec.grid)))
        frame = (autoencoder.latent_channels, run.frames.future * run.push_forward.blocks)
        sides = codec.grid.coarsen(autoencoder.downsampling).shape
        past = torch.empty(1, frame[0], run.frames.past, *sides)
        sample = (past, torch.empty(1, *frame, *sides), torch.empty(1, dtype=torch.int64))
    objective = DiffusionObjective(run.noise, token_rows(codec.grid, autoencoder), run.push_forward)
    held = FLOAT_BYTES * period["latent"].size if run.data_on_gpu else 0
    return Sketch("forecaster", run, model, forecast_loss(objective), sample, samples, held)


def _check_memory(footprint: Footprint, sketch: Sketch, ranks: int, gpu_memory_gib: float) -> None:
    options = sketch.options
    shards = ranks if options.sharding == "fsdp" else 1
    micro = options.batch_size // ranks // options.micro_batches(ranks)
    room = USABLE * gpu_memory_gib * GIB - sketch.data_bytes
    if footprint.device_bytes(micro, shards=shards) <= room:
        return
    fits = int((room - footprint.state_bytes(shards) - footprint.fixed_bytes) // footprint.sample_bytes)
    micro_fits = max((size for size in range(1, micro) if micro % size == 0 and size <= fits), default=0)
    advice = [f"training.micro_batch_size={micro_fits}"] if micro_fits else []
    advice += [] if options.recompute else ["training.recompute=true"]
    advice += [] if options.sharding == "fsdp" or ranks == 1 else ["training.sharding=fsdp"]
    advice += ["data_on_gpu=false"] if sketch.data_bytes else []
    raise ConfigError(
        f"A rank needs {footprint.device_bytes(micro, shards=shards) / GIB:.1f} GiB, a GPU has room for "
        f"{max(room, 0) / GIB:.1f} GiB beside {sketch.data_bytes / GIB:.1f} GiB of data. Try "
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
