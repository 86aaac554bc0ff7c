"""What every position encoding promises: invariances, lengths, gradients, any size, one answer from both kernels."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from ladcast.grid import Grid
from ladcast.nn.attention import attend, dense_scores
from ladcast.nn.position import EncodingOptions, TokenGrid, build_position_encoding


def random_layer(grid: TokenGrid, *, heads: int = 2) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Draws queries, keys and values, and the embedded tokens of an encoding that looks at them."""
    generator, count = torch.Generator().manual_seed(0), len(grid.coordinates())
    query, key, value = torch.randn(3, 2, heads, count, 16, generator=generator)
    return query, key, value, torch.randn(2, count, heads * 16, generator=generator)


def test_scores_depend_on_differences_alone_where_promised(name: str, build: Any, scores_of: Any, grid: TokenGrid):
    encoding = build(name)
    moved = replace(grid, frames=grid.frames + 2, longitude=grid.longitude - 0.7)
    same = torch.allclose(scores_of(encoding, moved), scores_of(encoding, grid), atol=1e-4)
    assert same is encoding.relative


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["none", "geo", "geo_seamless", "relative_1", "relative_2", "relative_3", "relative_4"]
)
def test_rotary_and_tables_know_differences_of_latitude_alone(name: str, build: Any, scores_of: Any, grid: TokenGrid):
    moved = replace(grid, latitude=grid.latitude + 0.3)
    torch.testing.assert_close(scores_of(build(name), moved), scores_of(build(name), grid), atol=1e-4, rtol=0)


def test_whole_turns_do_not_matter_where_promised(name: str, build: Any, scores_of: Any, grid: TokenGrid):
    encoding = build(name)
    turns = torch.tensor([0.0, 0, 0, 1, 0, -1]) * 2 * math.pi
    turned = replace(grid, longitude=grid.longitude + turns)
    same = torch.allclose(scores_of(encoding, turned), scores_of(encoding, grid), atol=1e-4)
    assert same is encoding.seamless


def test_a_score_does_not_depend_on_the_grid_around_its_tokens(name: str, build: Any, scores_of: Any, grid: TokenGrid):
    encoding = build(name, awake=name != "carope")  # random tokens of CARoPE are other ones on another grid
    fine = replace(
        grid,
        latitude=torch.linspace(float(grid.latitude[0]), float(grid.latitude[-1]), 7),
        longitude=torch.linspace(float(grid.longitude[0]), float(grid.longitude[-1]), 11),
    )
    numbers = torch.arange(3 * 7 * 11).reshape(3, 7, 11)[:, ::2, ::2].flatten()
    among = scores_of(encoding, fine)[..., numbers[:, None], numbers]
    torch.testing.assert_close(among, scores_of(encoding, grid), atol=1e-4, rtol=0)


def test_rotations_keep_lengths(name: str, build: Any, grid: TokenGrid):
    query, _, _, tokens = random_layer(grid)
    torch.testing.assert_close(build(name)(grid, tokens).rotate(query).norm(dim=-1), query.norm(dim=-1))


def test_every_learned_number_and_every_token_gets_a_gradient(name: str, build: Any, grid: TokenGrid):
    encoding = build(name)
    query, key, value, tokens = (tensor.requires_grad_() for tensor in random_layer(grid))
    attend(query, key, value, encoding(grid, tokens)).square().sum().backward()
    learned = [*encoding.parameters(), query, key, value]
    assert all(tensor.grad is not None and tensor.grad.isfinite().all() and tensor.grad.any() for tensor in learned)


@pytest.mark.slow
@pytest.mark.parametrize("heads", [1, 3, 12])
@pytest.mark.parametrize("shape", [(1, 1, 1), (9, 2, 5), (2, 7, 12)])
def test_any_number_of_heads_frames_rows_and_columns(name: str, build: Any, heads: int, shape: tuple[int, int, int]):
    frames, rows, columns = shape
    grid = TokenGrid(
        torch.arange(float(frames)), torch.linspace(-1, 1, rows), torch.arange(columns) * (2 * math.pi / columns)
    )
    query, key, value, tokens = random_layer(grid, heads=heads)
    mixed = attend(query, key, value, build(name, heads=heads)(grid, tokens))
    assert mixed.shape == (2, frames * rows * columns, heads * 16)
    assert mixed.isfinite().all()


def test_unplaced_tokens_see_each_other_without_positions(name: str, build: Any, scores_of: Any, grid: TokenGrid):
    plain, encoding = build_position_encoding("none", EncodingOptions(2, (4, 6, 6))), build(name)
    scores = scores_of(encoding, grid, unplaced=24)
    nowhere = replace(grid, frames=torch.zeros(3))
    torch.testing.assert_close(scores[..., 48:, 48:], scores_of(plain, nowhere)[..., 48:, 48:], atol=1e-4, rtol=0)
    torch.testing.assert_close(scores[..., :48, :48], scores_of(encoding, grid)[..., :48, :48])


def test_area_weighting_averages_over_the_area_of_the_globe(grid: TokenGrid, build: Any):
    _, key, value, tokens = random_layer(grid)
    rows = Grid((-54.0, -18.0, 18.0, 54.0), (30.0, 90.0, 150.0, 210.0, 270.0, 330.0)).area_weights
    weight = torch.from_numpy(rows).float().repeat_interleave(6).repeat(3)
    mixed = attend(torch.zeros_like(key), key, value, build("geo", area_weighted=True)(grid, tokens))
    mean = (weight[:, None] * value).mean(dim=2, keepdim=True)
    torch.testing.assert_close(mixed, mean.expand_as(value).transpose(1, 2).flatten(2))


def test_area_weighting_adds_to_what_an_encoding_does(name: str, build: Any, scores_of: Any, grid: TokenGrid):
    weighted, plain = (scores_of(build(name, area_weighted=flag), grid) for flag in (True, False))
    torch.testing.assert_close(weighted - plain, grid.log_cell_area().expand_as(plain), atol=1e-4, rtol=0)


def test_tokens_run_over_time_then_latitude_then_longitude(grid: TokenGrid):
    coordinates = grid.coordinates()
    assert coordinates.shape == (72, 3)
    torch.testing.assert_close(coordinates[1], torch.tensor([1.0, math.radians(-54), math.radians(90)]))
    torch.testing.assert_close(coordinates[24], torch.tensor([2.0, math.radians(-54), math.radians(30)]))
    torch.testing.assert_close(grid.last_frames(1).coordinates(), coordinates[48:])


@pytest.mark.slow
def test_memory_can_be_counted_without_values(name: str, build: Any):
    with FakeTensorMode(allow_non_fake_inputs=True):
        grid = TokenGrid(torch.arange(2.0), torch.linspace(-1, 1, 4), torch.arange(6.0))
        positions = build(name)(grid, torch.randn(1, 48, 32))
        heads = positions.rotate(torch.randn(1, 2, 48, 16))
        scores = None if positions.scores is None else dense_scores(heads, heads, positions.scores(heads, heads))
    assert heads.shape == (1, 2, 48, 16)
    assert scores is None or scores.shape == (1, 2, 48, 48)


def test_an_unknown_name_lists_the_known():
    with pytest.raises(ValueError, match=r"geo_seamless.*got 'rope'"):
        build_position_encoding("rope", EncodingOptions(2, (4, 6, 6)))


def test_scores_are_scaled_before_they_are_changed(grid: TokenGrid):
    query, key, _, _ = random_layer(grid)
    scores = dense_scores(query, key, lambda score, *_: score + 1)
    torch.testing.assert_close(scores, query @ key.transpose(-1, -2) / 4 + 1)
