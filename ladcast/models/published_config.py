"""Configurations of released weights: config.json of the public layout <-> our configurations.

Released weights fix a few behaviours that new networks do better; they are named in our configurations and
set here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ladcast.models.autoencoder import AutoencoderConfig, BlockKind
from ladcast.models.transformer import TransformerConfig
from ladcast.nn.position import GeoRotary

PublicConfig = Mapping[str, Any]

# What the released weights need and new networks do otherwise.
TRANSFORMER_BEHAVIOUR: dict[str, Any] = {
    "position": "geo",
    "rotate_past_in_dual": False,
    "time_of_day": False,
}
AUTOENCODER_BEHAVIOUR: dict[str, Any] = {
    "pole_kernel": "mirrored_outermost",
    "pole_rows": (False, False),
    "reconstruct_static": True,
}

# Settings that only differ in name: public name -> ours.
TRANSFORMER_FIELDS = {
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
}
AUTOENCODER_FIELDS = {
    "static_channels": "static_channels",
    "latent_channels": "latent_channels",
    "attention_head_dim": "head_dim",
    "encoder_block_out_channels": "widths",
    "encoder_layers_per_block": "blocks",
    "encoder_qkv_multiscales": "kernels",
}
BLOCK_KINDS: dict[str, BlockKind] = {"ResBlock": "residual", "EfficientViTBlock": "efficientvit"}


def transformer_config(published: PublicConfig) -> TransformerConfig:
    """Converts a public configuration; raises ValueError for a setting that this network does not have."""
    _check_complete(published, {*TRANSFORMER_FIELDS, "rope_spatial_grid_start_pos", "rope_spatial_grid_end_pos"})
    start, end = published["rope_spatial_grid_start_pos"], published["rope_spatial_grid_end_pos"]
    config = TransformerConfig(
        latitude_deg=(start[0] / GeoRotary.LATITUDE_FACTOR, end[0] / GeoRotary.LATITUDE_FACTOR),
        longitude_deg=(start[1], end[1]),
        **{ours: _frozen(published[theirs]) for theirs, ours in TRANSFORMER_FIELDS.items()},
        **TRANSFORMER_BEHAVIOUR,
    )
    _check_same(published, published_transformer_config(config))
    return config


def published_transformer_config(config: TransformerConfig) -> PublicConfig:
    """Converts our configuration to the public one; raises ValueError for what it cannot express."""
    _check_behaviour(config)
    (south, north), (west, east) = config.latitude_deg, config.longitude_deg
    return {
        **{theirs: getattr(config, ours) for theirs, ours in TRANSFORMER_FIELDS.items()},
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


def autoencoder_config(published: PublicConfig) -> AutoencoderConfig:
    """Converts a public configuration; raises ValueError for a setting that this network does not have."""
    _check_complete(published, {*AUTOENCODER_FIELDS, "in_channels", "encoder_block_types"})
    unknown = sorted(set(published["encoder_block_types"]) - set(BLOCK_KINDS))
    if unknown:
        raise ValueError(f"Expected encoder_block_types out of {sorted(BLOCK_KINDS)} in config.json, got {unknown}.")
    config = AutoencoderConfig(
        channels=published["in_channels"] - published["static_channels"],
        kinds=tuple(BLOCK_KINDS[name] for name in published["encoder_block_types"]),
        **{ours: _frozen(published[theirs]) for theirs, ours in AUTOENCODER_FIELDS.items()},
        **AUTOENCODER_BEHAVIOUR,
    )
    _check_same(published, published_autoencoder_config(config))
    return config


def published_autoencoder_config(config: AutoencoderConfig) -> PublicConfig:
    """Converts our configuration to the public one; raises ValueError for what it cannot express."""
    _check_behaviour(config)
    public_kinds = {ours: theirs for theirs, ours in BLOCK_KINDS.items()}
    own = {theirs: getattr(config, ours) for theirs, ours in AUTOENCODER_FIELDS.items()}
    own["encoder_block_types"] = tuple(public_kinds[kind] for kind in config.kinds)
    mirrored = {key.replace("encoder_", "decoder_"): value for key, value in own.items() if key.startswith("encoder_")}
    return (
        own
        | mirrored
        | {
            "in_channels": config.channels + config.static_channels,
            "out_channels": config.decoded_channels,
            "upsample_block_type": "pixel_shuffle",
            "downsample_block_type": "pixel_unshuffle",
        }
    )


def published_config(config: AutoencoderConfig | TransformerConfig) -> PublicConfig:
    """Converts the configuration of either network to the public one; ValueError for what it cannot express."""
    if isinstance(config, AutoencoderConfig):
        return published_autoencoder_config(config)
    return published_transformer_config(config)


def is_expressible(config: AutoencoderConfig | TransformerConfig) -> bool:
    """Says whether the public layout can express the behaviour of a network."""
    return not _other_behaviour(config)


def _frozen(value: Any) -> Any:
    """Turns the lists of JSON into tuples."""
    return tuple(_frozen(item) for item in value) if isinstance(value, list | tuple) else value


def _check_complete(published: PublicConfig, keys: set[str]) -> None:
    missing = sorted(keys - set(published))
    if missing:
        raise ValueError(f"config.json lacks {missing}; it does not describe this kind of network.")


def _check_same(published: PublicConfig, understood: PublicConfig) -> None:
    """Raises ValueError unless everything that the public configuration says has been understood."""
    said = {key: _frozen(value) for key, value in published.items() if not key.startswith("_")}
    for key in sorted(said.keys() | understood.keys()):
        if key not in said or key not in understood or said[key] != understood[key]:
            raise ValueError(
                f"config.json: expected '{key}' to be {understood.get(key, 'absent')}, "
                f"got {said.get(key, 'absent')}. This network has no such variant."
            )


def _other_behaviour(config: AutoencoderConfig | TransformerConfig) -> dict[str, Any]:
    return {name: getattr(config, name) for name, value in _behaviour(config).items() if getattr(config, name) != value}


def _behaviour(config: AutoencoderConfig | TransformerConfig) -> Mapping[str, Any]:
    return AUTOENCODER_BEHAVIOUR if isinstance(config, AutoencoderConfig) else TRANSFORMER_BEHAVIOUR


def _check_behaviour(config: AutoencoderConfig | TransformerConfig) -> None:
    other = _other_behaviour(config)
    if other:
        raise ValueError(
            f"The public layout implies {dict(_behaviour(config))}, but this network has {other}. "
            "Use `save_pretrained` or a checkpoint, which can express it."
        )
