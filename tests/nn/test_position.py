"""Position encodings: relative, closed around the globe where promised, and the published angles."""

import math

import pytest
import torch

from ladcast.nn.position import (
    POSITION_ENCODINGS,
    PositionEncoding,
    build_position_encoding,
    evenly_spaced_radians,
    token_coordinates,
)

AXES = (4, 6, 6)


def build(name: str) -> PositionEncoding:
    return build_position_encoding(name, 2, axes_dim=AXES, theta=256.0)


def logits(encoding: PositionEncoding, coordinates: torch.Tensor) -> torch.Tensor:
    """Returns the products of one query and one key, rotated to every pair of tokens."""
    generator = torch.Generator().manual_seed(1)
    query, key = torch.randn(2, 1, 2, 1, sum(AXES), generator=generator)
    positions = encoding(coordinates)
    count = len(coordinates)
    rotated = [positions.rotate(heads.expand(-1, -1, count, -1)) for heads in (query, key)]
    return rotated[0] @ rotated[1].transpose(-1, -2)


@pytest.mark.parametrize("name", sorted(POSITION_ENCODINGS))
def test_logits_depend_on_differences_alone(name: str) -> None:
    coordinates = torch.rand(5, 3, generator=torch.Generator().manual_seed(0))
    moved = coordinates + torch.tensor([2.0, 0.3, -0.7])
    torch.testing.assert_close(logits(build(name), moved), logits(build(name), coordinates), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", sorted(POSITION_ENCODINGS))
def test_rotation_keeps_lengths_and_gradients(name: str) -> None:
    heads = torch.randn(1, 2, 5, sum(AXES), requires_grad=True)
    rotated = build(name)(torch.rand(5, 3)).rotate(heads)
    torch.testing.assert_close(rotated.norm(dim=-1), heads.norm(dim=-1))
    rotated.square().sum().backward()
    assert heads.grad is not None
    torch.testing.assert_close(heads.grad, 2 * heads.detach())


@pytest.mark.parametrize(("name", "closes"), [("geo_seamless", True), ("none", True), ("geo", False)])
def test_only_whole_frequencies_close_around_the_globe(name: str, closes: bool) -> None:
    here = torch.tensor([[0.0, 0.4, 0.2], [1.0, -0.1, 3.0]])
    once_around = here + torch.tensor([[0.0, 0.0, 2 * math.pi], [0.0, 0.0, 0.0]])
    same = torch.allclose(logits(build(name), here), logits(build(name), once_around), atol=1e-4)
    assert same is closes


def test_geo_angles_are_the_published_ones() -> None:
    angles = build("geo").angles(torch.tensor([[2.0, 0.5, 1.5]]))
    assert angles is not None
    expected = [2 * 256 ** (-i / 2) for i in range(2)]
    expected += [6 * 0.5 * 256 ** (-i / 3) for i in range(3)] + [1.5 * 256 ** (-i / 3) for i in range(3)]
    torch.testing.assert_close(angles[0], torch.tensor(expected))


def test_unrotated_tokens_keep_their_heads() -> None:
    heads = torch.randn(1, 2, 5, sum(AXES))
    rotated = build("geo")(torch.rand(5, 3) + 1, unrotated=2).rotate(heads)
    assert torch.equal(rotated[:, :, 3:], heads[:, :, 3:])
    assert not torch.allclose(rotated[:, :, :3], heads[:, :, :3])


def test_coordinates_run_over_time_then_latitude_then_longitude() -> None:
    latitude = evenly_spaced_radians(-60.0, 60.0, 2, torch.zeros(1))
    longitude = evenly_spaced_radians(0.0, 270.0, 4, torch.zeros(1))
    coordinates = token_coordinates(torch.tensor([1.0, 2.0]), latitude, longitude)
    assert coordinates.shape == (16, 3)
    torch.testing.assert_close(coordinates[1], torch.tensor([1.0, -math.pi / 3, math.pi / 2]))
    torch.testing.assert_close(coordinates[12], torch.tensor([2.0, math.pi / 3, 0.0]))


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(ValueError, match=r"geo_seamless.*got 'rope'"):
        build("rope")
