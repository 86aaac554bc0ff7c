"""Distances: the normal distribution in closed form, ranks of calibrated members and of ties, and variograms."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import scoringrules
import torch

from ladcast.grid import Box
from ladcast.verification.case import Case
from ladcast.verification.crps import member_difference, member_error
from ladcast.verification.statistics.distances import (
    gaussian_statistics,
    rank_histogram,
    variogram_error,
    variogram_variance,
)


@pytest.fixture
def members(generator: torch.Generator) -> torch.Tensor:
    return torch.randn(6, 2, 3, 4, generator=generator, dtype=torch.float64)


@pytest.fixture
def truth(generator: torch.Generator) -> torch.Tensor:
    return torch.randn(2, 3, 4, generator=generator, dtype=torch.float64)


def gaussian_crps(mean: torch.Tensor, std: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    found = gaussian_statistics(mean, std, truth)
    return found["member_error"] - found["member_difference"] / 2


def test_gaussian_crps_equals_scoringrules(members: torch.Tensor, truth: torch.Tensor) -> None:
    mean, std = members[0], members[1].abs()
    expected = torch.from_numpy(scoringrules.crps_normal(truth.numpy(), mean.numpy(), std.numpy()))
    torch.testing.assert_close(gaussian_crps(mean, std, truth), expected)


def test_gaussian_crps_without_spread_is_absolute_error(members: torch.Tensor, truth: torch.Tensor) -> None:
    value = gaussian_crps(members[0], torch.zeros_like(truth), truth)
    torch.testing.assert_close(value, (members[0] - truth).abs())
    assert not gaussian_crps(truth, torch.zeros_like(truth), truth).any()


def test_gaussian_statistics_are_the_limit_of_many_members(generator: torch.Generator) -> None:
    truth, mean, std = (torch.full((1, 1), x, dtype=torch.float64) for x in (0.3, -0.2, 1.5))
    members = mean + std * torch.randn(200_000, 1, 1, generator=generator, dtype=torch.float64)
    error = members.mean(0) - truth
    drawn = {
        "error": error,
        "absolute_error": error.abs(),
        "squared_error": error.square(),
        "variance": members.var(0),
        "member_error": member_error(members, truth),
        "member_difference": member_difference(members, truth),
    }
    for name, expected in gaussian_statistics(mean, std, truth).items():
        torch.testing.assert_close(drawn[name], expected, rtol=0.02, atol=0.01)


def test_calibrated_members_have_a_flat_histogram(case: Case) -> None:
    frequency = rank_histogram(case) / case.area.total[..., None] * 8
    np.testing.assert_allclose(frequency[0], 1, atol=0.25)


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


def fair_variogram(case: Case) -> torch.Tensor:
    return variogram_error(case) - variogram_variance(case) / len(case.members)


def test_the_variogram_score_of_all_members_is_the_mean_over_all_pairs_of_them(case: Case) -> None:
    pairs = [replace(case, members=case.members[list(two)]) for two in combinations(range(len(case.members)), 2)]
    torch.testing.assert_close(fair_variogram(case), torch.stack([fair_variogram(pair) for pair in pairs]).mean(0))


def test_the_variogram_score_sees_members_whose_cells_are_shuffled(case: Case, generator: torch.Generator) -> None:
    """Every cell has the same members as before, in another order: scores of cells cannot tell."""
    level = torch.randn(7, 1, 1, 1, generator=generator, dtype=torch.float64).expand_as(case.members)
    shuffled = level.gather(0, torch.rand(level.shape, generator=generator).argsort(0))
    smooth = replace(case, members=level, truth=torch.zeros_like(case.truth))
    assert not fair_variogram(smooth).any()
    assert (fair_variogram(replace(smooth, members=shuffled)) > 0.1 * case.area.total[..., None]).all()


def test_pairs_of_a_variogram_are_those_that_are_there(case: Case) -> None:
    """A land of huge values beside the seam does not count, and around the globe all pairs do."""
    hidden = case.area.present.clone()
    hidden[..., :8], hidden[..., -8:] = False, False
    masked = replace(case, area=replace(case.area, present=hidden))
    spoilt = replace(masked, members=case.members.where(hidden, 1e6))
    torch.testing.assert_close(fair_variogram(spoilt), fair_variogram(masked))
    turned = replace(case, members=case.members.roll(5, -1), truth=case.truth.roll(5, -1))
    torch.testing.assert_close(fair_variogram(turned), fair_variogram(case))


def test_rows_of_a_box_are_no_circles(case: Case) -> None:
    column = torch.arange(case.truth.shape[-1], dtype=torch.float64)
    ramp = replace(case, truth=column.expand_as(case.truth), members=2 * column.expand_as(case.members))
    box = replace(ramp, area=replace(case.area, grid=Box(case.area.grid.latitude, case.area.grid.longitude)))
    expected = torch.tensor([(lag**0.5 - (2 * lag) ** 0.5) ** 2 for lag in (1, 2, 4, 8)], dtype=torch.float64)
    torch.testing.assert_close(variogram_error(box), expected * case.area.total[..., None])
    assert (variogram_error(ramp) > variogram_error(box)).all()
