"""The latent transformer: denoises a sequence of latent frames given the frames before it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from ladcast.models.layouts import TRANSFORMER
from ladcast.models.pretrained import Pretrained
from ladcast.nn.block import DualStreamBlock, Modulation, RefinerBlock, SingleStreamBlock, modulated_norm
from ladcast.nn.embedding import (
    DAY_FEATURES,
    MLP,
    SEASON_FEATURES,
    ConditionEmbedding,
    day_embedding,
    day_progress,
    join_frames,
    patchify,
    season_embedding,
    split_frames,
    unpatchify,
    year_progress,
)
from ladcast.nn.position import (
    POSITION_ENCODINGS,
    EncodingOptions,
    Positions,
    TokenGrid,
    build_position_encoding,
    evenly_spaced_radians,
)
from ladcast.types import Count, LatentSequence, Positive, to_epoch_seconds


@dataclass(frozen=True)
class TransformerConfig:
    """Describes a latent transformer.

    Raises:
        ValueError: an unknown position encoding, or axes that do not fill the head dimension in pairs.
    """

    latent_channels: Count
    latitude_deg: tuple[float, float]
    """Latitudes of the first and last row of tokens (patch centres)."""
    longitude_deg: tuple[float, float]
    """Longitudes of the first and last column of tokens (patch centres)."""
    heads: Count = 12
    head_dim: Count = 128
    dual_blocks: int = 2
    single_blocks: int = 4
    refiner_blocks: int = 1
    mlp_ratio: Count = 4
    patch_size: Count = 1
    """Latent cells per token along each side."""
    position: str = "geo_seamless"
    """Name in `ladcast.nn.position.POSITION_ENCODINGS`; released weights need "geo"."""
    rope_axes_dim: tuple[int, int, int] = (16, 56, 56)
    """Head dimensions that encode time, latitude and longitude."""
    rope_theta: Positive = 256.0
    rotate_past_in_dual: bool = True
    """Whether conditioning tokens know their positions in dual-stream blocks; released weights need False."""
    time_of_day: bool = True
    """Whether the network sees the UTC hour beside the season; released weights need False."""
    spacing_deg: Positive | None = None
    """Degrees that distances and offsets between tokens are counted in; None: those between columns. To run a network
    on another grid than it was trained on, keep those of training."""
    max_frames: Count = 4
    """Largest difference in frames that learned position tables tell apart."""
    area_weighted: bool = False
    """Whether attention weighs tokens by their area on the globe."""
    frames_per_token: Count = 1
    """Consecutive frames that one token holds."""
    past_beside: bool = False
    """Whether each token to predict also holds the last known frame at its place; conditioning frames then have no
    tokens of their own, and there are neither refiner nor dual-stream blocks."""
    places: tuple[int, int] | None = None
    """Rows and columns of tokens, where the network is to learn what is particular to each place on the globe."""

    def __post_init__(self) -> None:
        if self.position not in POSITION_ENCODINGS:
            raise ValueError(f"Expected position to be one of {sorted(POSITION_ENCODINGS)}, got '{self.position}'.")
        if any(dim % 2 for dim in self.rope_axes_dim) or sum(self.rope_axes_dim) != self.head_dim:
            raise ValueError(
                f"rope_axes_dim {self.rope_axes_dim} must be even and sum to head_dim {self.head_dim}; "
                "1/8, 7/16 and 7/16 of it is the usual split over time, latitude and longitude."
            )
        if self.past_beside and (self.refiner_blocks or self.dual_blocks):
            raise ValueError("past_beside leaves no conditioning tokens: set refiner_blocks and dual_blocks to 0.")
        if not self.past_beside and (self.frames_per_token > 1 or self.places is not None):
            raise ValueError("frames_per_token above 1 and places need past_beside.")

    @property
    def dim(self) -> int:
        """Returns the width of a token."""
        return self.heads * self.head_dim

    @property
    def encoding_options(self) -> EncodingOptions:
        """Returns what the position encoding is built from."""
        west, east = self.longitude_deg
        return EncodingOptions(
            heads=self.heads,
            axes_dim=self.rope_axes_dim,
            theta=self.rope_theta,
            spacing_deg=360 - (east - west) if self.spacing_deg is None else self.spacing_deg,
            max_frames=self.max_frames,
            area_weighted=self.area_weighted,
        )


class LatentTransformer(Pretrained):
    """Maps noisy future frames to the raw network output of the EDM denoiser (LaDCast, arXiv 2506.09193).

    The conditioning frames are refined, then attend jointly with the noisy frames: first as two streams with
    weights of their own, then as one. Noise level, season and conditioning modulate every block.
    """

    config: TransformerConfig
    config_class = TransformerConfig
    public_layout = TRANSFORMER

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config)
        dim, sizes = config.dim, (config.dim, config.heads, config.mlp_ratio)
        frame_features = config.latent_channels * config.patch_size**2
        patch_features = frame_features * config.frames_per_token
        self.position = build_position_encoding(config.position, config.encoding_options)
        self.future_in = nn.Linear(patch_features + frame_features * config.past_beside, dim)
        self.past_in = nn.Linear(frame_features, dim)
        self.refiner = None if config.past_beside else Refiner(config)
        self.place = None if config.places is None else nn.Parameter(torch.zeros(math.prod(config.places), dim))
        self.condition = ConditionEmbedding(dim)
        self.season = MLP(SEASON_FEATURES + DAY_FEATURES * config.time_of_day, 2 * dim, 2 * dim)
        self.dual_blocks = nn.ModuleList(DualStreamBlock(*sizes) for _ in range(config.dual_blocks))
        self.single_blocks = nn.ModuleList(SingleStreamBlock(*sizes) for _ in range(config.single_blocks))
        self.modulation = Modulation(dim, 2)
        self.out = nn.Linear(dim, patch_features)
        for last in (self.season.outer, self.out):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(
        self,
        noisy: LatentSequence,
        c_noise: Float[Tensor, " batch"],
        conditioning: Float[Tensor, "batch latent past y x"],
        init_time: Int[Tensor, " batch"] | Shaped[np.ndarray, " batch"],
        perturbation: Float[Tensor, "batch features"] | None = None,
    ) -> LatentSequence:
        """Computes the raw output for noisy frames at lead 1, 2, ... steps.

        Args:
            noisy: frames to denoise, already scaled by the preconditioning.
            c_noise: ln(sigma) / 4.
            conditioning: the frames up to the start time, oldest first.
            init_time: start time as seconds since 1970-01-01 UTC, or as datetime64.
            perturbation: added to the condition that modulates every block, before the season scales it.
        """
        seconds = init_time if isinstance(init_time, Tensor) else to_epoch_seconds(init_time)
        patch = self.config.patch_size
        if self.config.past_beside:
            return self._beside(noisy, c_noise, conditioning, seconds, perturbation)
        future = self.future_in(patchify(noisy, patch))
        past = self.past_in(patchify(conditioning, patch))
        num_future, num_past = future.shape[1], past.shape[1]
        grid, embedded = self.token_grid(noisy, num_past=conditioning.shape[2]), torch.cat([future, past], dim=1)
        joint = self.position(grid, embedded)
        dual = joint if self.config.rotate_past_in_dual else self.position(grid, embedded, unplaced=num_past)

        assert self.refiner is not None
        past = self.refiner(past, c_noise, self.position(grid.last_frames(conditioning.shape[2]), past))
        condition = self._condition(c_noise, past, seconds, perturbation)
        for block in self.dual_blocks:
            future, past = block(future, past, condition=condition, positions=dual)
        tokens = torch.cat([future, past], dim=1)
        for block in self.single_blocks:
            tokens = block(tokens, condition=condition, positions=joint)
        return self._read_out(tokens[:, :num_future], condition, noisy)

    def _beside(
        self,
        noisy: LatentSequence,
        c_noise: Tensor,
        conditioning: Tensor,
        seconds: Int[Tensor, " batch"],
        perturbation: Tensor | None,
    ) -> LatentSequence:
        """Computes the output of a network whose tokens hold the known frame beside the noisy ones."""
        patch, joined = self.config.patch_size, join_frames(noisy, self.config.frames_per_token)
        known = conditioning[:, :, -1:].expand(-1, -1, joined.shape[2], -1, -1)
        tokens = self.future_in(patchify(torch.cat([joined, known], dim=1), patch))
        if self.place is not None:
            tokens = tokens + self.place.repeat(joined.shape[2], 1).to(tokens.dtype)
        summary = self.past_in(patchify(conditioning, patch))
        condition = self._condition(c_noise, summary, seconds, perturbation)
        positions = self.position(self.token_grid(joined, num_past=0), tokens)
        for block in self.single_blocks:
            tokens = block(tokens, condition=condition, positions=positions)
        return self._read_out(tokens, condition, noisy)

    def _read_out(self, tokens: Tensor, condition: Tensor, noisy: LatentSequence) -> LatentSequence:
        """Turns the last tokens into frames in the shape of `noisy`."""
        scale, shift = self.modulation(condition)
        output = self.out(modulated_norm(tokens, scale=scale, shift=shift))
        joined = self.config.frames_per_token
        frame = (noisy.shape[2] // joined, noisy.shape[3], noisy.shape[4])
        return split_frames(unpatchify(output, self.config.patch_size, frame=frame), joined)

    def token_grid(self, noisy: LatentSequence, *, num_past: int) -> TokenGrid:
        """Places the predicted tokens, then the conditioning tokens."""
        config, num_future = self.config, noisy.shape[2]
        rows, columns = (side // config.patch_size for side in noisy.shape[-2:])
        latitude = evenly_spaced_radians(*config.latitude_deg, rows, noisy)
        longitude = evenly_spaced_radians(*config.longitude_deg, columns, noisy)
        frames = torch.arange(1 - num_past, num_future + 1, device=noisy.device, dtype=torch.float32)
        return TokenGrid(frames.roll(-num_past), latitude, longitude)

    def _condition(
        self, c_noise: Tensor, known: Tensor, seconds: Int[Tensor, " batch"], perturbation: Tensor | None
    ) -> Float[Tensor, "batch features"]:
        """Returns what modulates the blocks: noise level, summary of the known tokens and perturbation.

        Their sum is scaled and shifted by the season, and the time of day where the network knows it.
        """
        condition: Tensor = self.condition(c_noise, known)
        if perturbation is not None:
            condition = condition + perturbation
        features = season_embedding(year_progress(seconds))
        if self.config.time_of_day:
            features = torch.cat([features, day_embedding(day_progress(seconds))], dim=-1)
        modulation: Tensor = self.season(features.to(condition.device, condition.dtype))
        scale, shift = modulation.chunk(2, dim=-1)
        return condition * (1 + scale) + shift


class Refiner(nn.Module):
    """Lets the conditioning tokens exchange information before they meet the noisy ones."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.condition = ConditionEmbedding(config.dim) if config.refiner_blocks else None
        self.proj_in = nn.Linear(config.dim, config.dim)
        self.blocks = nn.ModuleList(
            RefinerBlock(config.dim, config.heads, config.mlp_ratio) for _ in range(config.refiner_blocks)
        )

    def forward(
        self, tokens: Float[Tensor, "batch token features"], c_noise: Float[Tensor, " batch"], positions: Positions
    ) -> Float[Tensor, "batch token features"]:
        condition = None if self.condition is None else self.condition(c_noise, tokens)
        tokens = self.proj_in(tokens)
        for block in self.blocks:
            tokens = block(tokens, condition=condition, positions=positions)
        return tokens
