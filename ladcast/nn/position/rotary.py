"""Rotary encodings: angles of pairs of head dimensions by time, latitude and longitude, and spherical harmonics turned.

The simplest rotates by time alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import numpy.typing as npt
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


Matrix = npt.NDArray[np.float64]


class SphericalRotary(TemporalRotary):
    """Turns blocks of 2l + 1 head dimensions by real Wigner-D matrices D^l(R_z(lon) R_y(colat)), l = 1 .. L.

    L is the largest degree with L (L + 2) <= the head dimensions for latitude and longitude; those beyond stay as
    they are, and time is encoded as by `TemporalRotary`. The matrices are orthogonal and multiply as the rotations
    do, so a score depends on the rotation from one token's frame (south, east, up) to the other's alone.

    D^l(R_z(lon) R_y(colat)) = Z(lon) G Z(colat) G: Z turns the pairs of order +m and -m by m times the angle, and G
    is D^l of the half turn that exchanges the axes y and z. So the encoding costs two rotary ones and two products
    with one constant matrix, instead of a matrix for each token (the idea of Pinchon and Hoggan 2007,
    doi:10.1088/1751-8113/40/7/011). Dimensions are ordered (l, m > 0) in pairs, then all m = 0.
    """

    def __init__(self, options: EncodingOptions) -> None:
        super().__init__(options)
        self.max_degree = math.isqrt(sum(options.axes_dim[1:]) + 1) - 1
        if self.max_degree < 1:
            raise ValueError(
                f"Expected at least 4 head dimensions for latitude and longitude, got {sum(options.axes_dim[1:])} in "
                f"rope_axes_dim {options.axes_dim}: spherical harmonics of degree 1 need 3 of them."
            )
        # No buffer: it would be stored with the weights, in their precision, and lost on the device "meta".
        self.exchange = torch.from_numpy(self._exchange()).float()

    def rotations(self, grid: TokenGrid, tokens: Tokens) -> tuple[Rotation, ...]:
        time, latitude, longitude = grid.coordinates().unbind(-1)
        basis = self.exchange.to(time.device)
        turn_time = self.turn(time, axis=0)
        by_colatitude = self._angles(torch.zeros_like(turn_time), math.pi / 2 - latitude)
        return Rotation.by(by_colatitude, basis), Rotation.by(self._angles(turn_time, longitude), basis)

    def _angles(
        self, time: Float[Tensor, "token time_pair"], angle: Float[Tensor, " token"]
    ) -> Float[Tensor, "token pair"]:
        orders = [float(order) for _, order in pairs_of_orders(self.max_degree)]
        idle = self.options.head_dim // 2 - time.shape[1] - len(orders)
        return torch.cat([time, torch.outer(angle, angle.new_tensor(orders + idle * [0.0]))], dim=-1)

    def _exchange(self) -> Matrix:
        """Returns D of the half turn about (y + z) / sqrt(2), the identity outside the harmonics."""
        from scipy.linalg import expm  # torch's own has no values while memory is counted on fake tensors

        matrix: Matrix = np.eye(self.options.head_dim)
        for degree in range(1, self.max_degree + 1):
            _, about_y, about_z = wigner_generators(degree)
            matrix[np.ix_(self.block(degree), self.block(degree))] = expm(math.pi / math.sqrt(2) * (about_y + about_z))
        return matrix

    def block(self, degree: int) -> list[int]:
        """Returns the head dimensions of a degree: m = 1 .. l in pairs, then m = 0."""
        orders = list(pairs_of_orders(self.max_degree))
        start = self.options.axes_dim[0]
        first = start + 2 * orders.index((degree, 1))
        return [*range(first, first + 2 * degree), start + 2 * len(orders) + degree - 1]


def pairs_of_orders(max_degree: int) -> Iterator[tuple[int, int]]:
    """Yields (l, m) for l = 1 .. max_degree and m = 1 .. l."""
    return ((degree, order) for degree in range(1, max_degree + 1) for order in range(1, degree + 1))


def wigner_generators(degree: int) -> tuple[Matrix, Matrix, Matrix]:
    """Returns X_x, X_y, X_z (antisymmetric): D^l(rotation by w about the unit vector n) = exp(w n.X).

    In the basis of real harmonics ordered m = 1 .. l in pairs (cosine, sine), then m = 0; of degree 1 that is x, y, z.
    """
    order = np.arange(-degree, degree + 1)
    raising = np.diag(np.sqrt(degree * (degree + 1) - order[:-1] * (order[:-1] + 1)), -1)
    spins = (raising + raising.T) / 2, (raising - raising.T) / 2j, np.diag(order)
    real = _real_harmonics(degree)
    about_x, about_y, about_z = ((real.conj().T @ (-1j * spin) @ real).real for spin in spins)
    return about_x, about_y, about_z


def _real_harmonics(degree: int) -> npt.NDArray[np.complex128]:
    """Returns the real harmonics as columns, in terms of the complex ones of order -l .. l (Condon-Shortley phase)."""
    columns = np.zeros((2 * degree + 1, 2 * degree + 1), dtype=np.complex128)
    for order in range(1, degree + 1):
        sign = (-1) ** order
        columns[[degree - order, degree + order], 2 * order - 2] = np.array([1, sign]) / math.sqrt(2)
        columns[[degree - order, degree + order], 2 * order - 1] = np.array([1j, -1j * sign]) / math.sqrt(2)
    columns[degree, -1] = 1
    return columns
