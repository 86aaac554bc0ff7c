"""Blocks of the two networks: transformer blocks on tokens, convolutional blocks on global fields."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ladcast.device import uses_kernels
from ladcast.nn.attention import MultiscaleLinearAttention, QueryKeyValue, attend_jointly
from ladcast.nn.embedding import MLP
from ladcast.nn.position import Positions, Tokens
from ladcast.nn.sphere import Pointwise, Poles, SphericalConv2d

PastTokens = Float[Tensor, "batch past_token features"]
ConditionFeatures = Float[Tensor, "batch features"]
Field = Float[Tensor, "batch channel lat lon"]


class Modulation(nn.Module):
    """Predicts `count` scales, shifts or gates from the condition; starts at zero (adaLN-zero)."""

    def __init__(self, dim: int, count: int) -> None:
        super().__init__()
        self.count = count
        self.linear = nn.Linear(dim, count * dim)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, condition: ConditionFeatures) -> tuple[Float[Tensor, "batch 1 features"], ...]:
        vectors: Tensor = self.linear(F.silu(condition))[:, None]
        return vectors.chunk(self.count, dim=-1)


def modulated_norm(tokens: Tokens, *, scale: Tensor, shift: Tensor) -> Tokens:
    """Normalises each token to mean 0 and variance 1, then returns norm * (1 + scale) + shift."""
    if uses_kernels(tokens):
        from ladcast.nn import token_kernels

        return token_kernels.modulated_norm(tokens.contiguous(), scale=scale, shift=shift, eps=1e-6)
    return F.layer_norm(tokens, tokens.shape[-1:], eps=1e-6) * (1 + scale) + shift


def gated_sum(tokens: Tokens, gate: Tensor, *changes: Tokens) -> Tokens:
    """Returns tokens + gate * (sum of the changes)."""
    if uses_kernels(tokens):
        from ladcast.nn import token_kernels

        return token_kernels.gated_sum(tokens.contiguous(), gate, *changes)
    change, *further = changes
    for other in further:
        change = change + other
    return tokens + gate * change


def gelu_of(linear: nn.Linear, tokens: Tokens) -> Tensor:
    """Returns GELU (tanh) of a linear map of the tokens: on a GPU cuBLAS applies it to what it has in registers."""
    if not uses_kernels(tokens) or tokens.dtype == torch.float32:
        return F.gelu(linear(tokens), approximate="tanh")
    weight, bias = linear.weight.to(tokens.dtype), linear.bias.to(tokens.dtype)
    made = torch._addmm_activation(bias, tokens.flatten(0, 1), weight.T, use_gelu=True)
    return torch.unflatten(made, 0, tokens.shape[:2])


class FeedForward(MLP):
    """Applies two linear maps with GELU (tanh) between them."""

    def forward(self, features: Tokens) -> Tokens:
        change: Tensor = self.outer(gelu_of(self.inner, features))
        return change


class Stream(nn.Module):
    """Holds the weights of one of the two streams of a dual-stream block."""

    def __init__(self, dim: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.modulation = Modulation(dim, 6)
        self.qkv = QueryKeyValue(dim, heads)
        self.to_out = nn.Linear(dim, dim)
        self.mlp = FeedForward(dim, mlp_ratio * dim, dim)


class DualStreamBlock(nn.Module):
    """Lets predicted and conditioning tokens attend jointly, each with weights of their own.

    From arXiv 2403.03206 (MM-DiT). `positions` lists the predicted tokens first.
    """

    def __init__(self, dim: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.future = Stream(dim, heads, mlp_ratio)
        self.past = Stream(dim, heads, mlp_ratio)

    def forward(
        self, future: Tokens, past: PastTokens, *, condition: ConditionFeatures, positions: Positions
    ) -> tuple[Tokens, PastTokens]:
        pairs = ((self.future, future), (self.past, past))
        modulations = [stream.modulation(condition) for stream, _ in pairs]
        streams = [
            (stream.qkv, modulated_norm(tokens, shift=shift, scale=scale))
            for (stream, tokens), (shift, scale, *_) in zip(pairs, modulations, strict=True)
        ]
        mixed = attend_jointly(streams, positions).tensor_split([future.shape[1]], dim=1)
        changed = []
        for (stream, tokens), message, modulation in zip(pairs, mixed, modulations, strict=True):
            attention_gate, shift, scale, mlp_gate = modulation[2:]
            # Of contiguous tokens, a product adds its bias itself.
            attended = gated_sum(tokens, attention_gate, stream.to_out(message.contiguous()))
            change = stream.mlp(modulated_norm(attended, shift=shift, scale=scale))
            changed.append(gated_sum(attended, mlp_gate, change))
        return changed[0], changed[1]


class SingleStreamBlock(nn.Module):
    """Runs attention and the feed-forward network side by side on all tokens (arXiv 2302.05442)."""

    def __init__(self, dim: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.modulation = Modulation(dim, 3)
        self.qkv = QueryKeyValue(dim, heads)
        self.mlp_in = nn.Linear(dim, mlp_ratio * dim)
        self.to_out = nn.Linear((1 + mlp_ratio) * dim, dim)

    def forward(self, tokens: Tokens, *, condition: ConditionFeatures, positions: Positions) -> Tokens:
        shift, scale, gate = self.modulation(condition)
        normed = modulated_norm(tokens, shift=shift, scale=scale)
        message = attend_jointly([(self.qkv, normed)], positions)
        hidden = gelu_of(self.mlp_in, normed)
        # Two products in place of one of the concatenation, which would be a copy of five times the tokens.
        to_out_message, to_out_hidden = self.to_out.weight.split([message.shape[-1], hidden.shape[-1]], dim=1)
        from_hidden = F.linear(hidden, to_out_hidden, self.to_out.bias)
        return gated_sum(tokens, gate, F.linear(message, to_out_message), from_hidden)


class RefinerBlock(nn.Module):
    """Prepares the conditioning tokens: attention and feed-forward network, gated by the condition."""

    def __init__(self, dim: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(dim, eps=1e-6)
        self.qkv = QueryKeyValue(dim, heads)
        self.norm_mlp = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = MLP(dim, mlp_ratio * dim, dim)
        self.gates = Modulation(dim, 2)

    def forward(self, tokens: Tokens, *, condition: ConditionFeatures, positions: Positions) -> Tokens:
        attention_gate, mlp_gate = self.gates(condition)
        tokens = tokens + attention_gate * attend_jointly([(self.qkv, self.norm_attention(tokens))], positions)
        change: Tensor = mlp_gate * self.mlp(self.norm_mlp(tokens))
        return tokens + change


class ChannelNorm(nn.Module):
    """Divides by the root mean square over channels, then scales and shifts each channel."""

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, field: Field, residual: Field | None = None) -> Field:
        """Returns the norm, plus a residual where one is given."""
        if uses_kernels(field):
            from ladcast.nn import field_kernels

            return field_kernels.channel_norm(field, self.weight, self.bias, eps=self.eps, residual=residual)
        wide = field.to(torch.promote_types(field.dtype, torch.float32))
        unit = wide * torch.rsqrt(wide.square().mean(dim=1, keepdim=True) + self.eps)
        scaled = (unit * self.weight[:, None, None] + self.bias[:, None, None]).to(field.dtype)
        return scaled if residual is None else residual + scaled


class ResidualBlock(nn.Module):
    """Adds conv, SiLU, conv, norm to its input."""

    def __init__(self, channels: int, *, poles: Poles) -> None:
        super().__init__()
        self.conv_in = SphericalConv2d(channels, channels, poles=poles)
        self.conv_out = SphericalConv2d(channels, channels, bias=False, poles=poles)
        self.norm = ChannelNorm(channels)

    def forward(self, field: Field) -> Field:
        changed: Tensor = self.norm(self.conv_out(self.conv_in(field), silu=True), field)
        return changed


class GatedConv(nn.Module):
    """Expands channels, mixes neighbours per channel, gates one half by the other (arXiv 2410.10629)."""

    EXPANSION = 4

    def __init__(self, channels: int, *, poles: Poles) -> None:
        super().__init__()
        wide = 2 * self.EXPANSION * channels
        self.expand = Pointwise(channels, wide, 1)
        self.depthwise = SphericalConv2d(wide, wide, groups=wide, poles=poles)
        self.project = Pointwise(wide // 2, channels, 1, bias=False)
        self.norm = ChannelNorm(channels)

    def forward(self, field: Field) -> Field:
        gated = self.depthwise(self.expand(field), silu=True, gated=True)
        changed: Tensor = self.norm(self.project(gated), field)
        return changed


class EfficientViTBlock(nn.Module):
    """Adds multiscale linear attention, then a gated convolution (EfficientViT, arXiv 2205.14756)."""

    def __init__(self, channels: int, head_dim: int, *, kernels: tuple[int, ...], poles: Poles) -> None:
        super().__init__()
        self.attention = MultiscaleLinearAttention(channels, head_dim, kernels=kernels, poles=poles)
        self.attention_norm = ChannelNorm(channels)
        self.mlp = GatedConv(channels, poles=poles)

    def forward(self, field: Field) -> Field:
        mixed: Tensor = self.mlp(self.attention_norm(self.attention(field), field))
        return mixed


def blocks(model: nn.Module) -> Iterator[nn.Module]:
    """Yields the blocks of a network: the units that are compiled, sharded over GPUs, recomputed and given to Muon."""
    kinds = (DualStreamBlock, EfficientViTBlock, RefinerBlock, ResidualBlock, SingleStreamBlock)
    return (module for module in model.modules() if isinstance(module, kinds))
