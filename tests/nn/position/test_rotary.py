"""Rotary encodings: the published angles, and CARoPE that starts from them."""

import math
from typing import Any

import torch

from ladcast.nn.position import GeoRotary, TokenGrid


def test_geo_angles_are_the_published_ones(build: Any):
    encoding = build("geo")
    assert isinstance(encoding, GeoRotary)
    angles = encoding.angles(torch.tensor([[2.0, 0.5, 1.5]]))
    expected = [2 * 256 ** (-i / 2) for i in range(2)]
    expected += [6 * 0.5 * 256 ** (-i / 3) for i in range(3)] + [1.5 * 256 ** (-i / 3) for i in range(3)]
    torch.testing.assert_close(angles[0], torch.tensor(expected))


def test_unplaced_tokens_keep_their_heads(build: Any, grid: TokenGrid):
    heads = torch.randn(1, 2, 72, 16)
    rotated = build("geo")(grid, torch.zeros(1, 72, 32), unplaced=24).rotate(heads)
    assert torch.equal(rotated[:, :, 48:], heads[:, :, 48:])
    assert not torch.allclose(rotated[:, :, :48], heads[:, :, :48])


def test_carope_starts_as_geo(build: Any, scores_of: Any, grid: TokenGrid):
    tokens = torch.randn(2, 72, 32)
    (context,), (published,) = (build(name, awake=False)(grid, tokens).rotations for name in ("carope", "geo"))
    torch.testing.assert_close(context.cos, published.cos.expand(2, 2, -1, -1), atol=1e-5, rtol=0)
    torch.testing.assert_close(context.sin, published.sin.expand(2, 2, -1, -1), atol=1e-5, rtol=0)


def test_carope_turns_by_powers_of_a_frequency_of_the_token(build: Any, grid: TokenGrid):
    encoding, tokens, token, head = build("carope"), torch.randn(1, 72, 32), 40, 1
    (rotation,) = encoding(grid, tokens).rotations
    angles = []
    scaled = grid.coordinates()[token] * torch.tensor([1.0, 6.0, 1.0])
    for axis, (coordinate, dim) in enumerate(zip(scaled.tolist(), (4, 6, 6), strict=True)):
        row = 2 * axis + head  # frequencies lie by axis, then head
        raw = float((tokens[0, token] @ encoding.weight[row] + encoding.bias[row]).detach())
        frequency = 1 / (math.log1p(math.exp(raw)) + 1)
        assert 0 < frequency < 1
        angles += [coordinate * frequency**i for i in range(dim // 2)]
    torch.testing.assert_close(rotation.cos[0, head, token], torch.tensor(angles).cos(), atol=1e-5, rtol=0)


def test_carope_keeps_its_precision_in_bfloat16(build: Any, grid: TokenGrid):
    encoding, tokens = build("carope"), torch.randn(1, 72, 32).bfloat16()
    (expected,) = encoding(grid, tokens.float()).rotations
    with torch.autocast("cpu", torch.bfloat16):
        (rotation,) = encoding(grid, tokens).rotations
    torch.testing.assert_close(rotation.cos, expected.cos, atol=1e-5, rtol=0)
