"""GPU kernels in Triton for global fields: padding, depthwise convolution, attention, norm, shuffles, in one pass each.

They do what `pad_sphere`, a depthwise `SphericalConv2d`, `linear_attention`, `ChannelNorm`, `Upsample` and `Downsample`
do, for inference: none has a gradient. Fields lie in memory with their channels next to each other (channels-last), as
the tensor cores read them, with room for a multiple of `ALIGNMENT`. Import this module only where there is a GPU:
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

ALIGNMENT = 64
"""Channels that cuDNN's tiles take at once: 252 of them take 2.5 times as long as 256, 504 a fifth longer than 512."""

DEPTHWISE_TILE = (16, 32)
"""Cells of a row, and channels, that one program of the depthwise convolution makes."""

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
) -> Float[Tensor, "aligned_out aligned_in size size"]:
    """Returns weights in a precision, channels-last, filled up with zeros.

    The bias is the weight of a channel of ones behind the others: cuDNN would add it in a pass of its own.
    """
    outs, ins, *size = kernel.shape
    room = (aligned(outs), *size, aligned(ins + (bias is not None)))
    filled = torch.zeros(room, dtype=dtype, device=kernel.device).permute(0, 3, 1, 2)
    filled[:outs, :ins] = kernel
    if bias is not None:
        filled[:outs, ins, size[0] // 2, size[1] // 2] = bias
    return filled


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def row_beyond(row, rows, south, north):  # type: ignore[no-untyped-def]
    """Returns the row that lies at a row beyond a pole, and whether it does; a row on the pole is not repeated."""
    below, above = row < 0, row >= rows
    inner = tl.where(below, south - 1 - row, row)
    inner = tl.where(above, 2 * rows - 1 - north - row, inner)
    return inner, below | above


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def around(column, columns):  # type: ignore[no-untyped-def]
    """Returns a column from -columns to 2 columns - 1 as one of the globe; a remainder would take a division."""
    column = tl.where(column < 0, column + columns, column)
    return tl.where(column >= columns, column - columns, column)


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def pad_kernel(  # type: ignore[no-untyped-def]
    field, padded, rows, columns, channels, width, south, north, batch_stride, row_stride, column_stride,
    SILU: tl.constexpr, ONE: tl.constexpr, ROOM: tl.constexpr, PIXELS: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """Fills PIXELS cells of one row of the padded field; channels that are only room become 0, with ONE the first 1."""
    wide = columns + 2 * width
    row = tl.program_id(0) % (rows + 2 * width)
    batch = (tl.program_id(0) // (rows + 2 * width)).to(tl.int64)
    column = tl.program_id(1) * PIXELS + tl.arange(0, PIXELS)
    channel = tl.program_id(2) * BLOCK + tl.arange(0, BLOCK)
    source, beyond = row_beyond(row - width, rows, south, north)
    meridian = around(column - width + tl.where(beyond, columns // 2, 0), columns)
    inside = (column < wide)[:, None] & (channel < channels)
    place = batch * batch_stride + source * row_stride + meridian[:, None] * column_stride + channel
    value = tl.load(field + place, mask=inside, other=0.0)
    if SILU:
        wide_value = value.to(tl.float32)
        value = (wide_value * tl.sigmoid(wide_value)).to(value.dtype)
    if ONE:
        value = tl.where(channel == channels, 1.0, value)
    target = ((batch * (rows + 2 * width) + row) * wide + column[:, None]) * ROOM + channel
    tl.store(padded + target, value.to(padded.dtype.element_ty), mask=(column < wide)[:, None] & (channel < ROOM))


def pad(
    field: Field, width: int, *, pole_rows: tuple[bool, bool], silu: bool, one: bool, dtype: torch.dtype
) -> Float[Tensor, "batch aligned_channel lat_padded lon_padded"]:
    """Returns the field, or SiLU of it, continued across poles and meridian, in a precision.

    Channels are filled up with zeros, or with `one` and zeros; see `aligned_weights`.
    """
    field = channels_last(field)
    batch, channels, rows, columns = field.shape
    high, wide, room = rows + 2 * width, columns + 2 * width, aligned(channels + one)
    padded = torch.empty(batch, high, wide, room, dtype=dtype, device=field.device)
    block = min(triton.next_power_of_2(room), 256)
    grid = (batch * high, triton.cdiv(wide, 16), triton.cdiv(room, block))
    kernel: Any = pad_kernel
    with torch.cuda.device_of(field):  # Triton launches on the current GPU
        kernel[grid](
            field, padded, rows, columns, channels, width, *map(int, pole_rows), *_pixel_strides(field),
            SILU=silu, ONE=one, ROOM=room, PIXELS=16, BLOCK=block,
        )  # fmt: skip
    return padded.permute(0, 3, 1, 2)


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def taps(  # type: ignore[no-untyped-def]
    field, weight, bias, row, column, channel, inside, rows, columns, south, north, row_stride, column_stride,
    wide, REACH: tl.constexpr, BIAS: tl.constexpr, MIRROR: tl.constexpr
):  # fmt: skip
    """Returns the depthwise convolution at cells of one row."""
    size: tl.constexpr = 2 * REACH + 1
    total = tl.zeros([column.shape[0], channel.shape[0]], tl.float32)
    if BIAS:
        total += tl.load(bias + channel, mask=channel < wide, other=0.0).to(tl.float32)
    for i in tl.static_range(size):
        source, beyond = row_beyond(row + i - REACH, rows, south, north)
        half_turn = tl.where(beyond, columns // 2, 0)
        # In the outermost rows alone, what reaches beyond the pole runs westward, where weights were trained so.
        mirrored = beyond & ((row == 0) | (row == rows - 1))
        for j in tl.static_range(size):
            meridian = around(column + (j - REACH) + half_turn, columns)
            place = source * row_stride + meridian[:, None] * column_stride + channel
            value = tl.load(field + place, mask=inside, other=0.0).to(tl.float32)
            tap = i * size + (tl.where(mirrored, size - 1 - j, j) if MIRROR else j)
            total += value * tl.load(weight + tap * wide + channel, mask=channel < wide, other=0.0).to(tl.float32)
    return total


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def depthwise_kernel(  # type: ignore[no-untyped-def]
    field, weight, bias, out, rows, columns, channels, south, north, batch_stride, row_stride, column_stride,
    out_stride, wide, REACH: tl.constexpr, GATED: tl.constexpr, BIAS: tl.constexpr, MIRROR: tl.constexpr,
    PIXELS: tl.constexpr, BLOCK: tl.constexpr
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
        wide, REACH, BIAS, MIRROR,
    )  # fmt: skip
    if GATED:
        gate = taps(
            field, weight, bias, row, column, channel + channels, inside, rows, columns, south, north, row_stride,
            column_stride, wide, REACH, BIAS, MIRROR,
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
    gated: bool = False,
) -> Field:
    """Convolves each channel of a field with its own kernel.

    `gated`: of the results, the first half of the channels times SiLU of the second. `mirrored`: see `Poles.kernel`.
    """
    field = channels_last(field)
    batch, channels, rows, columns = field.shape
    channels = channels // 2 if gated else channels
    out = empty_field((batch, channels, rows, columns), field)
    pixels, most = DEPTHWISE_TILE
    block = min(triton.next_power_of_2(channels), most)
    grid = (batch * rows, triton.cdiv(columns, pixels), triton.cdiv(channels, block))
    by_tap = weight.flatten(1).T.to(field.dtype).contiguous()
    kernel: Any = depthwise_kernel
    with torch.cuda.device_of(field):
        kernel[grid](
            field, by_tap, bias, out, rows, columns, channels, *map(int, pole_rows), *_pixel_strides(field),
            aligned(channels), len(weight), REACH=weight.shape[-1] // 2, GATED=gated, BIAS=bias is not None,
            MIRROR=mirrored, PIXELS=pixels, BLOCK=block,
        )  # fmt: skip
    return out


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def linear_attention_kernel(  # type: ignore[no-untyped-def]
    groups, out, heads, batch_stride, cell_stride, group_stride, out_stride, first,
    CELLS: tl.constexpr, DIM: tl.constexpr, BLOCK: tl.constexpr, PRECISION: tl.constexpr
):  # fmt: skip
    """Lets all cells of one head of one field attend to each other; a head has groups of queries, keys and values."""
    batch, head = (tl.program_id(0) // heads).to(tl.int64), (tl.program_id(0) % heads).to(tl.int64)
    dim = tl.arange(0, DIM)
    queries = groups + batch * batch_stride + 3 * head * group_stride
    keys = queries + group_stride
    values = keys + group_stride
    moments, total = tl.zeros([DIM, DIM], tl.float32), tl.zeros([DIM], tl.float32)
    for start in range(0, CELLS, BLOCK):
        cell = start + tl.arange(0, BLOCK)
        place, inside = cell[:, None] * cell_stride + dim, (cell < CELLS)[:, None]
        key = tl.load(keys + place, mask=inside, other=0.0)
        key = tl.where(key < 0, 0.0, key).to(key.dtype)  # NaN stays, as it does in torch
        moments += tl.dot(tl.trans(key), tl.load(values + place, mask=inside, other=0.0), input_precision=PRECISION)
        total += tl.sum(key.to(tl.float32), axis=0)
    target = out + batch * CELLS * out_stride + first + head * DIM
    for start in range(0, CELLS, BLOCK):
        cell = start + tl.arange(0, BLOCK)
        inside = (cell < CELLS)[:, None]
        query = tl.load(queries + cell[:, None] * cell_stride + dim, mask=inside, other=0.0).to(tl.float32)
        query = tl.where(query < 0, 0.0, query)
        sums = tl.dot(query, moments, input_precision=PRECISION)
        mixed = sums / (tl.sum(query * total, axis=1) + 1e-15)[:, None]
        tl.store(target + cell[:, None] * out_stride + dim, mixed.to(out.dtype.element_ty), mask=inside)


def linear_attention(scales: Sequence[Float[Tensor, "batch lat lon group dim"]]) -> Field:
    """Returns `attention.linear_attention` of each scale, one behind the other in the channels of a field.

    The groups of a scale are the query, key and value of its first head, then of the next. A cell's vectors are
    contiguous and rows of cells follow each other.
    """
    batch, rows, columns, groups, dim = scales[0].shape
    heads, cells = groups // 3, rows * columns
    out = empty_field((batch, len(scales) * heads * dim, rows, columns), scales[0])
    # Half precision is exact in TF32 but for the moments; float32 is asked for where that is to be exact.
    precision = "ieee" if out.dtype == torch.float32 else "tf32"
    kernel: Any = linear_attention_kernel
    with torch.cuda.device_of(out):
        for number, scale in enumerate(scales):
            strides = scale.stride(0), scale.stride(2), scale.stride(3)
            kernel[(batch * heads,)](
                scale, out, heads, *strides, out.stride(3), number * heads * dim,
                CELLS=cells, DIM=dim, BLOCK=64, PRECISION=precision,
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


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def shuffle_kernel(  # type: ignore[no-untyped-def]
    made, field, out, rows, columns, channels, made_batch, made_row, made_column, batch_stride, row_stride,
    column_stride, out_stride, SHARE: tl.constexpr, UP: tl.constexpr, PIXELS: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """Makes PIXELS cells of a row: a pixel-shuffle (UP) or -unshuffle of what a convolution made, and a shortcut.

    The shortcut up repeats each channel of the field SHARE times, that down averages SHARE channels, before shuffling.
    """
    row, batch = tl.program_id(0) % rows, (tl.program_id(0) // rows).to(tl.int64)
    column = tl.program_id(1) * PIXELS + tl.arange(0, PIXELS)[:, None]
    channel = tl.program_id(2) * BLOCK + tl.arange(0, BLOCK)
    inside = (column < columns) & (channel < channels)
    made += batch * made_batch
    field += batch * batch_stride
    if UP:
        source = 4 * channel + 2 * (row % 2) + column % 2
        value = tl.load(made + row // 2 * made_row + column // 2 * made_column + source, mask=inside, other=0.0)
        place = row // 2 * row_stride + column // 2 * column_stride + source // SHARE
        value = value.to(tl.float32) + tl.load(field + place, mask=inside, other=0.0).to(tl.float32)
    else:
        place = (2 * row + channel // 2 % 2) * made_row + (2 * column + channel % 2) * made_column + channel // 4
        value = tl.load(made + place, mask=inside, other=0.0).to(tl.float32)
        total = tl.zeros([PIXELS, BLOCK], tl.float32)
        for number in tl.static_range(SHARE):
            source = channel * SHARE + number
            place = (2 * row + source // 2 % 2) * row_stride + (2 * column + source % 2) * column_stride + source // 4
            total += tl.load(field + place, mask=inside, other=0.0).to(tl.float32)
        value += total / SHARE
    target = ((batch * rows + row) * columns + column) * out_stride + channel
    tl.store(out + target, value.to(out.dtype.element_ty), mask=inside)


def shuffle(made: Field, field: Field, *, up: bool) -> Field:
    """Returns what `Upsample` and `Downsample` make of the convolution of a field, and of the field itself."""
    made, field = channels_last(made), channels_last(field)
    batch, width, rows, columns = made.shape
    channels, rows, columns = (width // 4, 2 * rows, 2 * columns) if up else (4 * width, rows // 2, columns // 2)
    share = width // field.shape[1] if up else 4 * field.shape[1] // channels
    out = empty_field((batch, channels, rows, columns), made)
    block = min(triton.next_power_of_2(channels), 256)
    kernel: Any = shuffle_kernel
    with torch.cuda.device_of(made):
        kernel[(batch * rows, triton.cdiv(columns, 8), triton.cdiv(channels, block))](
            made, field, out, rows, columns, channels, *_pixel_strides(made), *_pixel_strides(field),
            aligned(channels), SHARE=share, UP=up, PIXELS=8, BLOCK=block,
        )  # fmt: skip
    return out


def _pixel_strides(field: Field) -> tuple[int, int, int]:
    return field.stride(0), field.stride(2), field.stride(3)
