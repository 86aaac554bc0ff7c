"""Statistics against brute force, an independent package, golden numbers, and what they must obey."""

from itertools import combinations
from pathlib import Path

import pytest
import scoringrules
import torch
from safetensors.torch import load_file

from ladcast.verification import statistics
from ladcast.verification.crps import fair_crps, member_difference, member_error, moments

ANOMALIES = {"anomaly_product", "anomaly_power", "true_anomaly_power"}


@pytest.fixture
def members(generator: torch.Generator) -> torch.Tensor:
    return torch.randn(6, 2, 3, 4, generator=generator, dtype=torch.float64)


@pytest.fixture
def truth(generator: torch.Generator) -> torch.Tensor:
    return torch.randn(2, 3, 4, generator=generator, dtype=torch.float64)


def test_fair_crps_equals_golden_numbers(shared: Path) -> None:
    golden = load_file(shared / "golden" / "components.safetensors")
    value = fair_crps(golden["crps_forecast"], golden["crps_truth"])
    torch.testing.assert_close(value, golden["crps_fair"], rtol=0, atol=1e-5 * float(golden["crps_fair"].max()))


def test_member_difference_equals_sum_over_pairs(members: torch.Tensor, truth: torch.Tensor) -> None:
    pairs = torch.stack([(members[i] - members[j]).abs() for i, j in combinations(range(len(members)), 2)])
    torch.testing.assert_close(member_difference(members, truth), pairs.mean(0))


def test_crps_equals_scoringrules(members: torch.Tensor, truth: torch.Tensor, ordinary_crps) -> None:
    for function, estimator in ((fair_crps, "fair"), (ordinary_crps, "nrg")):
        expected = scoringrules.crps_ensemble(truth.numpy(), members.numpy(), m_axis=0, estimator=estimator)
        torch.testing.assert_close(function(members, truth), torch.from_numpy(expected))


def gaussian_crps(mean: torch.Tensor, std: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    found = statistics.gaussian_statistics(mean, std, truth)
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
    for name, expected in statistics.gaussian_statistics(mean, std, truth).items():
        torch.testing.assert_close(drawn[name], expected, rtol=0.02, atol=0.01)


def test_order_of_members_does_not_matter(members: torch.Tensor, truth: torch.Tensor) -> None:
    torch.testing.assert_close(tuple(moments(members.flip(0), truth)), tuple(moments(members, truth)))


def test_fair_crps_is_the_mean_over_sub_ensembles(members: torch.Tensor, truth: torch.Tensor) -> None:
    halves = [fair_crps(members[list(some)], truth) for some in combinations(range(6), 3)]
    torch.testing.assert_close(torch.stack(halves).mean(0), fair_crps(members, truth))


def test_ordinary_crps_of_one_member_is_its_absolute_error(
    members: torch.Tensor, truth: torch.Tensor, ordinary_crps
) -> None:
    torch.testing.assert_close(ordinary_crps(members[:1], truth), (members[0] - truth).abs())


def test_single_precision_survives_a_large_offset(members: torch.Tensor, truth: torch.Tensor) -> None:
    shifted, shifted_truth = (members + 5e4).float(), (truth + 5e4).float()
    exact = fair_crps(shifted.double(), shifted_truth.double())
    torch.testing.assert_close(fair_crps(shifted, shifted_truth).double(), exact, rtol=1e-5, atol=1e-6)


def test_gradient_of_fair_crps(members: torch.Tensor, truth: torch.Tensor) -> None:
    assert torch.autograd.gradcheck(lambda x: fair_crps(x, truth), members.requires_grad_())


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
