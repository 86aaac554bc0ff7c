"""Ranks, events and tails through the scorer: calibrated members, ties, and the sides of quantiles."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr

from ladcast.grid import Grid
from ladcast.verification import Climatology, ScoreOptions, fit_climatology, score
from ladcast.verification import case as case_module
from ladcast.verification.case import Area, Case
from ladcast.verification.crps import moments
from ladcast.verification.probability import event_table, rank_histogram, tail_difference, tail_error
from ladcast.verification.regions import GLOBE, REGIONS

GRID = Grid.regular(60, 30)
SHAPE = (2, *GRID.shape)
REGION_PAIR = (GLOBE, REGIONS["tropics"])


@pytest.fixture
def case(generator: torch.Generator) -> Case:
    """Members and truth from one distribution, with its exact quantiles as the climatology."""
    drawn = torch.randn(8, *SHAPE, generator=generator, dtype=torch.float64)
    weights = torch.from_numpy(np.stack([region.weights(GRID) for region in REGION_PAIR]))
    area = Area(GRID, REGION_PAIR, weights, torch.ones(SHAPE, dtype=torch.bool))
    quantiles = torch.tensor([-1.2816, 1.2816]).double().reshape(2, 1, 1, 1).expand(2, *SHAPE)
    return Case(drawn[1:], drawn[0], area, {"quantiles": quantiles}, (0.1, 0.9))


def test_calibrated_members_have_a_flat_histogram(case: Case) -> None:
    frequency = rank_histogram(case) / case.area.total[..., None] * 8
    np.testing.assert_allclose(frequency[0], 1, atol=0.25)


def test_histograms_and_tables_hold_all_the_area(case: Case) -> None:
    total = case.area.total
    torch.testing.assert_close(rank_histogram(case).sum(-1), total)
    torch.testing.assert_close(event_table(case).sum((-2, -1)), total[..., None].expand(2, 2, 2))


def test_ties_are_broken_evenly_and_by_the_case_alone(case: Case) -> None:
    tied = Case(torch.zeros_like(case.members), torch.zeros_like(case.truth), case.area, key=(1, 2, 3))
    frequency = rank_histogram(tied) / case.area.total[..., None] * 8
    np.testing.assert_allclose(frequency[0], 1, atol=0.25)
    torch.testing.assert_close(rank_histogram(tied), rank_histogram(tied), rtol=0, atol=0)
    other = Case(tied.members, tied.truth, tied.area, key=(1, 2, 4))
    assert not torch.equal(rank_histogram(other), rank_histogram(tied))


def test_truth_above_all_members_has_the_last_rank(case: Case) -> None:
    high = Case(case.members, case.truth + 100, case.area)
    torch.testing.assert_close(rank_histogram(high)[..., -1], case.area.total)


def test_events_lie_beyond_the_quantile_on_its_own_side(case: Case) -> None:
    rate = event_table(case)[0, :, :, 1].sum(-1) / case.area.total[0, :, None]
    np.testing.assert_allclose(rate, 0.1, atol=0.02)
    forecast = event_table(case)[0].sum(-2) / case.area.total[0, :, None, None]
    np.testing.assert_allclose((forecast * torch.linspace(0, 1, 8)).sum(-1), 0.1, atol=0.02)


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


def test_a_quantile_of_a_masked_cell_does_not_matter(case: Case) -> None:
    present = case.area.present.clone()
    present[0, 3, 4] = False
    masked = replace(case, area=replace(case.area, present=present))
    quantiles = case.climate["quantiles"].clone()
    quantiles[1, 0, 3, 4] = torch.nan
    partial = replace(masked, climate={"quantiles": quantiles})
    torch.testing.assert_close(event_table(partial), event_table(masked), rtol=0, atol=0)


def test_tails_are_computed_once_and_in_the_precision_of_the_members(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr(case_module, "moments", lambda *fields: calls.append(fields) or moments(*fields))
    single = replace(case, members=case.members.float(), truth=case.truth.float())
    tail_error(single)
    tail_difference(single)
    assert [members.dtype for members, _ in calls] == [torch.float32] * 2


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
