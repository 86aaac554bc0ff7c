"""Position encodings: how attention learns where on the globe, and when, its tokens are.

A new encoding is one class here and its entry in `POSITION_ENCODINGS`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

Coordinates = Float[Tensor, "token 3"]
"""Time in frames (0 is the last known frame), latitude and longitude in radians: one row per token."""


def token_coordinates(
    frames: Float[Tensor, " time"], latitude: Float[Tensor, " y"], longitude: Float[Tensor, " x"]
) -> Coordinates:
    """Lists the coordinates of all tokens of a sequence of frames, time slowest and longitude fastest."""
    return torch.cartesian_prod(frames, latitude, longitude)


@dataclass(frozen=True)
class Positions:
    """Holds what attention applies: a rotation of queries and keys and a bias on the logits.

    `cos`, `sin`: of the angle of each pair of neighbouring head dimensions; None leaves queries and keys
    alone.
    `bias`: added to the scaled logits; None adds nothing.
    """

    cos: Float[Tensor, "token pair"] | None = None
    sin: Float[Tensor, "token pair"] | None = None
    bias: Float[Tensor, "head token token"] | None = None

    def rotate(self, heads: Float[Tensor, "batch head token dim"]) -> Float[Tensor, "batch head token dim"]:
        """Rotates each pair of dimensions (2i, 2i + 1) of queries or keys by the angle of their token."""
        if self.cos is None or self.sin is None:
            return heads
        even, odd = torch.unflatten(heads, -1, (-1, 2)).unbind(-1)
        turned = torch.stack([even * self.cos - odd * self.sin, odd * self.cos + even * self.sin], dim=-1)
        return turned.flatten(-2)


class PositionEncoding(nn.Module):
    """Turns token coordinates into `Positions`; a subclass overrides `angles`, `bias`, or both.

    `axes_dim` splits the head dimension over time, latitude and longitude.
    """

    def __init__(self, heads: int, axes_dim: tuple[int, int, int], theta: float) -> None:
        super().__init__()
        self.heads = heads
        self.axes_dim = axes_dim
        self.theta = theta

    def angles(self, coordinates: Coordinates) -> Float[Tensor, "token pair"] | None:
        """Returns the rotation angle of each pair of head dimensions, or None for no rotation."""
        return None

    def bias(self, coordinates: Coordinates) -> Float[Tensor, "head token token"] | None:
        """Returns what is added to the logits of each head, or None for nothing."""
        return None

    def forward(self, coordinates: Coordinates, *, unrotated: int = 0) -> Positions:
        """Computes positions once per network call; the last `unrotated` tokens keep angle zero."""
        angles = self.angles(coordinates)
        if angles is None:
            return Positions(bias=self.bias(coordinates))
        angles = torch.cat([angles[: len(angles) - unrotated], torch.zeros_like(angles[len(angles) - unrotated :])])
        return Positions(angles.cos(), angles.sin(), self.bias(coordinates))


class TemporalRotary(PositionEncoding):
    """Rotates by time alone: tokens do not know where they are."""

    def angles(self, coordinates: Coordinates) -> Float[Tensor, "token pair"]:
        time = coordinates[:, 0]
        num_idle = (self.axes_dim[1] + self.axes_dim[2]) // 2
        return torch.cat([torch.outer(time, self._frequencies(0, time)), time.new_zeros(len(time), num_idle)], dim=-1)

    def _frequencies(self, axis: int, like: Tensor) -> Float[Tensor, " pair"]:
        """Returns theta^(-2i/d) for i = 0 .. d/2 - 1."""
        dim = self.axes_dim[axis]
        return self.theta ** (-torch.arange(0, dim, 2, device=like.device, dtype=torch.float32) / dim)


class GeoRotary(TemporalRotary):
    """Rotates by time, six times latitude, and longitude (GeoRoPE, arXiv 2506.09193).

    The frequencies theta^(-2i/d) are not integers, so all longitude pairs but the first jump at the
    meridian where the grid begins. The factor 6 is that of the released weights: latitude spans three turns
    from pole to pole.
    """

    LATITUDE_FACTOR = 6.0

    def angles(self, coordinates: Coordinates) -> Float[Tensor, "token pair"]:
        time, latitude, longitude = coordinates.unbind(-1)
        return torch.cat(
            [
                torch.outer(time, self._frequencies(0, time)),
                torch.outer(self.LATITUDE_FACTOR * latitude, self._frequencies(1, time)),
                torch.outer(longitude, self.longitude_frequencies(time)),
            ],
            dim=-1,
        )

    def longitude_frequencies(self, like: Tensor) -> Float[Tensor, " pair"]:
        """Returns the angle that each pair turns per radian of longitude."""
        return self._frequencies(2, like)


class SeamlessGeoRotary(GeoRotary):
    """Rotates like GeoRoPE, but by m = 1 .. d/2 times longitude: angles that close around the globe."""

    def longitude_frequencies(self, like: Tensor) -> Float[Tensor, " pair"]:
        return torch.arange(1, self.axes_dim[2] // 2 + 1, device=like.device, dtype=torch.float32)


POSITION_ENCODINGS: dict[str, type[PositionEncoding]] = {
    "none": TemporalRotary,
    "geo": GeoRotary,
    "geo_seamless": SeamlessGeoRotary,
}


def build_position_encoding(name: str, heads: int, *, axes_dim: tuple[int, int, int], theta: float) -> PositionEncoding:
    """Builds the position encoding of that name; raises ValueError that lists the known ones."""
    if name not in POSITION_ENCODINGS:
        raise ValueError(f"Expected a position encoding out of {sorted(POSITION_ENCODINGS)}, got '{name}'.")
    return POSITION_ENCODINGS[name](heads, axes_dim, theta)


def evenly_spaced_radians(start_deg: float, end_deg: float, count: int, like: Tensor) -> Float[Tensor, " cell"]:
    """Returns `count` evenly spaced angles from `start_deg` to `end_deg`, both included, in radians."""
    degrees = torch.linspace(start_deg, end_deg, count, device=like.device, dtype=torch.float32)
    return degrees * (math.pi / 180)
