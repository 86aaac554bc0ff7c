"""Checks of a training run before it waits in a queue: its configuration, data, paths and memory."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from ladcast.config import ConfigError
from ladcast.data.batches import SampleOrder
from ladcast.documents import read_mapping
from ladcast.recipes.autoencoder import AutoencoderRecipe
from ladcast.recipes.forecaster import ForecasterRecipe
from ladcast.recipes.recipe import GIB, Recipe, describe_step
from ladcast.training.cost import FLOAT_BYTES, Footprint, measure
from ladcast.training.logs import find_trackers

COPIES = 3
"""Snapshots on disk at the time that the third one is written."""
USABLE = 0.92
"""Share of a GPU's memory that is left beside the workspaces of its libraries."""


def open_recipe(config: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Reads a configuration of either model and opens, but does not read, the data that it names; raises as `open`."""
    content = read_mapping(config) if config.is_file() else {}
    kind: type[Recipe] = ForecasterRecipe if "latents" in content else AutoencoderRecipe
    return kind.of_config(config, overrides)(torch.device("cpu"))


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
    footprint = measure(
        network,
        recipe.loss(network, torch.device("cpu")),
        recipe.sample,
        bf16=options.bf16 and gpu_memory_gib is not None,
        recompute=options.recompute,
    )
    text = describe_step(recipe.sample, footprint, options, ranks)
    if gpu_memory_gib is not None:
        _check_memory(footprint, recipe, ranks, gpu_memory_gib)
    _check_output(recipe.run.output, footprint)
    epochs = options.steps * options.batch_size / recipe.samples
    return f"run         {recipe.kind}, {options.steps} steps, {recipe.samples} samples, {epochs:.2f} epochs\n{text}"


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
