"""GPU kernels in Triton for global fields: padding, depthwise convolution and norm, each in one pass.

They do what `pad_sphere`, a depthwise `SphericalConv2d` and `ChannelNorm` do, for inference: none has a gradient.
Fields lie in memory with their channels next to each other (channels-last), as the tensor cores read them; where a
count of channels is no multiple of 8, memory has room for one that is. Import this module only where there is a GPU:
Triton comes with PyTorch's CUDA wheels and with no other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton  # type: ignore[import-not-found, unused-ignore]
import triton.language as tl  # type: ignore[import-not-found, unused-ignore]
from jaxtyping import Float
from torch import Tensor

ALIGNMENT = 8
"""Channels of half precision that one 16-byte access reads, which tensor cores need."""

Field = Float[Tensor, "batch channel lat lon"]


def aligned(count: int) -> int:
    """Returns the least multiple of `ALIGNMENT` that is at least `count`."""
    return -(-count // ALIGNMENT) * ALIGNMENT


def empty_field(shape: Sequence[int], like: Tensor) -> Field:
    """Returns a channels-last field without values; each cell has room for an aligned number of channels."""
    batch, channels, rows, columns = shape
    room = torch.empty(batch, rows, columns, aligned(channels), dtype=like.dtype, device=like.device)
    return room[..., :channels].permute(0, 3, 1, 2)


def channels_last(field: Field) -> Field:
    """Returns the field itself where its channels lie next to each other, or a copy in which they do."""
    return field if field.stride(1) == 1 else empty_field(field.shape, field).copy_(field)


def aligned_weights(
    kernel: Float[Tensor, "out in size size"], bias: Float[Tensor, " out"] | None, dtype: torch.dtype
) -> tuple[Tensor, Tensor | None]:
    """Returns weights and bias in a precision, channels-last, filled up with zeros to aligned numbers of channels."""
    outs, ins, *size = kernel.shape
    if (outs, ins) == (aligned(outs), aligned(ins)):
        return kernel.to(dtype, memory_format=torch.channels_last), None if bias is None else bias.to(dtype)
    room = torch.zeros(aligned(outs), *size, aligned(ins), dtype=dtype, device=kernel.device).permute(0, 3, 1, 2)
    room[:outs, :ins] = kernel
    if bias is None:
        return room, None
    filled = torch.zeros(aligned(outs), dtype=dtype, device=kernel.device)
    filled[:outs] = bias
    return room, filled


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def row_beyond(row, rows, south, north):  # type: ignore[no-untyped-def]
    """Returns the row that lies at a row beyond a pole, and whether it does; a row on the pole is not repeated."""
    below, above = row < 0, row >= rows
    inner = tl.where(below, south - 1 - row, row)
    inner = tl.where(above, 2 * rows - 1 - north - row, inner)
    return inner, below | above


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def pad_kernel(  # type: ignore[no-untyped-def]
    field, padded, rows, columns, channels, width, south, north, batch_stride, row_stride, column_stride,
    SILU: tl.constexpr, ROOM: tl.constexpr, PIXELS: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """Fills PIXELS cells of one row of the padded field; channels that are only room become 0."""
    wide = columns + 2 * width
    row = tl.program_id(0) % (rows + 2 * width)
    batch = (tl.program_id(0) // (rows + 2 * width)).to(tl.int64)
    column = tl.program_id(1) * PIXELS + tl.arange(0, PIXELS)
    channel = tl.program_id(2) * BLOCK + tl.arange(0, BLOCK)
    source, beyond = row_beyond(row - width, rows, south, north)
    meridian = (column - width + columns + tl.where(beyond, columns // 2, 0)) % columns
    inside = (column < wide)[:, None] & (channel < channels)
    place = batch * batch_stride + source * row_stride + meridian[:, None] * column_stride + channel
    value = tl.load(field + place, mask=inside, other=0.0)
    if SILU:
        wide_value = value.to(tl.float32)
        value = (wide_value * tl.sigmoid(wide_value)).to(value.dtype)
    target = ((batch * (rows + 2 * width) + row) * wide + column[:, None]) * ROOM + channel
    tl.store(padded + target, value.to(padded.dtype.element_ty), mask=(column < wide)[:, None] & (channel < ROOM))


def pad(
    field: Field, width: int, *, pole_rows: tuple[bool, bool], silu: bool, dtype: torch.dtype
) -> Float[Tensor, "batch aligned_channel lat_padded lon_padded"]:
    """Returns the field, or SiLU of it, continued across poles and meridian; channels are filled up with zeros."""
    field = channels_last(field)
    batch, channels, rows, columns = field.shape
    high, wide, room = rows + 2 * width, columns + 2 * width, aligned(channels)
    padded = torch.empty(batch, high, wide, room, dtype=dtype, device=field.device)
    block = min(triton.next_power_of_2(room), 256)
    grid = (batch * high, triton.cdiv(wide, 16), triton.cdiv(room, block))
    kernel: Any = pad_kernel
    with torch.cuda.device_of(field):  # Triton launches on the current GPU
        kernel[grid](
            field, padded, rows, columns, channels, width, *map(int, pole_rows), *_pixel_strides(field),
            SILU=silu, ROOM=room, PIXELS=16, BLOCK=block,
        )  # fmt: skip
    return padded.permute(0, 3, 1, 2)


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def taps(  # type: ignore[no-untyped-def]
    field, weight, bias, row, column, channel, inside, rows, columns, south, north, row_stride, column_stride,
    REACH: tl.constexpr, SILU: tl.constexpr, BIAS: tl.constexpr, MIRROR: tl.constexpr
):  # fmt: skip
    """Returns the depthwise convolution at cells of one row."""
    size: tl.constexpr = 2 * REACH + 1
    total = tl.zeros([column.shape[0], channel.shape[0]], tl.float32)
    if BIAS:
        total += tl.load(bias + channel, mask=inside, other=0.0).to(tl.float32)
    for i in tl.static_range(size):
        source, beyond = row_beyond(row + i - REACH, rows, south, north)
        half_turn = tl.where(beyond, columns // 2, 0)
        # In the outermost rows alone, what reaches beyond the pole runs westward, where weights were trained so.
        mirrored = beyond & ((row == 0) | (row == rows - 1))
        for j in tl.static_range(size):
            meridian = (column + (j - REACH) + columns + half_turn) % columns
            place = source * row_stride + meridian[:, None] * column_stride + channel
            value = tl.load(field + place, mask=inside, other=0.0).to(tl.float32)
            if SILU:
                value = value * tl.sigmoid(value)
            tap = i * size + (tl.where(mirrored, size - 1 - j, j) if MIRROR else j)
            total += value * tl.load(weight + channel * (size * size) + tap, mask=inside, other=0.0).to(tl.float32)
    return total


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def depthwise_kernel(  # type: ignore[no-untyped-def]
    field, weight, bias, out, rows, columns, channels, south, north, batch_stride, row_stride, column_stride,
    out_stride, REACH: tl.constexpr, GATED: tl.constexpr, SILU: tl.constexpr, BIAS: tl.constexpr,
    MIRROR: tl.constexpr, PIXELS: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """Convolves PIXELS cells of a row, channel by channel; GATED ones are multiplied by SiLU of those further on."""
    row = tl.program_id(0) % rows
    batch = (tl.program_id(0) // rows).to(tl.int64)
    column = tl.program_id(1) * PIXELS + tl.arange(0, PIXELS)
    channel = tl.program_id(2) * BLOCK + tl.arange(0, BLOCK)
    inside = (column < columns)[:, None] & (channel < channels)
    field += batch * batch_stride
    value = taps(
        field, weight, bias, row, column, channel, inside, rows, columns, south, north, row_stride, column_stride,
        REACH, SILU, BIAS, MIRROR,
    )  # fmt: skip
    if GATED:
        gate = taps(
            field, weight, bias, row, column, channel + channels, inside, rows, columns, south, north, row_stride,
            column_stride, REACH, SILU, BIAS, MIRROR,
        )  # fmt: skip
        value = value * gate * tl.sigmoid(gate)
    target = ((batch * rows + row) * columns + column[:, None]) * out_stride + channel
    tl.store(out + target, value.to(out.dtype.element_ty), mask=inside)


def depthwise(
    field: Field,
    weight: Float[Tensor, "channel 1 size size"],
    bias: Float[Tensor, " channel"] | None,
    *,
    pole_rows: tuple[bool, bool],
    mirrored: bool,
    silu: bool = False,
    gated: bool = False,
) -> Field:
    """Convolves each channel of a field, or of SiLU of it, with its own kernel.

    `gated`: of the results, the first half of the channels times SiLU of the second. `mirrored`: see `Poles.kernel`.
    """
    field = channels_last(field)
    batch, channels, rows, columns = field.shape
    channels = channels // 2 if gated else channels
    out = empty_field((batch, channels, rows, columns), field)
    block = min(triton.next_power_of_2(channels), 64)
    grid = (batch * rows, triton.cdiv(columns, 16), triton.cdiv(channels, block))
    kernel: Any = depthwise_kernel
    with torch.cuda.device_of(field):
        kernel[grid](
            field, weight.contiguous(), bias, out, rows, columns, channels, *map(int, pole_rows),
            *_pixel_strides(field), aligned(channels), REACH=weight.shape[-1] // 2, GATED=gated, SILU=silu,
            BIAS=bias is not None, MIRROR=mirrored, PIXELS=16, BLOCK=block,
        )  # fmt: skip
    return out


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def channel_norm_kernel(  # type: ignore[no-untyped-def]
    field, weight, bias, residual, out, cells, channels, rows, columns, batch_stride, row_stride, column_stride,
    r_batch, r_row, r_column, out_stride, eps, RESIDUAL: tl.constexpr, PIXELS: tl.constexpr,
    BLOCK: tl.constexpr
):  # fmt: skip
    """Divides PIXELS cells by the root mean square over their channels, scales, shifts, and adds the residual."""
    cell = tl.program_id(0).to(tl.int64) * PIXELS + tl.arange(0, PIXELS)
    channel = tl.arange(0, BLOCK)
    inside = (cell < cells)[:, None] & (channel < channels)
    batch, row, column = cell // (rows * columns), cell // columns % rows, cell % columns
    place = (batch * batch_stride + row * row_stride + column * column_stride)[:, None] + channel
    value = tl.load(field + place, mask=inside, other=0.0).to(tl.float32)
    unit = value * tl.rsqrt(tl.sum(value * value, axis=1) / channels + eps)[:, None]
    known = channel < channels
    scaled = unit * tl.load(weight + channel, mask=known, other=0.0).to(tl.float32)
    scaled += tl.load(bias + channel, mask=known, other=0.0).to(tl.float32)
    if RESIDUAL:
        r_place = (batch * r_batch + row * r_row + column * r_column)[:, None] + channel
        scaled += tl.load(residual + r_place, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + cell[:, None] * out_stride + channel, scaled.to(out.dtype.element_ty), mask=inside)


def channel_norm(field: Field, weight: Tensor, bias: Tensor, *, eps: float, residual: Field | None = None) -> Field:
    """Returns the norm over channels, plus the residual where there is one, in the dtype of the field."""
    field = channels_last(field)
    residual = None if residual is None else channels_last(residual)
    batch, channels, rows, columns = field.shape
    out = empty_field((batch, channels, rows, columns), field)
    cells, block = batch * rows * columns, triton.next_power_of_2(channels)
    pixels = max(4096 // block, 1)
    kernel: Any = channel_norm_kernel
    with torch.cuda.device_of(field):
        kernel[(triton.cdiv(cells, pixels),)](
            field, weight, bias, residual, out, cells, channels, rows, columns, *_pixel_strides(field),
            *_pixel_strides(field if residual is None else residual), aligned(channels), eps,
            RESIDUAL=residual is not None, PIXELS=pixels, BLOCK=block,
        )  # fmt: skip
    return out


def _pixel_strides(field: Field) -> tuple[int, int, int]:
    return field.stride(0), field.stride(2), field.stride(3)
