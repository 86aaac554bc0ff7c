"""Released weights: reads and writes the public layout (config.json and safetensors) of both networks.

The layout is that of Hugging Face diffusers. Importing and exporting leaves every number as it is.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ladcast.files import whole_folder
from ladcast.models.autoencoder import Autoencoder, AutoencoderConfig
from ladcast.models.pretrained import Pretrained
from ladcast.models.published_config import (
    PublicConfig,
    autoencoder_config,
    published_config,
    transformer_config,
)
from ladcast.models.transformer import LatentTransformer, TransformerConfig

Config = AutoencoderConfig | TransformerConfig
State = dict[str, Tensor]
Network = TypeVar("Network", bound=Pretrained)

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"
INDEX_FILE = "diffusion_pytorch_model.safetensors.index.json"

# Patterns on our module names and what the public layout calls them, applied in this order; "{qkv}" stands
# for the three public modules that one of ours fuses.
TRANSFORMER_NAMES = (
    (r"^future_in", "x_embedder.proj"),
    (r"^past_in", "context_embedder.proj"),
    (r"^out$", "proj_out"),
    (r"^modulation\.", "norm_out."),
    (r"^season\.", "time_elapsed_embed."),
    (r"(^|\.)condition\.", r"\1time_text_embed."),
    (r"time_text_embed\.noise", "time_text_embed.timestep_embedder"),
    (r"time_text_embed\.summary", "time_text_embed.text_embedder"),
    (r"^refiner\.blocks", "context_refiner.token_refiner.refiner_blocks"),
    (r"^refiner\.", "context_refiner."),
    (r"^(dual|single)_blocks", r"\1_transformer_blocks"),
    (r"^dual_", ""),
    (r"\.future\.mlp", ".ff"),
    (r"\.past\.mlp", ".ff_context"),
    (r"(refiner_blocks\.\d+)\.mlp", r"\1.ff"),
    (r"(\.ff(?:_context)?)\.inner", r"\1.net.0.proj"),
    (r"(\.ff(?:_context)?)\.outer", r"\1.net.2"),
    (r"\.inner$", ".linear_1"),
    (r"\.outer$", ".linear_2"),
    (r"\.future\.modulation", ".norm1"),
    (r"\.past\.modulation", ".norm1_context"),
    (r"(single_transformer_blocks\.\d+)\.modulation", r"\1.norm"),
    (r"\.gates", ".norm_out"),
    (r"\.norm_attention", ".norm1"),
    (r"\.norm_mlp", ".norm2"),
    (r"\.past\.qkv\.to_qkv", ".attn.add_{qkv}_proj"),
    (r"\.past\.qkv\.norm_([qk])", r".attn.norm_added_\1"),
    (r"(?:\.future)?\.qkv\.to_qkv", ".attn.to_{qkv}"),
    (r"(?:\.future)?\.qkv\.", ".attn."),
    (r"\.future\.to_out", ".attn.to_out.0"),
    (r"\.past\.to_out", ".attn.to_add_out"),
    (r"(single_transformer_blocks\.\d+)\.mlp_in", r"\1.proj_mlp"),
    (r"(single_transformer_blocks\.\d+)\.to_out", r"\1.proj_out"),
)
AUTOENCODER_NAMES = (
    (r"^(encoder|decoder)\.stem", r"\1.conv_in"),
    (r"^(encoder|decoder)\.head", r"\1.conv_out"),
    (r"^decoder\.norm", "decoder.norm_out"),
    (r"(body\.\d+)\.conv_in", r"\1.conv1"),
    (r"(body\.\d+)\.conv_out", r"\1.conv2"),
    (r"\.mlp\.expand", ".conv_out.conv_inverted"),
    (r"\.mlp\.depthwise", ".conv_out.conv_depth"),
    (r"\.mlp\.project", ".conv_out.conv_point"),
    (r"\.mlp\.norm", ".conv_out.norm"),
    (r"\.attention\.to_qkv", ".attn.to_{qkv}"),
    (r"\.attention\.to_out", ".attn.to_out"),
    (r"\.attention_norm", ".attn.norm_out"),
    (r"\.attention\.scales\.(\d+)\.0", r".attn.to_qkv_multiscale.\1.proj_in"),
    (r"\.attention\.scales\.(\d+)\.1", r".attn.to_qkv_multiscale.\1.proj_out"),
    (r"^encoder\.body", "encoder.down_blocks"),
    (r"^decoder\.body", "decoder.up_blocks"),
)


def load_transformer(folder: Path) -> LatentTransformer:
    """Loads a released latent transformer, on the CPU and in the precision of its file.

    Raises:
        FileNotFoundError: config.json, the weights or one of their shards is missing.
        ValueError: the files are damaged, not safetensors, or do not fit each other or this network.
    """
    return load_published(LatentTransformer, folder)


def load_autoencoder(folder: Path) -> Autoencoder:
    """Loads a released autoencoder, on the CPU and in the precision of its file; errors as above."""
    return load_published(Autoencoder, folder)


def load_published(kind: type[Network], folder: Path) -> Network:
    """Loads a released network of this kind; errors as `load_transformer`."""
    published = read_json(folder / CONFIG_FILE)
    config = autoencoder_config(published) if kind is Autoencoder else transformer_config(published)
    with torch.device("meta"):
        network = kind(config)
    network.load_state_dict(from_published(read_weights(folder), config), assign=True)
    return network


def describe_config(path: Path) -> tuple[str, int]:
    """Returns which kind of network a public config.json describes, and how many parameters it has."""
    published = read_json(path)
    is_autoencoder = "encoder_block_types" in published
    config = autoencoder_config(published) if is_autoencoder else transformer_config(published)
    kind = "autoencoder" if is_autoencoder else "transformer"
    return kind, sum(math.prod(shape) for shape in _shapes(config).values())


def export(network: Pretrained, folder: Path) -> None:
    """Writes config.json and weights in the public layout; ValueError for what it cannot express."""
    write_folder(folder, published_config(network.config), to_published(network.state_dict(), network.config))


export_transformer = export_autoencoder = export


def write_folder(folder: Path, config: PublicConfig, state: Mapping[str, Tensor]) -> None:
    """Writes config.json and weights, replacing an older folder only when the new one is complete."""
    with whole_folder(folder) as temporary:
        save_file(dict(state), temporary / WEIGHTS_FILE, metadata={"format": "pt"})
        (temporary / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object; raises FileNotFoundError or ValueError where there is none."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; expected a folder with {CONFIG_FILE} and {WEIGHTS_FILE}.")
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is damaged, it is not JSON: {error}. Fetch it again.") from error
    if not isinstance(content, dict):
        raise ValueError(f"Expected {path} to hold a JSON object, got {type(content).__name__}. Fetch it again.")
    return content


def read_weights(folder: Path) -> State:
    """Reads the tensors of a folder from one file, or from the shards that its index lists."""
    index = folder / INDEX_FILE
    if (folder / WEIGHTS_FILE).is_file() or not index.is_file():
        return _read_shard(folder / WEIGHTS_FILE)
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict):
        raise ValueError(f"{index} has no 'weight_map' that says which shard holds which tensor. Fetch it again.")
    state: State = {}
    for shard in sorted(set(weight_map.values())):
        state |= _read_shard(folder / Path(shard).name)
    lost = sorted(set(weight_map) - set(state))
    if lost:
        raise ValueError(
            f"The shards in {folder} lack {len(lost)} tensors of their index, first {lost[:3]}. Fetch them again."
        )
    return state


def _read_shard(path: Path) -> State:
    if not path.is_file():
        pickles = sorted(file.name for file in path.parent.glob("*.bin"))
        hint = (
            f"The folder has {pickles}, pickles that can run code on loading; convert them to safetensors."
            if pickles
            else "Fetch it again."
        )
        raise FileNotFoundError(f"{path} is missing. {hint}")
    try:
        return dict(load_file(path))
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or not a safetensors file: {error}. Fetch it again.") from error


def published_names(ours: str) -> tuple[str, ...]:
    """Returns the public keys that one of our keys holds: three for a fused projection, else one."""
    module, _, leaf = ours.rpartition(".")
    rules = AUTOENCODER_NAMES if module.startswith(("encoder.", "decoder.")) else TRANSFORMER_NAMES
    for pattern, replacement in rules:
        module = re.sub(pattern, replacement, module)
    parts = "qkv" if "{qkv}" in module else "-"
    return tuple(f"{module.replace('{qkv}', part)}.{leaf}" for part in parts)


def from_published(state: Mapping[str, Tensor], config: Config) -> State:
    """Converts public tensors to the state dict of the network that `config` describes.

    Raises:
        ValueError: a key is missing or unknown, or a shape differs from what `config` implies.
    """
    layout = _layout(config)
    expected = {name: shape for entry in layout.values() for name, shape in entry.items()}
    _check_keys(set(expected), set(state))
    wrong = [
        f"{name}: expected {shape}, got {tuple(state[name].shape)}"
        for name, shape in expected.items()
        if shape != tuple(state[name].shape)
    ]
    if wrong:
        raise ValueError(f"Weights do not fit config.json in {len(wrong)} shapes, first {'; '.join(wrong[:3])}.")
    ours = _shapes(config)
    return {
        key: torch.cat([state[name].flatten() for name in entry]).reshape(ours[key]) for key, entry in layout.items()
    }


def to_published(state: Mapping[str, Tensor], config: Config) -> State:
    """Converts a state dict to public tensors: the exact inverse of `from_published`."""
    layout = _layout(config)
    _check_keys(set(layout), set(state))
    return {
        name: part.reshape(shape).contiguous().clone()
        for key, entry in layout.items()
        for part, (name, shape) in zip(state[key].chunk(len(entry)), entry.items(), strict=True)
    }


def _layout(config: Config) -> dict[str, dict[str, tuple[int, ...]]]:
    """Maps each of our keys to its public keys and their shapes."""
    layout = {}
    for key, shape in _shapes(config).items():
        names = published_names(key)
        layout[key] = {name: _published_shape(name, (shape[0] // len(names), *shape[1:]), config) for name in names}
    return layout


def _published_shape(name: str, shape: tuple[int, ...], config: Config) -> tuple[int, ...]:
    """Public patch embeddings are 3-D convolutions and public attention projections are linear maps."""
    if re.search(r"_embedder\.proj\.weight$", name) and isinstance(config, TransformerConfig):
        return (shape[0], config.latent_channels, 1, config.patch_size, config.patch_size)
    if re.search(r"attn\.to_(q|k|v|out)\.weight$", name):
        return shape[:2]
    return shape


def _shapes(config: Config) -> dict[str, tuple[int, ...]]:
    return {key: tuple(tensor.shape) for key, tensor in _on_meta(config).state_dict().items()}


def _on_meta(config: Config) -> Autoencoder | LatentTransformer:
    """Builds the network without memory for its weights."""
    with torch.device("meta"):
        return Autoencoder(config) if isinstance(config, AutoencoderConfig) else LatentTransformer(config)


def _check_keys(expected: set[str], got: set[str]) -> None:
    missing, unknown = sorted(expected - got), sorted(got - expected)
    if missing or unknown:
        raise ValueError(
            f"Weights do not fit config.json: {len(missing)} keys are missing (first {missing[:3]}), "
            f"{len(unknown)} are unknown (first {unknown[:3]}). Check that both come from the same folder."
        )
