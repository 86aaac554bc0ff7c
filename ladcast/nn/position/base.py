"""What a position encoding is given (a grid of tokens) and what it gives attention (rotations and score changes)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

Coordinates = Float[Tensor, "token 3"]
"""Time in frames (0 is the last known frame), latitude and longitude in radians: one row per token."""
Heads = Float[Tensor, "batch head token dim"]
Tokens = Float[Tensor, "batch token features"]
ScoreMod = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
"""Maps (score, batch, head, query token, key token) to the score that softmax sees.

The score is q.k / sqrt(d); the others are integer tensors, scalars for FlexAttention and broadcast together elsewhere,
so a function may use only operations that act on both alike.
"""
Scores = Callable[[Heads, Heads], ScoreMod]
"""Makes the `ScoreMod` of one attention layer from its rotated queries and keys."""


@dataclass(frozen=True, eq=False)
class TokenGrid:
    """Places tokens: frames (0 is the last known one), ascending latitudes and longitudes in radians.

    Tokens are numbered with time slowest and longitude fastest.
    """

    frames: Float[Tensor, " time"]
    latitude: Float[Tensor, " lat"]
    longitude: Float[Tensor, " lon"]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Returns the numbers of frames, rows and columns."""
        return len(self.frames), len(self.latitude), len(self.longitude)

    def last_frames(self, count: int) -> TokenGrid:
        """Returns the grid of the last `count` frames alone."""
        return TokenGrid(self.frames[len(self.frames) - count :], self.latitude, self.longitude)

    def coordinates(self) -> Coordinates:
        """Lists the coordinates of all tokens."""
        return torch.cartesian_prod(self.frames, self.latitude, self.longitude)

    def log_cell_area(self) -> Float[Tensor, " token"]:
        """Returns ln(area / mean area) of each token; rows meet halfway, and the outer ones reach the poles."""
        pole = self.latitude.new_full((1,), math.pi / 2)
        edges = torch.cat([-pole, (self.latitude[1:] + self.latitude[:-1]) / 2, pole])
        area = edges.sin().diff()
        num_frames, _, num_columns = self.shape
        return (area / area.mean()).log().repeat_interleave(num_columns).repeat(num_frames)


def token_axes(token: Tensor, shape: tuple[int, int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the frame, row and column of tokens of a grid of that shape."""
    _, rows, columns = shape
    return token // (rows * columns), token // columns % rows, token % columns


@dataclass(frozen=True, eq=False)  # torch.compile hashes what a graph makes before it has its fields
class Rotation:
    """Turns each pair of head dimensions (2i, 2i + 1) by an angle of its token, in the coordinates of `basis`.

    `cos`, `sin`: of the angles; leading axes, where there are any, are batch and head.
    `basis`: an orthogonal matrix that mixes the dimensions first; None leaves them.
    """

    cos: Float[Tensor, "*heads token pair"]
    sin: Float[Tensor, "*heads token pair"]
    basis: Float[Tensor, "dim dim"] | None = None

    @classmethod
    def by(cls, angles: Float[Tensor, "*heads token pair"], basis: Float[Tensor, "dim dim"] | None = None) -> Rotation:
        """Builds the rotation by these angles."""
        return cls(angles.cos(), angles.sin(), basis)

    def __call__(self, heads: Heads) -> Heads:
        """Rotates queries or keys, in float32 or better."""
        if self.basis is not None:
            dtype = torch.promote_types(heads.dtype, self.basis.dtype)
            with torch.autocast(heads.device.type, enabled=False):
                heads = heads.to(dtype) @ self.basis.to(dtype)
        even, odd = torch.unflatten(heads, -1, (-1, 2)).unbind(-1)
        turned = torch.stack([even * self.cos - odd * self.sin, odd * self.cos + even * self.sin], dim=-1)
        return turned.flatten(-2)

    def sparing_last(self, count: int) -> Rotation:
        """Returns the rotation that turns the last `count` tokens by no angle."""
        kept = self.cos.shape[-2] - count
        cos, sin = self.cos[..., :kept, :], self.sin[..., :kept, :]
        still = torch.zeros_like(self.sin[..., kept:, :])
        return Rotation(torch.cat([cos, still + 1], dim=-2), torch.cat([sin, still], dim=-2), self.basis)


@dataclass(frozen=True, eq=False)
class Positions:
    """Holds what attention applies: rotations of queries and keys, one after another, and a change of the scores."""

    rotations: tuple[Rotation, ...] = ()
    scores: Scores | None = None

    @property
    def lone_rotation(self) -> Rotation | None:
        """Returns the rotation where there is but one, of the given dimensions and the same for all heads."""
        (rotation, *others) = self.rotations or (None,)
        plain = rotation is not None and rotation.basis is None and rotation.cos.ndim == 2
        return rotation if plain and not others else None

    def rotate(self, heads: Heads) -> Heads:
        """Rotates queries or keys to the positions of their tokens."""
        for rotation in self.rotations:
            heads = rotation(heads)
        return heads


@dataclass(frozen=True)
class EncodingOptions:
    """Sets what encodings depend on beside the positions themselves.

    `axes_dim`: head dimensions for time, latitude and longitude; their sum is the head dimension.
    `theta`: base of the rotary frequencies theta^(-2i/d).
    `spacing_deg`: degrees that count as one token in distances and offsets, whatever grid the network is run on.
    `max_frames`: largest difference in frames that learned tables tell apart; larger ones count as this one.
    `area_weighted`: adds the logarithm of the key's cell area to the scores, so that attention averages over area.
    """

    heads: int
    axes_dim: tuple[int, int, int]
    theta: float = 256.0
    spacing_deg: float = 12.0
    max_frames: int = 4
    area_weighted: bool = False

    @property
    def head_dim(self) -> int:
        """Returns the number of dimensions of a head."""
        return sum(self.axes_dim)


class PositionEncoding(nn.Module):
    """Turns a grid of tokens into `Positions`; a subclass overrides `rotations`, `scores`, or both.

    `relative`: whether scores depend on differences in time and longitude alone.
    `seamless`: whether they also forget whole turns around the globe.
    """

    relative: ClassVar[bool] = True
    seamless: ClassVar[bool] = True

    def __init__(self, options: EncodingOptions) -> None:
        super().__init__()
        self.options = options

    def rotations(self, grid: TokenGrid, tokens: Tokens) -> tuple[Rotation, ...]:
        """Returns the rotations of queries and keys, the first to apply first."""
        return ()

    def scores(self, grid: TokenGrid) -> Scores | None:
        """Returns what changes the scores, or None for nothing."""
        return None

    def forward(self, grid: TokenGrid, tokens: Tokens, *, unplaced: int = 0) -> Positions:
        """Computes positions once per network call; `tokens` are the embedded tokens that the network starts from.

        The last `unplaced` tokens have no position: they are not rotated, and scores with them are left alone.
        """
        rotations, scores = self.rotations(grid, tokens), self.scores(grid)
        if unplaced:
            rotations = tuple(rotation.sparing_last(unplaced) for rotation in rotations)
            scores = None if scores is None else _among_first(scores, math.prod(grid.shape) - unplaced)
        if self.options.area_weighted:
            scores = _with_key_bias(scores, grid.log_cell_area())
        return Positions(rotations, scores)


def _among_first(scores: Scores, count: int) -> Scores:
    """Keeps the scores of all pairs of tokens that are not both among the first `count`."""

    def limited(query: Heads, key: Heads) -> ScoreMod:
        change = scores(query, key)

        def score_mod(score: Tensor, batch: Tensor, head: Tensor, i: Tensor, j: Tensor) -> Tensor:
            return torch.where((i < count) & (j < count), change(score, batch, head, i, j), score)

        return score_mod

    return limited


def _with_key_bias(scores: Scores | None, bias: Float[Tensor, " token"]) -> Scores:
    """Adds a bias of the key's token to whatever `scores` does."""

    def biased(query: Heads, key: Heads) -> ScoreMod:
        change = None if scores is None else scores(query, key)

        def score_mod(score: Tensor, batch: Tensor, head: Tensor, i: Tensor, j: Tensor) -> Tensor:
            return (score if change is None else change(score, batch, head, i, j)) + bias[j]

        return score_mod

    return biased


def evenly_spaced_radians(start_deg: float, end_deg: float, count: int, like: Tensor) -> Float[Tensor, " cell"]:
    """Returns `count` evenly spaced angles from `start_deg` to `end_deg`, both included, in radians."""
    degrees = torch.linspace(start_deg, end_deg, count, device=like.device, dtype=torch.float32)
    return degrees * (math.pi / 180)
