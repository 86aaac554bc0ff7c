"""Relative tables: the formulas of the paper written out, and offsets that wrap and clip; ALiBi, its dense formula."""

import inspect
import math
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from ladcast.nn.attention import dense_scores
from ladcast.nn.position import TokenGrid, alibi_slopes


def layer() -> tuple[Tensor, Tensor]:
    return tuple(torch.randn(2, 2, 2, 72, 16, generator=torch.Generator().manual_seed(0)))


def changed(encoding: Any, grid: TokenGrid) -> Tensor:
    query, key = layer()
    return dense_scores(query, key, encoding(grid, torch.zeros(2, 72, 32)).scores(query, key)).detach()


def offset(i: int, j: int) -> tuple[int, int, int]:
    """Returns the offset from token i to token j in frames (of 1, 2, 0), rows and columns, columns in 0 .. 5."""
    (t, y, x), (u, v, w) = (list(product((1, 2, 0), range(4), range(6)))[token] for token in (i, j))
    return u - t, v - y, (w - x) % 6


def rows_apart(grid: TokenGrid) -> TokenGrid:
    """Puts rows as far apart as columns, so that offsets in rows are whole."""
    return TokenGrid(grid.frames, torch.tensor([-90.0, -30, 30, 90]).deg2rad(), grid.longitude)


@pytest.mark.parametrize("name", ["relative_1", "relative_2", "relative_3", "relative_4"])
def test_new_tables_change_nothing(name: str, build: Any, grid: TokenGrid):
    query, key = layer()
    plain = query @ key.transpose(-1, -2) / 4
    torch.testing.assert_close(changed(build(name, awake=False), grid), plain, atol=1e-5, rtol=1e-4)


def test_method_2_scales_by_signed_offset(build: Any, grid: TokenGrid):
    (query, key), encoding = layer(), build("relative_2")
    scores = changed(encoding, rows_apart(grid))
    for i, j in ((0, 0), (3, 50), (71, 2), (30, 29)):
        frames, rows, columns = offset(i, j)
        scale = 1 + encoding.change[:, frames + 4, rows + 3, columns]
        torch.testing.assert_close(scores[:, :, i, j], (query[:, :, i] * key[:, :, j]).sum(-1) / 4 * scale)


def test_method_1_scales_by_absolute_offset(build: Any, grid: TokenGrid):
    (query, key), encoding = layer(), build("relative_1")
    scores = changed(encoding, rows_apart(grid))
    for i, j in ((0, 0), (3, 50), (50, 3), (71, 2), (30, 29)):
        frames, rows, columns = offset(i, j)
        scale = 1 + encoding.change[:, abs(frames), abs(rows), min(columns, 6 - columns)]
        torch.testing.assert_close(scores[:, :, i, j], (query[:, :, i] * key[:, :, j]).sum(-1) / 4 * scale)


@pytest.mark.parametrize("name", ["relative_1", "relative_2", "relative_3", "relative_4"])
@pytest.mark.parametrize("refinement", [1, 2, 3])
def test_offsets_alone_count_also_between_whole_ones(name: str, refinement: int, build: Any):
    """On a grid of half the spacing, half of the offsets lie between two entries of a table."""
    count = 6 * refinement
    longitude = torch.arange(count) * (2 * torch.pi / count) + 0.1
    rows = torch.linspace(-1.2, 1.2, 4 * refinement)
    encoding = build(name)
    frames, in_rows, columns = encoding.offsets(TokenGrid(torch.tensor([1.0, 2, 0]), rows, longitude))
    assert (columns == columns.roll((1, 1), (0, 1))).all()
    assert (in_rows[1:, 1:] == in_rows[:-1, :-1]).all()
    assert (frames.diagonal() == frames[0, 0]).all()
    if name == "relative_1":
        assert (columns == columns.T).all()
        assert (in_rows == in_rows.T).all()


def vectors(encoding: Any) -> Tensor:
    """Lists a_ij of every pair of tokens, [72, 72, 16]."""
    entries = []
    for i, j in product(range(72), repeat=2):
        frames, rows, columns = offset(i, j)
        entries.append(encoding.frames[frames + 4] + encoding.rows[rows + 3] + encoding.columns[columns])
    return torch.stack(entries).unflatten(0, (72, 72))


@pytest.mark.slow
def test_method_3_weighs_every_dimension_by_offset(build: Any, grid: TokenGrid):
    (query, key), encoding = layer(), build("relative_3")
    expected = torch.einsum("bhid,bhjd,ijd->bhij", query, key, 1 + vectors(encoding)) / 4
    torch.testing.assert_close(changed(encoding, rows_apart(grid)), expected, atol=1e-4, rtol=1e-4)


def test_method_4_adds_its_two_products(build: Any, grid: TokenGrid):
    (query, key), encoding = layer(), build("relative_4")
    a = vectors(encoding)
    of_query, of_key = torch.einsum("bhid,ijd->bhij", query, a), torch.einsum("bhjd,ijd->bhij", key, a)
    expected = (query @ key.transpose(-1, -2) + of_query + of_key) / 4
    torch.testing.assert_close(changed(encoding, rows_apart(grid)), expected, atol=1e-4, rtol=1e-4)


def test_frames_beyond_the_table_count_as_its_last(build: Any, grid: TokenGrid):
    encoding = build("relative_2")
    apart = [
        changed(encoding, TokenGrid(torch.tensor([0.0, last, 1.0]), grid.latitude, grid.longitude))
        for last in (4.0, 15.0)
    ]
    torch.testing.assert_close(apart[0][..., :24, 24:48], apart[1][..., :24, 24:48])


def test_slopes_of_a_power_of_two_halve_geometrically():
    assert alibi_slopes(8) == [2.0**-h for h in range(1, 9)]
    assert alibi_slopes(16) == [2 ** (-h / 2) for h in range(1, 17)]


def test_slopes_of_other_numbers_are_filled_up_from_the_doubled_set():
    assert alibi_slopes(12) == [2.0**-h for h in range(1, 9)] + [2 ** (-h / 2) for h in (1, 3, 5, 7)]
    assert alibi_slopes(6) == [2 ** (-2.0 * h) for h in range(1, 5)] + [2.0**-1, 2.0**-3]
    assert alibi_slopes(1) == [2.0**-8]


@pytest.mark.parametrize("heads", [2, 12])
def test_scores_are_those_of_the_dense_formula(build: Any, scores_of: Any, grid: TokenGrid, heads: int):
    time, latitude, longitude = grid.coordinates().double().unbind(-1)
    points = torch.stack([latitude.cos() * longitude.cos(), latitude.cos() * longitude.sin(), latitude.sin()], dim=-1)
    angle = (points @ points.T).clamp(-1, 1).arccos()
    distance = angle / math.radians(60) + (time[:, None] - time).abs()
    slopes = torch.tensor(alibi_slopes(heads), dtype=torch.float64)[:, None, None]
    plain = scores_of(build("none", heads=heads), TokenGrid(torch.zeros(3), grid.latitude, grid.longitude))
    expected = plain[0] - slopes * distance
    torch.testing.assert_close(scores_of(build("alibi", heads=heads), grid)[0].double(), expected, atol=1e-5, rtol=1e-4)


def test_distances_of_near_and_opposite_tokens_are_accurate(build: Any, scores_of: Any):
    tiny = 1e-4
    grid = TokenGrid(torch.zeros(1), torch.tensor([0.0, tiny]), torch.tensor([0.0, math.pi]))
    encoding, plain = build("alibi"), build("none")
    distance = (scores_of(plain, grid) - scores_of(encoding, grid))[0, 0] / alibi_slopes(2)[0] * math.radians(60)
    assert distance[0, 0].abs() < 1e-6
    assert distance[0, 2].item() == pytest.approx(tiny, rel=0.02)
    assert distance[0, 1].item() == pytest.approx(math.pi, rel=1e-3)


def test_nothing_of_the_size_of_tokens_by_tokens_is_kept(build: Any, grid: TokenGrid):
    scores = build("alibi")(grid, torch.zeros(1, 72, 32)).scores
    heads = torch.zeros(1, 2, 72, 16)
    held = [cell.cell_contents for cell in inspect.unwrap(scores(heads, heads)).__closure__]
    assert max(tensor.numel() for tensor in held if isinstance(tensor, torch.Tensor)) == 72
