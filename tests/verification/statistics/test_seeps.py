"""SEEPS: equitable for every climate, zero for a perfect forecast."""

import pytest
import torch

from ladcast.grid import Grid
from ladcast.verification.case import Area, Case
from ladcast.verification.regions import GLOBE
from ladcast.verification.statistics.seeps import seeps, seeps_scores, seeps_share

GRID = Grid.regular(8, 4)
SHAPE = (1, *GRID.shape)


def case(members: torch.Tensor, truth: torch.Tensor, dry: torch.Tensor) -> Case:
    weights = torch.from_numpy(GLOBE.weights(GRID))[None]
    area = Area(GRID, (GLOBE,), weights, torch.ones(SHAPE, dtype=torch.bool))
    return Case(members, truth, area, {"dry_fraction": dry, "wet_threshold": torch.full(SHAPE, 2e-3)})


def test_always_forecasting_one_category_scores_one() -> None:
    dry = torch.linspace(0.1, 0.85, 16, dtype=torch.float64)
    climate = torch.stack([dry, 2 * (1 - dry) / 3, (1 - dry) / 3])
    for category in range(3):
        torch.testing.assert_close((seeps_scores(dry)[category] * climate).sum(0), torch.ones_like(dry))


def test_categories_are_dry_light_and_heavy() -> None:
    dry = torch.full(SHAPE, 0.4)
    amounts = [torch.full(SHAPE, amount) for amount in (0.08e-3, 1e-3, 5e-3)]
    expected = seeps_scores(torch.tensor(0.4))
    for forecast, first in enumerate(amounts):
        for observed, second in enumerate(amounts):
            scored = case(first[None], second, dry)
            assert float(seeps(scored) / seeps_share(scored)) == pytest.approx(float(expected[forecast, observed]))


def test_dry_is_at_most_a_tenth_of_a_millimetre_in_six_hours() -> None:
    dry = torch.full(SHAPE, 0.4)
    scored = case(torch.full((1, *SHAPE), 0.2e-3), torch.zeros(SHAPE), dry)
    assert float(seeps(scored) / seeps_share(scored)) == pytest.approx(float(seeps_scores(torch.tensor(0.4))[1, 0]))


def test_members_are_averaged() -> None:
    dry = torch.full(SHAPE, 0.4)
    members = torch.stack([torch.zeros(SHAPE), torch.full(SHAPE, 5e-3)])
    scored = case(members, torch.zeros(SHAPE), dry)
    assert float(seeps(scored) / seeps_share(scored)) == pytest.approx(float(seeps_scores(torch.tensor(0.4))[2, 0]) / 2)


def test_deserts_and_rain_forests_are_left_out() -> None:
    dry = torch.full(SHAPE, 0.4)
    dry[..., :2] = 0.95
    dry[..., 2:4] = 0.05
    scored = case(torch.full((1, *SHAPE), 5e-3), torch.zeros(SHAPE), dry)
    assert float(seeps_share(scored) / scored.area.total) == pytest.approx(0.5)
    assert float(seeps(scored) / seeps_share(scored)) == pytest.approx(float(seeps_scores(torch.tensor(0.4))[2, 0]))


def test_a_variable_without_dry_fraction_is_nan() -> None:
    scored = case(torch.zeros(1, *SHAPE), torch.zeros(SHAPE), torch.full(SHAPE, torch.nan))
    assert seeps(scored).isnan().all()
    assert seeps_share(scored).isnan().all()
