"""Spherical rotary encoding: queries and keys are turned on the globe as spherical harmonics are."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from ladcast.nn.position.base import EncodingOptions, Rotation, TokenGrid, Tokens
from ladcast.nn.position.rotary import TemporalRotary

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
