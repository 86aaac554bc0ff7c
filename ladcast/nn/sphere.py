"""Convolution on a latitude-longitude grid that continues across the poles and around the globe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ladcast.device import uses_kernels

PoleKernel = Literal["geometric", "mirrored_outermost"]


@dataclass(frozen=True)
class Poles:
    """Says how a convolution meets the poles.

    `rows`: whether the first (southern) and the last (northern) row lie on a pole; False means half a
    cell off.
    `kernel`: "geometric" continues fields across the pole. "mirrored_outermost" reproduces released
    weights: in the outermost output row at each pole, the part of the kernel that reaches beyond the pole
    is mirrored in longitude, and in no other row, however large the kernel.
    """

    rows: tuple[bool, bool] = (False, False)
    kernel: PoleKernel = "geometric"

    def __post_init__(self) -> None:
        if self.kernel not in get_args(PoleKernel):
            raise ValueError(f"Expected pole_kernel to be one of {get_args(PoleKernel)}, got '{self.kernel}'.")


CELL_CENTRED = Poles()


def pad_sphere(
    field: Float[Tensor, "batch channel lat lon"], width: int, *, pole_rows: tuple[bool, bool] = (False, False)
) -> Float[Tensor, "batch channel lat_padded lon_padded"]:
    """Pads a global field by `width` rows beyond each pole and `width` columns around the globe.

    The value beyond a pole is that of the opposite meridian: f(90 + d, lon) = f(90 - d, lon + 180). A row
    on the pole itself (`pole_rows`: southern first row, northern last row) is not repeated; a cell-centred
    row is.

    Raises:
        ValueError: the number of longitudes is odd (no opposite meridian), or the field is too small.
    """
    if width == 0:
        return field
    _require_room(field, width, pole_rows)
    num_lat, num_lon = field.shape[-2:]
    south, north = (int(on_pole) for on_pole in pole_rows)
    below = field[..., south : south + width, :].flip(-2).roll(num_lon // 2, -1)
    above = field[..., num_lat - north - width : num_lat - north, :].flip(-2).roll(num_lon // 2, -1)
    globe = torch.cat([below, field, above], dim=-2)
    return torch.cat([globe[..., -width:], globe, globe[..., :width]], dim=-1)


def _require_room(field: Tensor, width: int, pole_rows: tuple[bool, bool]) -> None:
    (num_lat, num_lon), rows = field.shape[-2:], width + max(pole_rows)
    if num_lon % 2 or num_lon < 2 * width or num_lat < rows:
        raise ValueError(
            f"Padding by {width} across the poles needs an even number of longitudes, {2 * width} or more, and at "
            f"least {rows} rows, got a field of {num_lat} x {num_lon} (lat x lon). "
            "Use a grid with an even number of longitudes, or fewer downsamplings."
        )


class SphericalConv2d(nn.Conv2d):
    """Convolves a global field with a square kernel of odd size; row 0 is the southernmost.

    The output has the shape of the input and turns with it: a field rotated in longitude gives a rotated
    result.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 3,
        groups: int = 1,
        bias: bool = True,
        poles: Poles = CELL_CENTRED,
    ) -> None:
        if kernel_size % 2 == 0:
            raise ValueError(f"Expected a kernel of odd size, which has a centre, got {kernel_size}.")
        super().__init__(in_channels, out_channels, kernel_size, groups=groups, bias=bias)
        self.poles = poles
        self.reach = kernel_size // 2

    def forward(
        self, field: Float[Tensor, "batch channel lat lon"], *, silu: bool = False, gated: bool = False
    ) -> Float[Tensor, "batch out lat lon"]:
        """Convolves the field, or SiLU of it; `gated`: one half of the result times SiLU of the other half."""
        depthwise = self.groups == self.in_channels == self.out_channels
        if uses_kernels(field) and self.reach and (depthwise or (self.groups == 1 and not gated)):
            return self._by_kernels(field, silu=silu, gated=gated)
        padded = pad_sphere(F.silu(field) if silu else field, self.reach, pole_rows=self.poles.rows)
        convolved = self._convolve(padded)
        if not gated:
            return convolved
        value, gate = convolved.chunk(2, dim=1)
        return value * F.silu(gate)

    def _convolve(self, padded: Tensor) -> Tensor:
        if self.poles.kernel == "geometric" or self.reach == 0:
            return F.conv2d(padded, self.weight, self.bias, groups=self.groups)
        size = 2 * self.reach + 1
        beyond_south, beyond_north = slice(0, self.reach), slice(self.reach + 1, size)
        parts = (
            (padded[..., :size, :], _mirror(self.weight, beyond_south)),
            (padded[..., 1:-1, :], self.weight),
            (padded[..., -size:, :], _mirror(self.weight, beyond_north)),
        )
        rows = [F.conv2d(part, kernel, self.bias, groups=self.groups) for part, kernel in parts]
        return torch.cat(rows, dim=-2)

    def _by_kernels(self, field: Tensor, *, silu: bool, gated: bool) -> Tensor:
        from ladcast.nn import field_kernels

        _require_room(field, self.reach, self.poles.rows)
        poles, mirrored, reach = self.poles.rows, self.poles.kernel != "geometric", self.reach
        if self.groups > 1:
            active = F.silu(field) if silu else field  # once, not at each tap
            return field_kernels.depthwise(
                active, self.weight, self.bias, pole_rows=poles, mirrored=mirrored, gated=gated
            )
        dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else field.dtype
        padded = field_kernels.pad(field, reach, pole_rows=poles, silu=silu, one=self.bias is not None, dtype=dtype)
        kernel = field_kernels.aligned_weights(self.weight, self.bias, dtype)
        convolved = F.conv2d(padded, kernel)
        if mirrored:  # the difference that it makes, in the two rows where it does
            rows = slice(0, reach), slice(-reach, None)
            south, north = (kernel[:, :, part].flip(-1) - kernel[:, :, part] for part in rows)
            convolved[:, :, :1] += F.conv2d(padded[:, :, :reach], south)
            convolved[:, :, -1:] += F.conv2d(padded[:, :, -reach:], north)
        return convolved[:, : self.out_channels]


class Pointwise(nn.Conv2d):
    """Mixes the channels of each cell: a convolution of size 1, on a GPU a matrix product that adds its bias itself."""

    def forward(self, field: Float[Tensor, "batch channel lat lon"]) -> Float[Tensor, "batch out lat lon"]:
        if not uses_kernels(field):
            return super().forward(field)
        cells = F.linear(field.permute(0, 2, 3, 1).flatten(0, 2), self.weight.flatten(1), self.bias)
        return torch.unflatten(cells, 0, (len(field), *field.shape[2:])).permute(0, 3, 1, 2)


def _mirror(kernel: Tensor, rows: slice) -> Tensor:
    """Returns a copy of the kernel whose `rows` run westward."""
    mirrored = kernel.clone()
    mirrored[:, :, rows] = kernel[:, :, rows].flip(-1)
    return mirrored
