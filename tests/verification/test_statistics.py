"""Statistics against brute force, an independent package, golden numbers, and what they must obey."""

from itertools import combinations
from pathlib import Path

import pytest
import scoringrules
import torch
from safetensors.torch import load_file

from ladcast.verification import statistics

ANOMALIES = {"anomaly_product", "anomaly_power", "true_anomaly_power"}


@pytest.fixture
def members(generator: torch.Generator) -> torch.Tensor:
    return torch.randn(6, 2, 3, 4, generator=generator, dtype=torch.float64)


@pytest.fixture
def truth(generator: torch.Generator) -> torch.Tensor:
    return torch.randn(2, 3, 4, generator=generator, dtype=torch.float64)


def test_fair_crps_equals_golden_numbers(shared: Path) -> None:
    golden = load_file(shared / "golden" / "components.safetensors")
    value = statistics.fair_crps(golden["crps_forecast"], golden["crps_truth"])
    torch.testing.assert_close(value, golden["crps_fair"], rtol=0, atol=1e-5 * float(golden["crps_fair"].max()))


def test_member_difference_equals_sum_over_pairs(members: torch.Tensor, truth: torch.Tensor) -> None:
    pairs = torch.stack([(members[i] - members[j]).abs() for i, j in combinations(range(len(members)), 2)])
    torch.testing.assert_close(statistics.member_difference(members, truth), pairs.mean(0))


@pytest.mark.parametrize(("function", "estimator"), [("fair_crps", "fair"), ("crps", "nrg")])
def test_crps_equals_scoringrules(members: torch.Tensor, truth: torch.Tensor, function: str, estimator: str) -> None:
    expected = scoringrules.crps_ensemble(truth.numpy(), members.numpy(), m_axis=0, estimator=estimator)
    value = getattr(statistics, function)(members, truth)
    torch.testing.assert_close(value, torch.from_numpy(expected))


def test_gaussian_crps_equals_scoringrules(members: torch.Tensor, truth: torch.Tensor) -> None:
    mean, std = members[0], members[1].abs()
    expected = torch.from_numpy(scoringrules.crps_normal(truth.numpy(), mean.numpy(), std.numpy()))
    torch.testing.assert_close(statistics.gaussian_crps(mean, std, truth), expected)


def test_gaussian_crps_without_spread_is_absolute_error(members: torch.Tensor, truth: torch.Tensor) -> None:
    value = statistics.gaussian_crps(members[0], torch.zeros_like(truth), truth)
    torch.testing.assert_close(value, (members[0] - truth).abs())
    assert not statistics.gaussian_crps(truth, torch.zeros_like(truth), truth).any()


def test_gaussian_statistics_are_the_limit_of_many_members(generator: torch.Generator) -> None:
    truth, mean, std = (torch.full((1, 1), x, dtype=torch.float64) for x in (0.3, -0.2, 1.5))
    members = mean + std * torch.randn(200_000, 1, 1, generator=generator, dtype=torch.float64)
    for name, expected in statistics.gaussian_statistics(mean, std, truth).items():
        value = getattr(statistics, name)(members, truth)
        torch.testing.assert_close(value, expected, rtol=0.02, atol=0.01)


@pytest.mark.parametrize("name", ["error", "squared_error", "variance", "member_error", "fair_crps", "crps"])
def test_order_of_members_does_not_matter(members: torch.Tensor, truth: torch.Tensor, name: str) -> None:
    function = getattr(statistics, name)
    torch.testing.assert_close(function(members.flip(0), truth), function(members, truth))


def test_fair_crps_is_the_mean_over_sub_ensembles(members: torch.Tensor, truth: torch.Tensor) -> None:
    halves = [statistics.fair_crps(members[list(some)], truth) for some in combinations(range(6), 3)]
    torch.testing.assert_close(torch.stack(halves).mean(0), statistics.fair_crps(members, truth))


def test_ordinary_crps_of_one_member_is_its_absolute_error(members: torch.Tensor, truth: torch.Tensor) -> None:
    torch.testing.assert_close(statistics.crps(members[:1], truth), (members[0] - truth).abs())


def test_single_precision_survives_a_large_offset(members: torch.Tensor, truth: torch.Tensor) -> None:
    shifted, shifted_truth = (members + 5e4).float(), (truth + 5e4).float()
    exact = statistics.fair_crps(shifted.double(), shifted_truth.double())
    torch.testing.assert_close(statistics.fair_crps(shifted, shifted_truth).double(), exact, rtol=1e-5, atol=1e-6)


def test_gradient_of_fair_crps(members: torch.Tensor, truth: torch.Tensor) -> None:
    assert torch.autograd.gradcheck(lambda x: statistics.fair_crps(x, truth), members.requires_grad_())


def test_anomaly_correlation_is_scale_free_and_signed(truth: torch.Tensor) -> None:
    weight = torch.rand(3, 4, dtype=torch.float64) + 0.1
    ones = torch.ones(2, dtype=torch.float64)
    torch.testing.assert_close(statistics.anomaly_correlation(3 * truth, truth, weight.expand(2, 3, 4)), ones)
    torch.testing.assert_close(statistics.anomaly_correlation(-truth, truth, weight.expand(2, 3, 4)), -ones)


def test_default_selection_follows_members_and_climatology() -> None:
    names = {s.name for s in statistics.select_statistics(None, members=1)}
    assert names == {"error", "absolute_error", "squared_error", "member_error"}
    more = {s.name for s in statistics.select_statistics(None, members=2, climatology=("mean",))}
    assert more - names == {"variance", "member_difference", *ANOMALIES}


def test_a_group_brings_what_can_be_computed() -> None:
    chosen = statistics.select_statistics(["energy", "default"], members=1)
    assert [s.name for s in chosen][:2] == ["energy_error", "error"]
    every = statistics.select_statistics(
        ["default", *statistics.GROUPS], members=2, climatology=("mean", "quantiles", "dry_fraction")
    )
    assert {s.name for s in every} == set(statistics.STATISTICS)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fair", r"Unknown statistics \['fair'\]. Known groups and statistics: default, ranks"),
        ("variance", "needs 2 members, the forecast has 1"),
        ("anomaly_power", "needs a climatology: pass"),
        ("events", "'event_table' needs a climatology"),
    ],
)
def test_impossible_selection_is_refused(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        statistics.select_statistics([name], members=1)


def test_a_climatology_without_quantiles_says_so() -> None:
    with pytest.raises(ValueError, match="a climatology with quantiles: fit it again"):
        statistics.select_statistics(["events"], members=5, climatology=("mean",))
