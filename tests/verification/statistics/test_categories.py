"""Ranked probability scores have known answers: 1 of the truth, 0 of the climatology; and SEEPS."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr

from ladcast.grid import Grid
from ladcast.verification import Climatology, ScoreOptions, fit_climatology, score
from ladcast.verification.case import GLOBE, Area, Case
from ladcast.verification.statistics import METRICS
from ladcast.verification.statistics.categories import (
    category_chance,
    category_climate,
    category_score,
    category_share,
    seeps,
    seeps_scores,
    seeps_share,
)

QUINTILES = (0.2, 0.4, 0.6, 0.8)
SUMS = {f.__name__: f for f in (category_score, category_chance, category_climate, category_share)}


def quintile_case(members: torch.Tensor, truth: torch.Tensor) -> Case:
    """A case of numbers whose climate is uniform within 0 and 1."""
    grid = Grid.regular(60, 30)
    shape = (1, *grid.shape)
    edges = torch.tensor(QUINTILES).double().reshape(4, 1, 1, 1).expand(4, *shape)
    weights = torch.from_numpy(GLOBE.weights(grid))[None]
    area = Area(grid, (GLOBE,), weights, torch.ones(shape, dtype=torch.bool))
    return Case(
        members.expand(-1, *shape).double(), truth.expand(*shape).double(), area, {"quantiles": edges}, QUINTILES
    )


def metric(name: str, case: Case) -> float:
    means = {
        sums: (reduce(case) / case.area.total).numpy() for sums, reduce in SUMS.items() if sums in METRICS[name].needs
    }
    return float(METRICS[name].compute(means, len(case.members)).item())


@pytest.fixture
def drawn(generator: torch.Generator) -> Case:
    """Five members and the truth, drawn from the climate."""
    numbers = torch.rand(6, 1, 30, 60, generator=generator)
    return quintile_case(numbers[1:], numbers[0])


def test_the_truth_has_a_skill_of_one_and_the_score_zero(drawn: Case) -> None:
    perfect = replace(drawn, members=drawn.truth[None])
    assert metric("rpss", perfect) == 1
    assert metric("rps", perfect) == 0


def test_the_climatology_has_a_skill_of_zero_whatever_comes_true(drawn: Case) -> None:
    one_in_each_category = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9]).reshape(5, 1, 1, 1)
    climatology = quintile_case(one_in_each_category, drawn.truth)
    assert metric("rpss", climatology) == pytest.approx(0, abs=1e-12)


def test_members_drawn_from_the_climate_lose_one_over_their_number_and_none_when_fair(drawn: Case) -> None:
    """Mueller et al. (2005), doi:10.1175/JCLI3361.1: RPSS = -1 / M of M members without skill."""
    assert metric("rpss", drawn) == pytest.approx(-1 / 5, abs=0.02)
    assert metric("fair_rpss", drawn) == pytest.approx(0, abs=0.02)


def test_a_forecast_two_categories_off_is_worse_than_one_off() -> None:
    truth, near, far = (torch.full((1, 1, 1), value) for value in (0.1, 0.3, 0.5))
    scores = [metric("rps", quintile_case(member[None], truth)) for member in (truth, near, far)]
    assert scores == [0, 1, 2]


def test_where_all_quantiles_are_one_nothing_counts(drawn: Case) -> None:
    edges = drawn.climate["quantiles"].clone()
    edges[:, :, :15] = 0.0
    half = replace(drawn, climate={"quantiles": edges})
    assert float(category_share(half) / half.area.total) == pytest.approx(0.5)
    perfect = replace(half, members=half.truth[None])
    assert metric("rpss", perfect) == 1


def test_a_level_whose_quantile_is_not_known_has_no_skill(drawn: Case) -> None:
    edges = drawn.climate["quantiles"].clone()
    edges[2, 0, 3, 4] = torch.nan
    partial = replace(drawn, climate={"quantiles": edges})
    assert all(reduce(partial).isnan().all() for reduce in SUMS.values())


@pytest.mark.slow
def test_the_scorer_gives_the_skill_of_the_truth_and_of_members(
    forecast: xr.Dataset, truth: xr.Dataset, make_states
) -> None:
    years = np.arange("2003-01-01", "2004-01-01", dtype="datetime64[D]").astype("datetime64[ns]")
    climatology = Climatology(fit_climatology(make_states(3, time=years), days=91, step=30, quantiles=QUINTILES))
    options = ScoreOptions(("categories",))
    members = score(forecast, truth, climatology=climatology, options=options).metrics()
    assert (members["fair_rpss"] > members["rpss"]).all()
    one = score(forecast.isel(number=0, drop=True), truth, climatology=climatology, options=options).metrics()
    assert "rpss" in one
    assert "fair_rpss" not in one


RAIN_GRID = Grid.regular(8, 4)
RAIN_SHAPE = (1, *RAIN_GRID.shape)


def rain_case(members: torch.Tensor, truth: torch.Tensor, dry: torch.Tensor) -> Case:
    weights = torch.from_numpy(GLOBE.weights(RAIN_GRID))[None]
    area = Area(RAIN_GRID, (GLOBE,), weights, torch.ones(RAIN_SHAPE, dtype=torch.bool))
    return Case(members, truth, area, {"dry_fraction": dry, "wet_threshold": torch.full(RAIN_SHAPE, 2e-3)})


@pytest.mark.slow
def test_always_forecasting_one_category_scores_one() -> None:
    dry = torch.linspace(0.1, 0.85, 16, dtype=torch.float64)
    climate = torch.stack([dry, 2 * (1 - dry) / 3, (1 - dry) / 3])
    for category in range(3):
        torch.testing.assert_close((seeps_scores(dry)[category] * climate).sum(0), torch.ones_like(dry))


def test_categories_are_dry_light_and_heavy() -> None:
    dry = torch.full(RAIN_SHAPE, 0.4)
    amounts = [torch.full(RAIN_SHAPE, amount) for amount in (0.08e-3, 1e-3, 5e-3)]
    expected = seeps_scores(torch.tensor(0.4))
    for forecast, first in enumerate(amounts):
        for observed, second in enumerate(amounts):
            scored = rain_case(first[None], second, dry)
            assert float(seeps(scored) / seeps_share(scored)) == pytest.approx(float(expected[forecast, observed]))


def test_dry_is_at_most_a_tenth_of_a_millimetre_in_six_hours() -> None:
    dry = torch.full(RAIN_SHAPE, 0.4)
    scored = rain_case(torch.full((1, *RAIN_SHAPE), 0.2e-3), torch.zeros(RAIN_SHAPE), dry)
    assert float(seeps(scored) / seeps_share(scored)) == pytest.approx(float(seeps_scores(torch.tensor(0.4))[1, 0]))


def test_members_are_averaged() -> None:
    dry = torch.full(RAIN_SHAPE, 0.4)
    members = torch.stack([torch.zeros(RAIN_SHAPE), torch.full(RAIN_SHAPE, 5e-3)])
    scored = rain_case(members, torch.zeros(RAIN_SHAPE), dry)
    assert float(seeps(scored) / seeps_share(scored)) == pytest.approx(float(seeps_scores(torch.tensor(0.4))[2, 0]) / 2)


def test_deserts_and_rain_forests_are_left_out() -> None:
    dry = torch.full(RAIN_SHAPE, 0.4)
    dry[..., :2] = 0.95
    dry[..., 2:4] = 0.05
    scored = rain_case(torch.full((1, *RAIN_SHAPE), 5e-3), torch.zeros(RAIN_SHAPE), dry)
    assert float(seeps_share(scored) / scored.area.total) == pytest.approx(0.5)
    assert float(seeps(scored) / seeps_share(scored)) == pytest.approx(float(seeps_scores(torch.tensor(0.4))[2, 0]))


def test_a_variable_without_dry_fraction_is_nan() -> None:
    scored = rain_case(torch.zeros(1, *RAIN_SHAPE), torch.zeros(RAIN_SHAPE), torch.full(RAIN_SHAPE, torch.nan))
    assert seeps(scored).isnan().all()
    assert seeps_share(scored).isnan().all()
