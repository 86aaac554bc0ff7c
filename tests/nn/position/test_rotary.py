"""Rotary encodings: the published angles, and CARoPE that starts from them."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.linalg import expm
from scipy.spatial.transform import Rotation as Turn

from ladcast.nn.position import EncodingOptions, GeoRotary, TokenGrid, build_position_encoding
from ladcast.nn.position.rotary import SphericalRotary, wigner_generators


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


OPTIONS = EncodingOptions(1, (4, 14, 14))
"""Degrees 1 to 4 fill 24 of the 28 dimensions for latitude and longitude."""


@pytest.fixture
def encoding() -> SphericalRotary:
    return SphericalRotary(OPTIONS)


def frames_of(grid: TokenGrid) -> Turn:
    """Returns R_z(longitude) R_y(colatitude) of every token."""
    _, latitude, longitude = grid.coordinates().double().numpy().T
    return Turn.from_euler("ZY", np.stack([longitude, np.pi / 2 - latitude], axis=-1))


def wigner(degree: int, turn: Turn) -> np.ndarray:
    """Returns D^l of a rotation from its axis and angle."""
    return expm(np.einsum("a,aij->ij", turn.as_rotvec(), np.stack(wigner_generators(degree))))


def matrices(encoding: SphericalRotary, grid: TokenGrid) -> np.ndarray:
    """Returns the matrix that each token's heads are multiplied by."""
    count = len(grid.coordinates())
    unit = torch.eye(encoding.options.head_dim)[:, None, None].expand(-1, -1, count, -1)
    rotated = encoding(grid, torch.zeros(1, count, encoding.options.head_dim)).rotate(unit)
    return rotated[:, 0].permute(1, 2, 0).numpy()


def test_generators_are_those_of_rotations():
    for degree in (1, 2, 5):
        about_x, about_y, about_z = wigner_generators(degree)
        np.testing.assert_allclose(about_x @ about_y - about_y @ about_x, about_z, atol=1e-12)
        np.testing.assert_allclose(about_y, -about_y.T, atol=1e-12)


def test_degree_one_is_the_rotation_itself(encoding: SphericalRotary, grid: TokenGrid):
    block = encoding.block(1)
    np.testing.assert_allclose(matrices(encoding, grid)[:, block][:, :, block], frames_of(grid).as_matrix(), atol=1e-5)


def test_blocks_are_orthogonal_and_apart(encoding: SphericalRotary, grid: TokenGrid):
    turns = matrices(encoding, grid)
    np.testing.assert_allclose(turns @ turns.transpose(0, 2, 1), np.broadcast_to(np.eye(32), turns.shape), atol=1e-5)
    apart = np.ones((32, 32), bool)
    for block in ([0, 1], [2, 3], *(encoding.block(degree) for degree in (1, 2, 3, 4))):
        apart[np.ix_(block, block)] = False
    np.fill_diagonal(apart, False)
    assert np.abs(turns[:, apart]).max() < 1e-6


def test_blocks_are_wigner_matrices(encoding: SphericalRotary, grid: TokenGrid):
    turns = matrices(encoding, grid)
    for degree in (1, 2, 3, 4):
        block = encoding.block(degree)
        for token in (0, 8, 23):
            expected = wigner(degree, frames_of(grid)[token])
            np.testing.assert_allclose(turns[token][np.ix_(block, block)], expected, atol=1e-5)


def test_scores_depend_on_the_relative_rotation_alone(encoding: SphericalRotary, grid: TokenGrid):
    turns, frames = matrices(encoding, grid), frames_of(grid)
    for degree, first, second in ((1, 0, 9), (2, 3, 22), (4, 17, 5)):
        block = encoding.block(degree)
        product = (turns[first].T @ turns[second])[np.ix_(block, block)]
        relative = frames[first].inv() * frames[second]
        np.testing.assert_allclose(product, wigner(degree, relative), atol=1e-5)


def test_poles_have_no_longitude_but_a_direction(encoding: SphericalRotary):
    pole = TokenGrid(torch.zeros(1), torch.tensor([0.0, np.pi / 2]), torch.tensor([0.0, 1.0]))
    block = encoding.block(1)
    up = matrices(encoding, pole)[:, block][:, :, block][..., 2]
    np.testing.assert_allclose(up[2:], [[0, 0, 1], [0, 0, 1]], atol=1e-6)
    assert abs(up[0] - up[1]).max() > 0.1


def test_too_few_dimensions_are_named():
    with pytest.raises(ValueError, match=r"at least 4 head dimensions.*got 2"):
        build_position_encoding("spherical", EncodingOptions(1, (4, 2, 0)))
