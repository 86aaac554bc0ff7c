"""The autoencoder: a global field of many channels <-> a small latent field (DC-AE on the sphere)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ladcast.device import uses_kernels
from ladcast.models.layouts import AUTOENCODER
from ladcast.models.pretrained import Pretrained
from ladcast.nn.block import ChannelNorm, EfficientViTBlock, Field, ResidualBlock
from ladcast.nn.sphere import CELL_CENTRED, PoleKernel, Poles, SphericalConv2d
from ladcast.types import Count

BlockKind = Literal["residual", "efficientvit"]


@dataclass(frozen=True)
class AutoencoderConfig:
    """Describes an autoencoder; every stage after the first halves both sides of the field.

    Raises:
        ValueError: stages of unequal number, an unknown block, or widths that the shortcuts cannot connect.
    """

    channels: Count
    """Predicted channels."""
    static_channels: int
    """Channels of constant fields that the encoder sees beside the predicted ones."""
    latent_channels: Count
    widths: tuple[Count, ...]
    """Channels of each stage, finest first."""
    blocks: tuple[int, ...]
    """Blocks of each stage, in the encoder and again in the decoder."""
    kinds: tuple[BlockKind, ...]
    """Kind of the blocks of each stage."""
    kernels: tuple[tuple[Count, ...], ...]
    """Convolution sizes of the further scales of attention, per stage; empty for a single scale."""
    head_dim: Count = 32
    pole_rows: tuple[bool, bool] = (False, False)
    """Whether the first (southern) and last (northern) row lie on a pole; rows of coarser stages never do."""
    pole_kernel: PoleKernel = "geometric"
    reconstruct_static: bool = False
    """Whether the decoder also computes the constant fields, as released weights do; `decode` drops them."""
    mean_state: tuple[int, int] | None = None
    """Rows and columns of a constant mean state; the networks then see and make departures from it, each channel in
    units of its own departures. None: they see scaled fields as they are."""

    def __post_init__(self) -> None:
        stages = {name: len(getattr(self, name)) for name in ("widths", "blocks", "kinds", "kernels")}
        if not self.widths or len(set(stages.values())) > 1:
            raise ValueError(f"Expected one entry per stage in widths, blocks, kinds and kernels, got {stages}.")
        unknown = sorted(set(self.kinds) - set(get_args(BlockKind)))
        if unknown:
            raise ValueError(f"Expected kinds out of {get_args(BlockKind)}, got {unknown}.")
        for fine, coarse in zip(self.widths, self.widths[1:], strict=False):
            if coarse % 4 or 4 * fine % coarse:
                raise ValueError(
                    f"Widths {fine} -> {coarse}: the shortcut averages 4 x {fine} channels in equal groups, "
                    f"so {coarse} must be a multiple of 4 that divides {4 * fine}; try {fine} or {2 * fine}."
                )
        if self.widths[-1] % self.latent_channels:
            raise ValueError(
                f"The shortcut into the latent averages channels in equal groups, so the last width must be "
                f"a multiple of latent_channels; got {self.widths[-1]} and {self.latent_channels}."
            )
        narrow = [
            w for w, kind in zip(self.widths, self.kinds, strict=True) if kind == "efficientvit" and w < self.head_dim
        ]
        if narrow:
            raise ValueError(f"Attention stages need a width of at least head_dim {self.head_dim}, got {narrow}.")

    @property
    def downsampling(self) -> int:
        """Returns the number of field cells per latent cell along each side."""
        return int(2 ** (len(self.widths) - 1))

    @property
    def decoded_channels(self) -> int:
        """Returns the number of channels that the decoder computes."""
        return self.channels + self.static_channels * self.reconstruct_static


class Autoencoder(Pretrained):
    """Encodes scaled fields into latent fields and decodes them.

    From arXiv 2410.10733 (DC-AE) and arXiv 2506.09193 (on the sphere). Convolutions continue across the
    poles, so both directions commute with rotations in longitude by whole latent cells.
    """

    config: AutoencoderConfig
    config_class = AutoencoderConfig
    public_layout = AUTOENCODER
    mean_state: Tensor
    departure_std: Tensor

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__(config)
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        if config.mean_state is not None:
            self.register_buffer("mean_state", torch.zeros(config.channels, *config.mean_state))
            self.register_buffer("departure_std", torch.ones(config.channels, 1, 1))

    def encode(
        self, scaled: Field, static: Float[Tensor, "*static_batch static lat lon"]
    ) -> Float[Tensor, "batch latent y x"]:
        """Compresses scaled fields; `static` is shared by the batch or given for each member of it.

        Raises:
            ValueError: wrong numbers of channels, or sides that do not divide by the downsampling.
        """
        self._check(scaled, static)
        static = static.to(scaled.dtype).expand(len(scaled), -1, -1, -1)
        if self.config.mean_state is not None:
            scaled = (scaled - self.mean_state) / self.departure_std
        latent: Tensor = self.encoder(torch.cat([scaled, static], dim=1))
        return latent

    def decode(self, latent: Float[Tensor, "batch latent y x"]) -> Field:
        """Reconstructs scaled fields from latent fields."""
        decoded: Tensor = self.decoder(latent)[:, : self.config.channels]
        if self.config.mean_state is not None:
            return decoded * self.departure_std + self.mean_state
        return decoded

    def forward(
        self,
        scaled: Field,
        static: Float[Tensor, "*static_batch static lat lon"],
        noise: Float[Tensor, "batch latent y x"] | None = None,
    ) -> Field:
        """Encodes and decodes; `noise` counts in standard deviations of each latent channel within the batch."""
        latent = self.encode(scaled, static)
        if noise is not None:
            latent = latent + noise * latent.detach().float().std(dim=(0, 2, 3), keepdim=True)
        return self.decode(latent)

    def _check(self, scaled: Tensor, static: Tensor) -> None:
        config, factor = self.config, self.config.downsampling
        if (scaled.shape[1], static.shape[-3]) != (config.channels, config.static_channels):
            raise ValueError(
                f"The autoencoder expects {config.channels} channels and {config.static_channels} static "
                f"fields, got {scaled.shape[1]} and {static.shape[-3]}. Use the channels it was trained with."
            )
        if scaled.shape[-2] % factor or scaled.shape[-1] % factor:
            raise ValueError(
                f"A field of {scaled.shape[-2]} x {scaled.shape[-1]} (lat x lon) does not divide by the "
                f"downsampling {factor}; drop a pole row (see `Grid`) or use fewer stages."
            )


class Encoder(nn.Module):
    """Stem, stages joined by pixel-unshuffle downsamplings, and head with a channel-averaging shortcut."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        poles = [_poles(config, stage) for stage in range(len(config.widths))]
        self.stem = SphericalConv2d(config.channels + config.static_channels, config.widths[0], poles=poles[0])
        layers: list[nn.Module] = []
        for stage, width in enumerate(config.widths):
            if stage > 0:
                layers.append(Downsample(config.widths[stage - 1], width, poles=poles[stage - 1]))
            layers.extend(_stage_blocks(config, stage))
        self.body = nn.Sequential(*layers)
        self.head = SphericalConv2d(config.widths[-1], config.latent_channels, poles=poles[-1])

    def forward(self, field: Field) -> Float[Tensor, "batch latent y x"]:
        features = self.body(self.stem(field))
        latent: Tensor = self.head(features)
        return latent + average_channels(features, self.head.out_channels)


class Decoder(nn.Module):
    """Mirrors the encoder: stem with a channel-repeating shortcut, stages from coarse to fine, and head."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        poles = [_poles(config, stage) for stage in range(len(config.widths))]
        self.stem = SphericalConv2d(config.latent_channels, config.widths[-1], poles=poles[-1])
        layers: list[nn.Module] = []
        for stage in reversed(range(len(config.widths))):
            layers.extend(_stage_blocks(config, stage))
            if stage > 0:
                layers.append(Upsample(config.widths[stage], config.widths[stage - 1], poles=poles[stage]))
        self.body = nn.Sequential(*layers)
        self.norm = ChannelNorm(config.widths[0])
        self.head = SphericalConv2d(config.widths[0], config.decoded_channels, poles=poles[0])

    def forward(self, latent: Float[Tensor, "batch latent y x"]) -> Field:
        features = self.stem(latent) + repeat_channels(latent, self.stem.out_channels)
        decoded: Tensor = self.head(F.relu(self.norm(self.body(features))))
        return decoded


class Downsample(nn.Module):
    """Halves both sides: convolution and pixel-unshuffle, beside a shortcut that averages channels."""

    def __init__(self, in_channels: int, out_channels: int, *, poles: Poles) -> None:
        super().__init__()
        self.conv = SphericalConv2d(in_channels, out_channels // 4, poles=poles)

    def forward(self, field: Field) -> Float[Tensor, "batch out y x"]:
        made = self.conv(field)
        if uses_kernels(field):
            from ladcast.nn import field_kernels

            return field_kernels.shuffle(made, field, up=False)
        shrunk = F.pixel_unshuffle(made, 2)
        return shrunk + average_channels(F.pixel_unshuffle(field, 2), shrunk.shape[1])


class Upsample(nn.Module):
    """Doubles both sides: convolution and pixel-shuffle, beside a shortcut that repeats channels."""

    def __init__(self, in_channels: int, out_channels: int, *, poles: Poles) -> None:
        super().__init__()
        self.conv = SphericalConv2d(in_channels, 4 * out_channels, poles=poles)

    def forward(self, field: Field) -> Float[Tensor, "batch out y x"]:
        made = self.conv(field)
        if uses_kernels(field):
            from ladcast.nn import field_kernels

            return field_kernels.shuffle(made, field, up=True)
        return F.pixel_shuffle(made + repeat_channels(field, self.conv.out_channels), 2)


def average_channels(field: Field, count: int) -> Float[Tensor, "batch out lat lon"]:
    """Averages neighbouring channels in `count` groups of equal size."""
    return torch.unflatten(field, 1, (count, -1)).mean(dim=2)


def repeat_channels(field: Field, count: int) -> Float[Tensor, "batch out lat lon"]:
    """Repeats each channel in place until there are `count`."""
    return field.repeat_interleave(count // field.shape[1], dim=1)


def _poles(config: AutoencoderConfig, stage: int) -> Poles:
    """Returns how a stage meets the poles; the pixels of coarser stages are cells, which miss them."""
    return Poles(config.pole_rows if stage == 0 else CELL_CENTRED.rows, config.pole_kernel)


def _stage_blocks(config: AutoencoderConfig, stage: int) -> list[nn.Module]:
    width, kernels, poles = config.widths[stage], config.kernels[stage], _poles(config, stage)
    if config.kinds[stage] == "residual":
        return [ResidualBlock(width, poles=poles) for _ in range(config.blocks[stage])]
    return [
        EfficientViTBlock(width, config.head_dim, kernels=kernels, poles=poles) for _ in range(config.blocks[stage])
    ]
