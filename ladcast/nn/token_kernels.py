"""GPU kernels in Triton for the tokens of a transformer: each reads and writes them once, rounding once.

They do what `modulated_norm`, `gated_sum` and `QueryKeyValue` with `Rotation` do, for inference: none has a gradient.
Import this module only where there is a GPU: Triton comes with PyTorch's CUDA wheels and with no other.
"""

from __future__ import annotations

from typing import Any

import torch
import triton  # type: ignore[import-not-found, unused-ignore]
import triton.language as tl  # type: ignore[import-not-found, unused-ignore]
from jaxtyping import Float
from torch import Tensor


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def modulated_norm_kernel(  # type: ignore[no-untyped-def]
    tokens, scale, shift, out, tokens_each, dim, scale_stride, shift_stride, eps, BLOCK: tl.constexpr
):  # fmt: skip
    """Normalises one token, then scales and shifts it by the vectors of its row of the batch."""
    token = tl.program_id(0).to(tl.int64)
    row = token // tokens_each
    feature = tl.arange(0, BLOCK)
    inside = feature < dim
    value = tl.load(tokens + token * dim + feature, mask=inside, other=0.0).to(tl.float32)
    mean = tl.sum(value) / dim
    departure = tl.where(inside, value - mean, 0.0)
    unit = departure * tl.rsqrt(tl.sum(departure * departure) / dim + eps)
    factor = 1 + tl.load(scale + row * scale_stride + feature, mask=inside, other=0.0).to(tl.float32)
    offset = tl.load(shift + row * shift_stride + feature, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + token * dim + feature, (unit * factor + offset).to(out.dtype.element_ty), mask=inside)


def modulated_norm(
    tokens: Float[Tensor, "batch token features"], *, scale: Tensor, shift: Tensor, eps: float
) -> Float[Tensor, "batch token features"]:
    """Returns norm * (1 + scale) + shift of contiguous tokens in their dtype; both are `batch 1 features`."""
    batch, count, dim = tokens.shape
    out = torch.empty_like(tokens)
    kernel: Any = modulated_norm_kernel
    strides = (scale.stride(0), shift.stride(0))
    with torch.cuda.device_of(tokens):  # Triton launches on the current GPU
        kernel[(batch * count,)](
            tokens, scale, shift, out, count, dim, *strides, eps, BLOCK=triton.next_power_of_2(dim), num_warps=8
        )
    return out


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def gated_sum_kernel(  # type: ignore[no-untyped-def]
    tokens, gate, change, further, out, tokens_each, dim, gate_stride, FURTHER: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """Adds to one token its changes, each feature by the gate of its row of the batch."""
    token = tl.program_id(0).to(tl.int64)
    feature = tl.arange(0, BLOCK)
    inside = feature < dim
    place = token * dim + feature
    total = tl.load(change + place, mask=inside, other=0.0).to(tl.float32)
    if FURTHER:
        total += tl.load(further + place, mask=inside, other=0.0).to(tl.float32)
    factor = tl.load(gate + token // tokens_each * gate_stride + feature, mask=inside, other=0.0).to(tl.float32)
    value = tl.load(tokens + place, mask=inside, other=0.0).to(tl.float32) + factor * total
    tl.store(out + place, value.to(out.dtype.element_ty), mask=inside)


def gated_sum(
    tokens: Float[Tensor, "batch token features"],
    gate: Float[Tensor, "batch 1 features"],
    *changes: Float[Tensor, "batch token features"],
) -> Float[Tensor, "batch token features"]:
    """Returns tokens + gate * (sum of one or two changes) in the dtype of the tokens, all contiguous but the gate."""
    batch, count, dim = tokens.shape
    out = torch.empty_like(tokens)
    kernel: Any = gated_sum_kernel
    with torch.cuda.device_of(tokens):
        kernel[(batch * count,)](
            tokens, gate, changes[0], changes[-1], out, count, dim, gate.stride(0),
            FURTHER=len(changes) > 1, BLOCK=triton.next_power_of_2(dim), num_warps=8,
        )  # fmt: skip
    return out


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def query_key_kernel(  # type: ignore[no-untyped-def]
    fused, out, norm_q, norm_k, cos, sin, count, first, places, heads, eps, COPY: tl.constexpr,
    HEADS: tl.constexpr, DIM: tl.constexpr
):  # fmt: skip
    """Normalises and rotates the queries (part 0) or keys (part 1) of all heads of one token; copies values (part 2).

    Tokens of a row of the batch are `count` in `fused` and `places` in `out`, where they begin with place `first`.
    """
    token = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    place = first + token % count
    head, dim, pair = tl.arange(0, HEADS), tl.arange(0, DIM), tl.arange(0, DIM // 2)
    cell = head[:, None] * DIM + dim
    inside = (head < heads)[:, None]
    size = heads * DIM
    vectors = tl.load(fused + (token * 3 + part) * size + cell, mask=inside, other=0.0)
    target = out + ((token // count * places + place) * 3 + part) * size + cell
    if COPY and part == 2:
        tl.store(target, vectors, mask=inside)
    else:
        value = vectors.to(tl.float32)
        weight = tl.load((norm_q if part == 0 else norm_k) + dim).to(tl.float32)
        value = value * tl.rsqrt(tl.sum(value * value, axis=1) / DIM + eps)[:, None] * weight
        even, odd = tl.split(tl.reshape(value, (HEADS, DIM // 2, 2)))
        cosine, sine = tl.load(cos + place * (DIM // 2) + pair), tl.load(sin + place * (DIM // 2) + pair)
        turned = tl.join(even * cosine - odd * sine, odd * cosine + even * sine)
        tl.store(target, tl.reshape(turned, (HEADS, DIM)).to(out.dtype.element_ty), mask=inside)


def query_key(
    fused: Float[Tensor, "batch token 3 head dim"],
    out: Float[Tensor, "batch place 3 head dim"],
    *,
    first: int,
    norms: tuple[Tensor, Tensor],
    rotation: tuple[Float[Tensor, "place pair"], Float[Tensor, "place pair"]],
    eps: float,
) -> None:
    """Puts normalised, rotated queries and keys, and the values, into `out` from place `first` on.

    All are contiguous, and a head has a power of two dimensions. `out` may be `fused` itself: values then stay.
    `norms` holds the weights of the RMS norm of queries and keys, `rotation` the cosines and sines of each place.
    """
    batch, count, _, heads, dim = fused.shape
    copy = out is not fused
    kernel: Any = query_key_kernel
    with torch.cuda.device_of(fused):
        kernel[(batch * count, 2 + copy)](
            fused,
            out,
            *norms,
            *rotation,
            count,
            first,
            out.shape[1],
            heads,
            eps,
            COPY=copy,
            HEADS=triton.next_power_of_2(heads),
            DIM=dim,
        )
