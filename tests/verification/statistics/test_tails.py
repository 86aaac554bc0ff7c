"""Tails: beyond everything nothing, within everything the CRPS, and where the quantile is not known no score."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr

from ladcast.grid import Grid
from ladcast.verification import Climatology, ScoreOptions, fit_climatology, score
from ladcast.verification import case as case_module
from ladcast.verification.case import Case
from ladcast.verification.crps import moments
from ladcast.verification.regions import GLOBE, REGIONS
from ladcast.verification.statistics.events import event_table
from ladcast.verification.statistics.tails import tail_difference, tail_error

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
