"""Checkpoint folders of a codec (an autoencoder with all it needs) and of a forecaster (a codec and a stepper)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ladcast.checkpoint import MANIFEST, WEIGHTS, checkpoint_name, read_document, read_tensors, write_checkpoint
from ladcast.data.normalization import Normalizer
from ladcast.device import find_device
from ladcast.documents import describing
from ladcast.fields import ChannelSet
from ladcast.forecasting.codec import LatentCodec, LatentScale
from ladcast.forecasting.forecaster import Forecaster, ForecasterConfig, find_stepper
from ladcast.forecasting.stepper import Stepper
from ladcast.grid import Grid
from ladcast.models.autoencoder import Autoencoder, AutoencoderConfig

CONFIG, CHANNELS, GRID, SCALES = "config.yaml", "channels.yaml", "grid.yaml", "normalizer.json"
STEPPER, STEPPER_BEFORE_KINDS = "stepper", "denoiser"
"""How the names of a stepper's weights begin, now and in folders from before there were kinds of steppers."""


def save_codec(codec: LatentCodec, folder: Path, manifest: Mapping[str, Any]) -> None:
    """Writes an autoencoder with its channels, grid, normalisation and static fields, in float32."""
    config = {"autoencoder": plain(asdict(codec.autoencoder.config))}
    write_checkpoint(folder, _codec_tensors(codec), {**_codec_documents(codec, manifest), CONFIG: config})


def save_forecaster(
    forecaster: Forecaster, folder: Path, manifest: Mapping[str, Any], *, dtype: torch.dtype | None = torch.bfloat16
) -> None:
    """Writes both networks and all they need; the stepper's in `dtype`, or with None in the precision it has.

    The autoencoder stays float32, in which latents were made: bfloat16 weights would change them (docs/decisions/006).
    """
    stepper = _prefixed(STEPPER, forecaster.stepper.network)
    if dtype is not None:
        stepper = {name: tensor.to(dtype) for name, tensor in stepper.items()}
    tensors = {**_codec_tensors(forecaster.codec), **stepper}
    documents = {**_codec_documents(forecaster.codec, manifest), CONFIG: plain(asdict(forecaster.config))}
    write_checkpoint(folder, tensors, documents)


def load_codec(folder: Path | str, device: str | None = None) -> LatentCodec:
    """Reads the codec of an autoencoder's or a forecaster's folder onto `device` (a GPU where there is one).

    Raises:
        FileNotFoundError: the folder is not a checkpoint.
        ValueError: a file is damaged or does not fit the configuration.
    """
    folder = Path(folder)
    return _codec(folder, read_tensors(folder)).to(find_device(device)).eval()


def load_forecaster(folder: Path | str, device: str | None = None) -> Forecaster:
    """Reads a forecaster's folder onto `device` (a GPU where there is one); raises as `load_codec` does."""
    folder = Path(folder)
    tensors = read_tensors(folder)
    config = read_config(folder)
    with describing("a forecaster", folder / CONFIG), torch.device("meta"):  # no memory for weights that are replaced
        stepper: Stepper = find_stepper(config.stepper.kind).build(config.stepper)
    _load(stepper.network, _part(STEPPER, tensors) or _part(STEPPER_BEFORE_KINDS, tensors), folder)
    target = find_device(device)
    stepper.network.to(target).eval()
    return Forecaster(_codec(folder, tensors).to(target).eval(), stepper, checkpoint_name(folder))


def read_config(folder: Path) -> ForecasterConfig:
    """Reads what describes the networks of a forecaster's folder, without their weights.

    Raises:
        FileNotFoundError: the folder is not a checkpoint.
        ValueError: it does not describe a forecaster.
    """
    content = read_document(folder, CONFIG)
    with describing("a forecaster", folder / CONFIG):
        return ForecasterConfig.from_dict(content)


def read_description(folder: Path) -> tuple[ForecasterConfig, ChannelSet, Grid]:
    """Reads what a forecaster's folder describes, without its weights; raises as `read_config` does."""
    return read_config(folder), _read_channels(folder), _read_grid(folder)


def plain(value: Any) -> Any:
    """Turns tuples into lists throughout, as YAML holds them."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, tuple | list) else value


def _codec(folder: Path, tensors: Mapping[str, Tensor]) -> LatentCodec:
    from pydantic import TypeAdapter

    content = read_document(folder, CONFIG)
    with describing("an autoencoder", folder / CONFIG), torch.device("meta"):
        autoencoder = Autoencoder(TypeAdapter(AutoencoderConfig).validate_python(content["autoencoder"]))
    _load(autoencoder, _part("autoencoder", tensors), folder)
    channels, grid, scales = _read_channels(folder), _read_grid(folder), read_document(folder, SCALES)
    with describing("the normalisation of states and latents", folder / SCALES):
        normalizer = Normalizer.from_dict(scales["state"], channels)
        latent_scale = LatentScale.from_dict(scales["latent"])
    with describing("a codec, which has static fields", folder / WEIGHTS):
        return LatentCodec(autoencoder, normalizer, grid, static=tensors["static"], latent_scale=latent_scale)


def _read_channels(folder: Path) -> ChannelSet:
    content = read_document(folder, CHANNELS)
    with describing("a channel set", folder / CHANNELS):
        return ChannelSet.from_dict(content)


def _read_grid(folder: Path) -> Grid:
    content = read_document(folder, GRID)
    with describing("a grid", folder / GRID):
        return Grid.from_dict(content)


def _codec_tensors(codec: LatentCodec) -> dict[str, Tensor]:
    return {**_shortest(_prefixed("autoencoder", codec.autoencoder)), "static": codec.static}


def _shortest(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns tensors in half precision where that holds every number of them exactly."""
    halves = {name: tensor.half() for name, tensor in tensors.items()}
    exact = all(torch.equal(halves[name].to(tensor.dtype), tensor) for name, tensor in tensors.items())
    return halves if exact else tensors


def _codec_documents(codec: LatentCodec, manifest: Mapping[str, Any]) -> dict[str, Any]:
    return {
        CHANNELS: codec.normalizer.channels.to_dict(),
        GRID: codec.grid.to_dict(),
        SCALES: {"state": codec.normalizer.to_dict(), "latent": codec.latent_scale.to_dict()},
        MANIFEST: dict(manifest),
    }


def _load(network: nn.Module, tensors: Mapping[str, Tensor], folder: Path) -> None:
    try:
        network.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, assign=True)
    except RuntimeError as error:
        raise ValueError(f"The weights in {folder} do not fit its {CONFIG}: {error}") from error


def _prefixed(part: str, network: nn.Module) -> dict[str, Tensor]:
    return {f"{part}/{name}": tensor for name, tensor in network.state_dict().items()}


def _part(part: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    prefix = f"{part}/"
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
