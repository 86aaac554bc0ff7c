"""Attention over tokens (with positions) and linear attention over a global field."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn import functional as F

from ladcast.device import compiles, uses_kernels
from ladcast.nn.position import Heads, Positions, Rotation, ScoreMod, Tokens
from ladcast.nn.sphere import CELL_CENTRED, Pointwise, Poles, SphericalConv2d

LEAST_FLEX_DIM = 16
KERNEL_DIMS = (16, 32, 64, 128, 256)
"""Sizes of heads that the GPU kernel of queries and keys takes."""
LINEAR_KERNEL_DIMS = (16, 32, 64)
"""Those of linear attention, whose moments (dim x dim) a program keeps in registers."""

Fused = Float[Tensor, "batch token 3 head dim"]
"""Queries, keys and values of each token, one after another."""


class HeadNorm(nn.RMSNorm):
    """Divides each head's vector by its root mean square, in the precision of the vector."""

    def forward(self, heads: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        # torch's own module mixes bf16 heads with fp32 weights under autocast, which loses the fused kernel.
        return F.rms_norm(heads, self.normalized_shape, self.weight.to(heads.dtype), self.eps)


class QueryKeyValue(nn.Module):
    """Projects tokens to queries, keys and values per head; queries and keys are RMS-normalised."""

    EPS = 1e-6

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_qkv = nn.Linear(dim, 3 * dim)
        self.norm_q = HeadNorm(dim // heads, eps=self.EPS)
        self.norm_k = HeadNorm(dim // heads, eps=self.EPS)

    def forward(self, tokens: Tokens) -> tuple[Heads, Heads, Heads]:
        query, key, value = self.fused(tokens).permute(2, 0, 3, 1, 4)
        return self.norm_q(query), self.norm_k(key), value

    def fused(self, tokens: Tokens) -> Fused:
        """Returns the three as they are projected, beside each other and not yet normalised."""
        return torch.unflatten(self.to_qkv(tokens), -1, (3, self.heads, -1))


Streams = Sequence[tuple[QueryKeyValue, Float[Tensor, "batch _ features"]]]
"""Tokens of each stream, with what projects them."""


def attend_jointly(streams: Streams, positions: Positions) -> Float[Tensor, "batch all_tokens features"]:
    """Lets the tokens of all streams attend to each other, one stream's after the other's in `positions`."""
    rotation, dim = positions.lone_rotation, streams[0][0].norm_q.normalized_shape[0]
    if rotation is not None and dim in KERNEL_DIMS and uses_kernels(streams[0][1]):
        return attend(*_rotated(streams, rotation), replace(positions, rotations=()))
    parts = [projection(tokens) for projection, tokens in streams]
    query, key, value = parts[0] if len(parts) == 1 else (torch.cat(part, dim=2) for part in zip(*parts, strict=True))
    return attend(query, key, value, positions)


def _rotated(streams: Streams, rotation: Rotation) -> tuple[Heads, Heads, Heads]:
    """Normalises and rotates in one pass over what is projected, in place where there is one stream."""
    from ladcast.nn.token_kernels import query_key

    parts = [projection.fused(tokens) for projection, tokens in streams]
    batch, _, *sizes = parts[0].shape
    joint = parts[0] if len(parts) == 1 else parts[0].new_empty(batch, sum(part.shape[1] for part in parts), *sizes)
    first = 0
    for (projection, _), part in zip(streams, parts, strict=True):
        norms = (projection.norm_q.weight, projection.norm_k.weight)
        query_key(part, joint, first=first, norms=norms, rotation=(rotation.cos, rotation.sin), eps=projection.EPS)
        first += part.shape[1]
    query, key, value = joint.permute(2, 0, 3, 1, 4)
    return query, key, value


def attend(query: Heads, key: Heads, value: Heads, positions: Positions) -> Tokens:
    """Attends with queries and keys rotated to their positions and scores changed by them, and joins the heads."""
    query, key = positions.rotate(query).to(value.dtype), positions.rotate(key).to(value.dtype)
    if positions.scores is None:
        mixed = F.scaled_dot_product_attention(query, key, value)
    else:
        # FlexAttention has no gradient on a CPU, no kernel for smaller heads, and no arithmetic to count without data.
        fused = query.is_cuda and query.shape[-1] >= LEAST_FLEX_DIM and not isinstance(query, FakeTensor)
        fused = fused and (torch.compiler.is_compiling() or compiles(query.device))
        scored_attention = flex_attention if fused else dense_attention
        mixed = scored_attention(query, key, value, positions.scores(query, key))
    return mixed.transpose(1, 2).flatten(2)


def dense_attention(query: Heads, key: Heads, value: Heads, score_mod: ScoreMod) -> Heads:
    """Returns softmax(score_mod(q.k / sqrt(d))) v: the reference of `flex_attention`, with all scores in memory."""
    return dense_scores(query, key, score_mod).softmax(dim=-1).to(value.dtype) @ value


def dense_scores(query: Heads, key: Heads, score_mod: ScoreMod) -> Float[Tensor, "batch head token token"]:
    """Returns score_mod(q.k / sqrt(d)) of every pair of tokens, in float32 or better."""
    products = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
    scores = products.to(torch.promote_types(products.dtype, torch.float32))
    batch, head, i, j = (torch.arange(size, device=query.device) for size in scores.shape)
    return score_mod(scores, batch[:, None, None, None], head[:, None, None], i[:, None], j)


def flex_attention(query: Heads, key: Heads, value: Heads, score_mod: ScoreMod) -> Heads:
    """Computes `dense_attention` on a GPU in one kernel, which torch compiles at the first call; no score is stored."""
    # Within a network that is compiled as a whole it becomes a part of that.
    operator = _flex_operator() if torch.compiler.is_compiling() else _compiled_flex_operator()
    # Layers differ in the strides of their values alone: one layout keeps torch from compiling for each of them.
    mixed: Heads = operator(query.contiguous(), key.contiguous(), value.contiguous(), score_mod=score_mod)
    return mixed


def _flex_operator() -> Callable[..., Any]:
    from torch.nn.attention.flex_attention import flex_attention  # loads torch's compiler

    return flex_attention


@cache
def _compiled_flex_operator() -> Callable[..., Any]:
    return torch.compile(_flex_operator())


class GroupedPointwise(nn.Conv2d):
    """Mixes the channels of each group; on a GPU by one batch of products, where cuDNN loops over groups."""

    def forward(self, field: Float[Tensor, "batch channel lat lon"]) -> Float[Tensor, "batch out lat lon"]:
        if not field.is_cuda:
            return super().forward(field)
        return self.by_group(field).flatten(-2).permute(0, 3, 1, 2)

    def by_group(self, field: Float[Tensor, "batch channel lat lon"]) -> Float[Tensor, "batch lat lon group out"]:
        """Returns the channels of each group apart."""
        matrices = self.weight.reshape(self.groups, -1, self.weight.shape[1])
        mixed: Tensor = torch.einsum("bxygi,goi->bxygo", groups_of(field, self.groups), matrices)
        return mixed


def groups_of(field: Float[Tensor, "batch channel lat lon"], count: int) -> Float[Tensor, "batch lat lon group dim"]:
    """Returns a view of a field whose channels are cut into groups."""
    return torch.unflatten(field.permute(0, 2, 3, 1), -1, (count, -1))


class MultiscaleLinearAttention(nn.Module):
    """Attends over all cells of a field at linear cost, at several scales (EfficientViT, arXiv 2205.14756).

    A depthwise convolution of each size in `kernels` aggregates the queries, keys and values of a further
    scale. With phi = ReLU: out_i = sum_j phi(q_i).phi(k_j) v_j / sum_j phi(q_i).phi(k_j).
    """

    def __init__(
        self, channels: int, head_dim: int, *, kernels: tuple[int, ...] = (), poles: Poles = CELL_CENTRED
    ) -> None:
        super().__init__()
        self.head_dim = head_dim
        heads = channels // head_dim
        inner = heads * head_dim
        self.to_qkv = Pointwise(channels, 3 * inner, 1, bias=False)
        self.scales = nn.ModuleList(
            nn.Sequential(
                SphericalConv2d(3 * inner, 3 * inner, kernel_size=kernel, groups=3 * inner, bias=False, poles=poles),
                GroupedPointwise(3 * inner, 3 * inner, 1, groups=3 * heads, bias=False),
            )
            for kernel in kernels
        )
        self.to_out = Pointwise(inner * (1 + len(kernels)), channels, 1, bias=False)

    def forward(self, field: Float[Tensor, "batch channel lat lon"]) -> Float[Tensor, "batch channel lat lon"]:
        qkv = self.to_qkv(field)
        mixed = self._by_kernel(qkv) if self.head_dim in LINEAR_KERNEL_DIMS and uses_kernels(field) else self._mix(qkv)
        answer: Tensor = self.to_out(mixed)
        return answer

    def _mix(self, qkv: Tensor) -> Tensor:
        scales = torch.cat([qkv, *(aggregate(qkv) for aggregate in self.scales)], dim=1)
        query, key, value = torch.unflatten(scales.flatten(2), 1, (-1, 3, self.head_dim)).unbind(2)
        mixed = linear_attention(query, key, value).to(qkv.dtype)
        return mixed.reshape(len(qkv), -1, *qkv.shape[-2:])

    def _by_kernel(self, qkv: Tensor) -> Tensor:
        from ladcast.nn.field_kernels import linear_attention

        scales = [groups_of(qkv, qkv.shape[1] // self.head_dim)]
        for aggregate in self.scales:
            around, between = cast(nn.Sequential, aggregate)
            scales.append(cast(GroupedPointwise, between).by_group(around(qkv)))
        return linear_attention(scales)


def linear_attention(
    query: Float[Tensor, "batch head dim cell"],
    key: Float[Tensor, "batch head dim cell"],
    value: Float[Tensor, "batch head dim cell"],
) -> Float[Tensor, "batch head dim cell"]:
    """Averages values with weights ReLU(q).ReLU(k), in float32 or better: the sums span the whole globe."""
    dtype = torch.promote_types(value.dtype, torch.float32)
    with torch.autocast(value.device.type, enabled=False):
        query, key, value = F.relu(query.to(dtype)), F.relu(key.to(dtype)), value.to(dtype)
        moments = F.pad(value, (0, 0, 0, 1), value=1.0) @ key.transpose(-1, -2)
        sums = moments @ query
        return sums[:, :, :-1] / (sums[:, :, -1:] + 1e-15)
