"""ALiBi: the published slopes, the dense formula, and nothing of the size of tokens x tokens."""

import inspect
import math
from typing import Any

import pytest
import torch

from ladcast.nn.position import TokenGrid, alibi_slopes


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
