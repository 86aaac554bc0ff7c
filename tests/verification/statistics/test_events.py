"""Scores of probabilities from a table of events: definitions, decompositions and limits."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr

from ladcast.grid import Grid
from ladcast.verification import Climatology, ScoreOptions, fit_climatology, score
from ladcast.verification import case as case_module
from ladcast.verification.case import GLOBE, REGIONS, Case
from ladcast.verification.crps import moments
from ladcast.verification.statistics.distances import rank_histogram
from ladcast.verification.statistics.events import (
    COST_LOSS,
    base_rate,
    brier,
    economic_value,
    event_table,
    fair_brier,
    observed_frequency,
    reliability,
    resolution,
    tail_difference,
    tail_error,
)

MEMBERS = 8


def table_of(counts: np.ndarray, happened: np.ndarray) -> np.ndarray:
    table = np.zeros((1, 2, MEMBERS + 1))
    np.add.at(table[0], (happened.astype(int), counts), 1 / counts.size)
    return table


@pytest.fixture
def cases() -> tuple[np.ndarray, np.ndarray]:
    """Calibrated members: they and the truth are drawn with one probability, which varies."""
    random = np.random.default_rng(0)
    chance = random.random(200_000) ** 2
    return random.binomial(MEMBERS, chance), random.random(chance.size) < chance


def test_brier_is_the_mean_square(cases: tuple[np.ndarray, np.ndarray]) -> None:
    counts, happened = cases
    np.testing.assert_allclose(brier(table_of(*cases)), ((counts / MEMBERS - happened) ** 2).mean())


def test_brier_is_reliability_minus_resolution_plus_uncertainty(cases: tuple[np.ndarray, np.ndarray]) -> None:
    table = table_of(*cases)
    rate = base_rate(table)
    np.testing.assert_allclose(brier(table), reliability(table) - resolution(table) + rate * (1 - rate))


def test_fair_brier_does_not_depend_on_the_number_of_members(cases: tuple[np.ndarray, np.ndarray]) -> None:
    counts, happened = cases
    random = np.random.default_rng(1)
    fewer = random.hypergeometric(counts, MEMBERS - counts, 3)  # three members drawn from the eight
    small = np.zeros((1, 2, 4))
    np.add.at(small[0], (happened.astype(int), fewer), 1 / counts.size)
    np.testing.assert_allclose(fair_brier(small), fair_brier(table_of(*cases)), rtol=0.02)
    assert brier(small) > 1.1 * brier(table_of(*cases))


def test_fair_brier_needs_two_members() -> None:
    assert np.isnan(fair_brier(np.ones((3, 1, 2, 2)) / 4)).all()


def test_observed_frequency_is_nan_where_nothing_was_forecast(cases: tuple[np.ndarray, np.ndarray]) -> None:
    counts, happened = cases
    kept = counts != 3
    curve = observed_frequency(table_of(counts[kept], happened[kept]))[0]
    assert np.isnan(curve[3])
    assert (np.diff(np.delete(curve, 3)) > 0).all()


def test_a_perfect_forecast_has_all_the_value_and_the_base_rate_none() -> None:
    happened = np.arange(100) % 10 == 0
    np.testing.assert_allclose(economic_value(table_of(MEMBERS * happened, happened))[0], 1)
    np.testing.assert_allclose(economic_value(table_of(np.full(100, 3), happened))[0], 0, atol=1e-12)


def test_value_is_largest_where_cost_over_loss_is_the_base_rate(cases: tuple[np.ndarray, np.ndarray]) -> None:
    table = table_of(*cases)
    value = economic_value(table)[0]
    assert abs(COST_LOSS[int(value.argmax())] - base_rate(table)[0]) < 0.05
    assert ((value > -1e-9) & (value <= 1)).all()


def test_no_table_is_nan() -> None:
    for function in (brier, reliability, resolution, economic_value):
        assert np.isnan(function(np.full((1, 2, 4), np.nan))).all()


def test_histograms_and_tables_hold_all_the_area(case: Case) -> None:
    total = case.area.total
    torch.testing.assert_close(rank_histogram(case).sum(-1), total)
    torch.testing.assert_close(event_table(case).sum((-2, -1)), total[..., None].expand(2, 2, 2))


def test_events_lie_beyond_the_quantile_on_its_own_side(case: Case) -> None:
    rate = event_table(case)[0, :, :, 1].sum(-1) / case.area.total[0, :, None]
    np.testing.assert_allclose(rate, 0.1, atol=0.02)
    forecast = event_table(case)[0].sum(-2) / case.area.total[0, :, None, None]
    np.testing.assert_allclose((forecast * torch.linspace(0, 1, 8)).sum(-1), 0.1, atol=0.02)


def test_a_quantile_of_a_masked_cell_does_not_matter(case: Case) -> None:
    present = case.area.present.clone()
    present[0, 3, 4] = False
    masked = replace(case, area=replace(case.area, present=present))
    quantiles = case.climate["quantiles"].clone()
    quantiles[1, 0, 3, 4] = torch.nan
    partial = replace(masked, climate={"quantiles": quantiles})
    torch.testing.assert_close(event_table(partial), event_table(masked), rtol=0, atol=0)


GRID = Grid.regular(60, 30)
SHAPE = (2, *GRID.shape)
REGION_PAIR = (GLOBE, REGIONS["tropics"])


def test_tails_beyond_everything_score_nothing_and_within_everything_the_crps(case: Case) -> None:
    far = torch.tensor([-50.0, 50.0], dtype=torch.float64).reshape(2, 1, 1, 1).expand(2, *SHAPE)
    nothing = Case(case.members, case.truth, case.area, {"quantiles": far}, (0.1, 0.9))
    assert not tail_error(nothing).any()
    everything = Case(case.members, case.truth, case.area, {"quantiles": -far}, (0.1, 0.9))
    for tail, field in ((tail_error, case.moments.member_error), (tail_difference, case.moments.member_difference)):
        whole = case.area.sum(field)
        torch.testing.assert_close(tail(everything), whole[..., None].expand(2, 2, 2))


def test_a_level_whose_quantile_is_not_known_has_no_score(case: Case) -> None:
    """One cell is enough: a perfect Brier score would be the alternative."""
    quantiles = case.climate["quantiles"].clone()
    quantiles[1, 0, 3, 4] = torch.nan
    partial = replace(case, climate={"quantiles": quantiles})
    for statistic in (event_table, tail_error, tail_difference):
        found, expected = statistic(partial), statistic(case)
        assert found[:, 0, 1].isnan().all()
        for known in ((0, 0), (1, 0), (1, 1)):
            torch.testing.assert_close(found[:, *known], expected[:, *known], rtol=0, atol=0)


def test_tails_are_computed_once_and_in_the_precision_of_the_members(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr(case_module, "moments", lambda *fields: calls.append(fields) or moments(*fields))
    single = replace(case, members=case.members.float(), truth=case.truth.float())
    tail_error(single)
    tail_difference(single)
    assert [members.dtype for members, _ in calls] == [torch.float32] * 2


@pytest.mark.slow
def test_a_climatology_with_quantiles_gives_every_score(forecast: xr.Dataset, truth: xr.Dataset, make_states) -> None:
    years = np.arange("2003-01-01", "2004-01-01", dtype="datetime64[D]").astype("datetime64[ns]")
    climatology = Climatology(fit_climatology(make_states(3, time=years), days=91, step=30, quantiles=(0.1, 0.9)))
    options = ScoreOptions(("default", "events", "tails", "ranks"), ("globe", "tropics"))
    metrics = score(forecast, truth, climatology=climatology, options=options).metrics("tropics")
    assert metrics["quantile"].values.tolist() == [0.1, 0.9]
    np.testing.assert_allclose(metrics["count"], np.linspace(0, 1, 6))
    for name in ("brier", "fair_brier", "reliability", "economic_value", "tail_crps", "rank_frequency"):
        assert np.isfinite(metrics[name].sel(channel="z500")).all(), name
    np.testing.assert_allclose(metrics["base_rate"].sel(channel="t850").mean(), 0.1, atol=0.06)
