"""The public layout of released networks: what its config.json calls our settings, and its safetensors our weights.

The layout is that of Hugging Face diffusers. A network names its own layout (see `ladcast.models.pretrained`), so
nothing here knows a network. Released weights fix a few behaviours that new networks do better: settings of ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ladcast.nn.position import GeoRotary

PublicConfig = Mapping[str, Any]

StateDict = dict[str, Tensor]


@dataclass(frozen=True)
class PublicLayout:
    """Describes how a kind of network is written in the public layout.

    Attributes:
        fields: settings that differ only in their name: public name -> ours.
        required: public names of the other settings that have to be there.
        read: converts the settings in `required` to ours.
        write: writes the settings that are not in `fields`, and those that are always the same.
        behaviour: what the released weights need and new networks do otherwise.
        names: patterns on the names of our modules, and what the public layout calls them, applied in this order;
            "{qkv}" stands for the three public modules that one of ours fuses.
    """

    fields: Mapping[str, str]
    required: frozenset[str]
    read: Callable[[PublicConfig], dict[str, Any]]
    write: Callable[[Any], dict[str, Any]]
    behaviour: Mapping[str, Any]
    names: tuple[tuple[str, str], ...]

    def describes(self, public: PublicConfig) -> bool:
        """Says whether a public configuration is one of this kind of network."""
        return not self._missing(public)

    def settings(self, public: PublicConfig) -> dict[str, Any]:
        """Returns our settings; raises ValueError where the public ones do not describe this kind of network."""
        if missing := self._missing(public):
            raise ValueError(f"config.json lacks {missing}; it does not describe this kind of network.")
        same = {ours: _frozen(public[theirs]) for theirs, ours in self.fields.items()}
        return {**same, **self.read(public), **self.behaviour}

    def public(self, config: Any) -> dict[str, Any]:
        """Returns the public settings of a configuration that `can_express`."""
        return {**{theirs: getattr(config, ours) for theirs, ours in self.fields.items()}, **self.write(config)}

    def can_express(self, config: Any) -> bool:
        """Says whether the public layout, which implies `behaviour`, can express that of a network."""
        return all(getattr(config, name) == value for name, value in self.behaviour.items())

    def check_understood(self, public: PublicConfig, config: Any) -> None:
        """Raises ValueError unless `config` holds everything that the public configuration says."""
        understood = self.public(config)
        said = {key: _frozen(value) for key, value in public.items() if not key.startswith("_")}
        for key in sorted(said.keys() | understood.keys()):
            if key not in said or key not in understood or said[key] != understood[key]:
                raise ValueError(
                    f"config.json: expected '{key}' to be {understood.get(key, 'absent')}, "
                    f"got {said.get(key, 'absent')}. This network has no such variant."
                )

    def from_public(self, state: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], config: Any) -> StateDict:
        """Converts public tensors to a state dict with these shapes.

        Raises:
            ValueError: a key is missing or unknown, or a shape differs from what `config` implies.
        """
        entries = self._entries(shapes, config)
        expected = {name: shape for entry in entries.values() for name, shape in entry.items()}
        missing, unknown = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
        if missing or unknown:
            raise ValueError(
                f"{len(missing)} keys are missing (first {missing[:3]}), "
                f"{len(unknown)} are unknown (first {unknown[:3]}). Check that both come from the same folder."
            )
        wrong = [
            f"{name}: expected {shape}, got {tuple(state[name].shape)}"
            for name, shape in expected.items()
            if shape != tuple(state[name].shape)
        ]
        if wrong:
            raise ValueError(f"{len(wrong)} shapes are others, first {'; '.join(wrong[:3])}.")
        return {
            key: torch.cat([state[name].flatten() for name in entry]).reshape(shapes[key])
            for key, entry in entries.items()
        }

    def to_public(self, state: Mapping[str, Tensor], config: Any) -> StateDict:
        """Converts a state dict to public tensors: the exact inverse of `from_public`."""
        entries = self._entries({key: tuple(tensor.shape) for key, tensor in state.items()}, config)
        return {
            name: part.reshape(shape).contiguous().clone()
            for key, entry in entries.items()
            for part, (name, shape) in zip(state[key].chunk(len(entry)), entry.items(), strict=True)
        }

    def _missing(self, public: PublicConfig) -> list[str]:
        return sorted((self.fields.keys() | self.required) - public.keys())

    def _entries(self, shapes: Mapping[str, tuple[int, ...]], config: Any) -> dict[str, dict[str, tuple[int, ...]]]:
        """Maps each of our keys to its public keys and their shapes: three for a fused projection, else one."""
        entries = {}
        for key, shape in shapes.items():
            module, _, leaf = key.rpartition(".")
            for pattern, replacement in self.names:
                module = re.sub(pattern, replacement, module)
            names = [f"{module.replace('{qkv}', part)}.{leaf}" for part in ("qkv" if "{qkv}" in module else "-")]
            entries[key] = {name: _public_shape(name, (shape[0] // len(names), *shape[1:]), config) for name in names}
        return entries


def _public_shape(name: str, shape: tuple[int, ...], config: Any) -> tuple[int, ...]:
    """Public patch embeddings are 3-D convolutions, and public attention projections are linear maps."""
    if re.search(r"_embedder\.proj\.weight$", name):
        return (shape[0], config.latent_channels, 1, config.patch_size, config.patch_size)
    return shape[:2] if re.search(r"attn\.to_(q|k|v|out)\.weight$", name) else shape


def _frozen(value: Any) -> Any:
    """Turns the lists of JSON into tuples."""
    return tuple(_frozen(item) for item in value) if isinstance(value, list | tuple) else value


def _read_transformer(public: PublicConfig) -> dict[str, Any]:
    start, end = public["rope_spatial_grid_start_pos"], public["rope_spatial_grid_end_pos"]
    factor = GeoRotary.LATITUDE_FACTOR
    return {"latitude_deg": (start[0] / factor, end[0] / factor), "longitude_deg": (start[1], end[1])}


def _write_transformer(config: Any) -> dict[str, Any]:
    (south, north), (west, east) = config.latitude_deg, config.longitude_deg
    return {
        "out_channels": config.latent_channels,
        "patch_size_t": 1,
        "qk_norm": "rms_norm",
        "rope_spatial_grid_start_pos": (south * GeoRotary.LATITUDE_FACTOR, west),
        "rope_spatial_grid_end_pos": (north * GeoRotary.LATITUDE_FACTOR, east),
        "spatial_deg2rad": True,
        "conditioning_tensor_in_channels": config.latent_channels,
        "conditioning_tensor_rope_axes_dim": config.rope_axes_dim,
        "incl_time_elapsed": True,
    }


BLOCK_KINDS = {"ResBlock": "residual", "EfficientViTBlock": "efficientvit"}
ENCODER_FIELDS = {
    "encoder_block_out_channels": "widths",
    "encoder_layers_per_block": "blocks",
    "encoder_qkv_multiscales": "kernels",
}


def _read_autoencoder(public: PublicConfig) -> dict[str, Any]:
    unknown = sorted(set(public["encoder_block_types"]) - set(BLOCK_KINDS))
    if unknown:
        raise ValueError(f"Expected encoder_block_types out of {sorted(BLOCK_KINDS)} in config.json, got {unknown}.")
    return {
        "channels": public["in_channels"] - public["static_channels"],
        "kinds": tuple(BLOCK_KINDS[name] for name in public["encoder_block_types"]),
    }


def _write_autoencoder(config: Any) -> dict[str, Any]:
    public_kinds = {ours: theirs for theirs, ours in BLOCK_KINDS.items()}
    encoder = {theirs: getattr(config, ours) for theirs, ours in ENCODER_FIELDS.items()}
    encoder["encoder_block_types"] = tuple(public_kinds[kind] for kind in config.kinds)
    return {
        **encoder,
        **{name.replace("encoder_", "decoder_"): value for name, value in encoder.items()},
        "in_channels": config.channels + config.static_channels,
        "out_channels": config.decoded_channels,
        "upsample_block_type": "pixel_shuffle",
        "downsample_block_type": "pixel_unshuffle",
    }


TRANSFORMER = PublicLayout(
    fields={
        "in_channels": "latent_channels",
        "num_attention_heads": "heads",
        "attention_head_dim": "head_dim",
        "num_layers": "dual_blocks",
        "num_single_layers": "single_blocks",
        "num_refiner_layers": "refiner_blocks",
        "mlp_ratio": "mlp_ratio",
        "patch_size": "patch_size",
        "rope_theta": "rope_theta",
        "rope_axes_dim": "rope_axes_dim",
    },
    required=frozenset({"rope_spatial_grid_start_pos", "rope_spatial_grid_end_pos"}),
    read=_read_transformer,
    write=_write_transformer,
    behaviour={
        "position": "geo",
        "rotate_past_in_dual": False,
        "time_of_day": False,
        "area_weighted": False,
        "frames_per_token": 1,
        "past_beside": False,
        "places": None,
    },
    names=(
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
    ),
)
AUTOENCODER = PublicLayout(
    fields={
        "static_channels": "static_channels",
        "latent_channels": "latent_channels",
        "attention_head_dim": "head_dim",
        **ENCODER_FIELDS,
    },
    required=frozenset({"in_channels", "encoder_block_types"}),
    read=_read_autoencoder,
    write=_write_autoencoder,
    behaviour={
        "pole_kernel": "mirrored_outermost",
        "pole_rows": (False, False),
        "reconstruct_static": True,
        "mean_state": None,
    },
    names=(
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
    ),
)
