"""Distances: the normal distribution in closed form, and ranks of calibrated members and of ties."""

import numpy as np
import pytest
import scoringrules
import torch

from ladcast.verification.case import Case
from ladcast.verification.crps import member_difference, member_error
from ladcast.verification.statistics.distances import gaussian_statistics, rank_histogram


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
