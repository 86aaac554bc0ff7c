"""Blocks: new ones start as the identity where they should, and every weight learns."""

import pytest
import torch
from torch import nn

from ladcast.nn.block import (
    ChannelNorm,
    DualStreamBlock,
    EfficientViTBlock,
    GatedConv,
    RefinerBlock,
    ResidualBlock,
    SingleStreamBlock,
)
from ladcast.nn.position import Positions
from ladcast.nn.sphere import Poles

TOKENS, CONDITION = torch.randn(2, 6, 16), torch.randn(2, 16)


def wake(block: nn.Module) -> nn.Module:
    """Replaces every weight by a random one, so that no gate is closed."""
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.3)
    return block


@pytest.mark.parametrize("kind", [SingleStreamBlock, RefinerBlock])
def test_token_blocks_start_as_identity_and_learn_everywhere(kind: type[nn.Module]) -> None:
    block = kind(16, 2, 4)
    assert torch.equal(block(TOKENS, condition=CONDITION, positions=Positions()), TOKENS)
    wake(block)(TOKENS, condition=CONDITION, positions=Positions()).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in block.parameters())


def test_dual_stream_block_starts_as_identity_and_exchanges_information() -> None:
    block, past = DualStreamBlock(16, 2, 4), torch.randn(2, 3, 16, requires_grad=True)
    out_future, out_past = block(TOKENS, past, condition=CONDITION, positions=Positions())
    assert torch.equal(out_future, TOKENS)
    assert torch.equal(out_past, past)
    out_future, out_past = wake(block)(TOKENS, past, condition=CONDITION, positions=Positions())
    (gradient,) = torch.autograd.grad(out_future.sum(), past, retain_graph=True)
    assert gradient.abs().sum() > 0
    (out_future.square().sum() + out_past.square().sum()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in block.parameters())


@pytest.mark.parametrize(
    "block",
    [
        ResidualBlock(8, poles=Poles()),
        GatedConv(8, poles=Poles(kernel="mirrored_outermost")),
        EfficientViTBlock(8, 4, kernels=(5,), poles=Poles()),
    ],
    ids=lambda block: type(block).__name__,
)
def test_field_blocks_turn_with_the_field_and_learn_everywhere(block: nn.Module) -> None:
    field = torch.randn(2, 8, 6, 8)
    torch.testing.assert_close(block(field.roll(3, -1)), block(field).roll(3, -1), atol=1e-5, rtol=1e-4)
    block(field).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in block.parameters())


def test_channel_norm_gives_unit_mean_square_in_any_precision() -> None:
    field = 100 * torch.randn(2, 8, 3, 4)
    torch.testing.assert_close(ChannelNorm(8)(field).square().mean(dim=1), torch.ones(2, 3, 4))
    half = ChannelNorm(8)(field.bfloat16())
    assert half.dtype is torch.bfloat16
    torch.testing.assert_close(half.float(), ChannelNorm(8)(field), atol=0.05, rtol=0.02)
