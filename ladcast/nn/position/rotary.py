"""Rotary encodings with one angle per pair of head dimensions: by time alone, and by time, latitude and longitude."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ladcast.nn.position.base import Coordinates, EncodingOptions, PositionEncoding, Rotation, TokenGrid, Tokens


class TemporalRotary(PositionEncoding):
    """Rotates by time alone: tokens do not know where they are."""

    def rotations(self, grid: TokenGrid, tokens: Tokens) -> tuple[Rotation, ...]:
        return (Rotation.by(self.angles(grid.coordinates())),)

    def angles(self, coordinates: Coordinates) -> Float[Tensor, "token pair"]:
        """Returns the rotation angle of each pair of head dimensions."""
        time = coordinates[:, 0]
        num_idle = sum(self.options.axes_dim[1:]) // 2
        return torch.cat([self.turn(time, axis=0), time.new_zeros(len(time), num_idle)], dim=-1)

    def turn(self, coordinate: Float[Tensor, " token"], *, axis: int) -> Float[Tensor, "token pair"]:
        """Returns coordinate times theta^(-2i/d) for the pairs i = 0 .. d/2 - 1 of this axis."""
        dim = self.options.axes_dim[axis]
        exponent = -torch.arange(0, dim, 2, device=coordinate.device, dtype=torch.float32) / dim
        return torch.outer(coordinate, self.options.theta**exponent)


class GeoRotary(TemporalRotary):
    """Rotates by time, six times latitude, and longitude (GeoRoPE, arXiv 2506.09193).

    The frequencies theta^(-2i/d) are not integers, so all longitude pairs but the first jump at the
    meridian where the grid begins. The factor 6 is that of the released weights: latitude spans three turns
    from pole to pole.
    """

    LATITUDE_FACTOR = 6.0
    seamless: ClassVar[bool] = False

    def angles(self, coordinates: Coordinates) -> Float[Tensor, "token pair"]:
        time, latitude, longitude = coordinates.unbind(-1)
        return torch.cat(
            [
                self.turn(time, axis=0),
                self.turn(self.LATITUDE_FACTOR * latitude, axis=1),
                self.longitude_angles(longitude),
            ],
            dim=-1,
        )

    def longitude_angles(self, longitude: Float[Tensor, " token"]) -> Float[Tensor, "token pair"]:
        """Returns the angle of each pair that encodes longitude."""
        return self.turn(longitude, axis=2)


class SeamlessGeoRotary(GeoRotary):
    """Rotates like GeoRoPE, but by m = 1 .. d/2 times longitude: angles that close around the globe."""

    seamless: ClassVar[bool] = True

    def longitude_angles(self, longitude: Float[Tensor, " token"]) -> Float[Tensor, "token pair"]:
        wavenumber = torch.arange(1, self.options.axes_dim[2] // 2 + 1, device=longitude.device, dtype=torch.float32)
        return torch.outer(longitude, wavenumber)


class ContextAwareRotary(GeoRotary):
    """Rotates by powers f^i of a frequency that each token sets for each head (CARoPE, arXiv 2507.23083).

    f(x) = 1 / (1 + softplus(x W + b)) in (0, 1), one for each head and axis; pair i turns by f^i times the coordinate
    of GeoRoPE. W starts at zero and b such that f = theta^(-2/d): GeoRoPE itself. The tokens x are those that the
    network starts from, so that all layers share the angles; the paper sums the phases of a sequence, where a grid
    has coordinates. Angles of two tokens differ in more than their positions: the scores are not relative.
    """

    relative: ClassVar[bool] = False

    def __init__(self, options: EncodingOptions) -> None:
        super().__init__(options)
        start = torch.tensor([_inverse_softplus(options.theta ** (2 / max(dim, 2)) - 1) for dim in options.axes_dim])
        # No nn.Linear: it would draw random numbers, and the other weights differ from those of other encodings.
        self.weight = nn.Parameter(torch.zeros(3 * options.heads, options.heads * options.head_dim))
        self.bias = nn.Parameter(start.repeat_interleave(options.heads))

    def rotations(self, grid: TokenGrid, tokens: Tokens) -> tuple[Rotation, ...]:
        scaled = grid.coordinates() * grid.frames.new_tensor([1.0, self.LATITUDE_FACTOR, 1.0])
        return (Rotation.by(torch.cat([self._powers(axis, scaled, d) for axis, d in self._decays(tokens)], dim=-1)),)

    def _decays(self, tokens: Tokens) -> list[tuple[int, Float[Tensor, "batch head token"]]]:
        """Returns -ln f of each axis, in float32: bfloat16 would turn the angles by tenths of a radian."""
        with torch.autocast(tokens.device.type, enabled=False):
            raw = F.linear(tokens.float(), self.weight.float(), self.bias.float())
        return list(enumerate(F.softplus(raw).log1p().transpose(1, 2).chunk(3, dim=1)))

    def _powers(
        self, axis: int, scaled: Coordinates, decay: Float[Tensor, "batch head token"]
    ) -> Float[Tensor, "batch head token pair"]:
        """Returns coordinate times f^i for the pairs of this axis."""
        power = torch.arange(self.options.axes_dim[axis] // 2, device=decay.device, dtype=torch.float32)
        return scaled[:, axis, None] * torch.exp(-decay[..., None] * power)


def _inverse_softplus(value: float) -> float:
    """Returns x with ln(1 + e^x) = value, for value > 0."""
    return value + math.log(-math.expm1(-value)) if value > 0 else -math.inf
