"""The inner loop: brute force, independent packages, the sorting network, the GPU kernel (interpreted), real data."""

from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest
import scoringrules
import torch
import xarray as xr
from safetensors.torch import load_file

from ladcast.verification import crps

PROGRAM = """
import torch
from ladcast.verification import crps
from ladcast.verification.crps_kernel import moments_in_registers
generator = torch.Generator().manual_seed(0)
members, truth = torch.randn(7, 3, 5, 11, generator=generator), torch.randn(3, 5, 11, generator=generator)
for ours, expected in zip(moments_in_registers(members, truth), crps.moments(members, truth), strict=True):
    torch.testing.assert_close(ours, expected)
"""


@pytest.fixture
def members(generator: torch.Generator) -> torch.Tensor:
    return torch.randn(6, 2, 3, 4, generator=generator, dtype=torch.float64)


@pytest.fixture
def truth(generator: torch.Generator) -> torch.Tensor:
    return torch.randn(2, 3, 4, generator=generator, dtype=torch.float64)


def test_fair_crps_equals_golden_numbers(shared: Path) -> None:
    golden = load_file(shared / "golden" / "components.safetensors")
    value = crps.fair_crps(golden["crps_forecast"], golden["crps_truth"])
    torch.testing.assert_close(value, golden["crps_fair"], rtol=0, atol=1e-5 * float(golden["crps_fair"].max()))


def test_member_difference_equals_sum_over_pairs(members: torch.Tensor, truth: torch.Tensor) -> None:
    pairs = torch.stack([(members[i] - members[j]).abs() for i, j in combinations(range(len(members)), 2)])
    torch.testing.assert_close(crps.member_difference(members, truth), pairs.mean(0))


def test_crps_equals_scoringrules(members: torch.Tensor, truth: torch.Tensor, ordinary_crps) -> None:
    for function, estimator in ((crps.fair_crps, "fair"), (ordinary_crps, "nrg")):
        expected = scoringrules.crps_ensemble(truth.numpy(), members.numpy(), m_axis=0, estimator=estimator)
        torch.testing.assert_close(function(members, truth), torch.from_numpy(expected))


def test_order_of_members_does_not_matter(members: torch.Tensor, truth: torch.Tensor) -> None:
    torch.testing.assert_close(tuple(crps.moments(members.flip(0), truth)), tuple(crps.moments(members, truth)))


def test_fair_crps_is_the_mean_over_sub_ensembles(members: torch.Tensor, truth: torch.Tensor) -> None:
    halves = [crps.fair_crps(members[list(some)], truth) for some in combinations(range(6), 3)]
    torch.testing.assert_close(torch.stack(halves).mean(0), crps.fair_crps(members, truth))


def test_ordinary_crps_of_one_member_is_its_absolute_error(
    members: torch.Tensor, truth: torch.Tensor, ordinary_crps
) -> None:
    torch.testing.assert_close(ordinary_crps(members[:1], truth), (members[0] - truth).abs())


def test_single_precision_survives_a_large_offset(members: torch.Tensor, truth: torch.Tensor) -> None:
    shifted, shifted_truth = (members + 5e4).float(), (truth + 5e4).float()
    exact = crps.fair_crps(shifted.double(), shifted_truth.double())
    torch.testing.assert_close(crps.fair_crps(shifted, shifted_truth).double(), exact, rtol=1e-5, atol=1e-6)


def test_gradient_of_fair_crps(members: torch.Tensor, truth: torch.Tensor) -> None:
    assert torch.autograd.gradcheck(lambda x: crps.fair_crps(x, truth), members.requires_grad_())


def test_one_pass_equals_one_after_the_other(generator: torch.Generator) -> None:
    members, truth = torch.randn(6, 3, 4, generator=generator), torch.randn(3, 4, generator=generator)
    found = crps.moments(members, truth)
    torch.testing.assert_close(found.error, members.mean(0) - truth)
    torch.testing.assert_close(found.variance, members.var(0))
    torch.testing.assert_close(found.member_error, crps.member_error(members, truth))
    torch.testing.assert_close(found.member_difference, crps.member_difference(members, truth))
    for ours, expected in zip(found, crps.moments(members.requires_grad_(), truth), strict=True):
        torch.testing.assert_close(ours, expected.detach())


def test_one_member_has_no_spread(generator: torch.Generator) -> None:
    members, truth = torch.randn(1, 3, 4, generator=generator), torch.randn(3, 4, generator=generator)
    found = crps.moments(members, truth)
    torch.testing.assert_close(found.member_error, (members[0] - truth).abs())
    assert not found.variance.any()
    assert not found.member_difference.any()


@pytest.mark.slow
def test_kernel_equals_the_sorted_form(interpreted) -> None:
    """The last block of cells is not full."""
    interpreted(PROGRAM)


@pytest.mark.gpu
@pytest.mark.parametrize("members", [2, 50, crps.REGISTER_MEMBERS, 80])
def test_gpu_equals_cpu(members: int) -> None:
    generator = torch.Generator().manual_seed(0)
    forecast, truth = torch.randn(members, 3, 9, 17, generator=generator), torch.randn(3, 9, 17, generator=generator)
    for ours, expected in zip(crps.moments(forecast.cuda(), truth.cuda()), crps.moments(forecast, truth), strict=True):
        torch.testing.assert_close(ours.cpu(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "level", "ordinary", "fair"), [("z", 500, 6.0528, 5.1575), ("t", 850, 0.16821, 0.14470)]
)
def test_known_answers_of_the_ensemble_of_era5(
    shared: Path, ordinary_crps, name: str, level: int, ordinary: float, fair: float
) -> None:
    """Members 1 to 9 of ERA5's ensemble against member 0, with cos(latitude) as the known answers have it."""
    pytest.importorskip("cfgrib")
    path = shared / "kit" / "era5" / "era5_eda_10members_zt_850_500_3deg.grib"
    with xr.open_dataset(path, engine="cfgrib", backend_kwargs={"indexpath": ""}) as opened:
        field = opened[name].sel(isobaricInhPa=level).transpose("number", ...).load()
    values = torch.from_numpy(field.values).double()
    weight = np.cos(np.deg2rad(field["latitude"].values)).clip(0)
    for function, expected in ((ordinary_crps, ordinary), (crps.fair_crps, fair)):
        score = function(values[1:], values[0]).numpy().mean((0, -1))
        assert (score * weight).sum() / weight.sum() == pytest.approx(expected, rel=5e-5)


@pytest.mark.parametrize("count", range(1, 11))
def test_the_network_sorts_everything_that_it_sorts_of_zeros_and_ones(count: int) -> None:
    """Knuth, theorem 5.3.4 Z: what sorts every sequence of zeros and ones sorts every sequence."""
    bits = np.array(list(product((0.0, 1.0), repeat=count))).T
    np.testing.assert_array_equal(np.stack(crps.sort_members(list(bits.copy()))), np.sort(bits, axis=0))


@pytest.mark.parametrize("count", [16, 50, 51, 100])
def test_rows_are_sorted_as_numpy_sorts_them(count: int) -> None:
    values = np.random.default_rng(count).normal(size=(count, 33)).astype(np.float32)
    np.testing.assert_array_equal(np.stack(crps.sort_members(list(values.copy()))), np.sort(values, axis=0))


@pytest.mark.parametrize("cells_in_cache", [1, 7, 10_000])
def test_chunks_do_not_change_a_bit(monkeypatch: pytest.MonkeyPatch, cells_in_cache: int) -> None:
    random = np.random.default_rng(0)
    members, truth = random.normal(size=(9, 100)).astype(np.float32), random.normal(size=100).astype(np.float32)
    before = members.copy()
    expected = crps.moments_in_cache(members, truth)
    monkeypatch.setattr(crps, "CELLS_IN_CACHE", cells_in_cache)
    np.testing.assert_array_equal(crps.moments_in_cache(members, truth), expected)
    np.testing.assert_array_equal(members, before)
    exact = members.astype(float)
    np.testing.assert_allclose(expected[0], (exact - truth).mean(0), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(expected[1], exact.var(0, ddof=1), rtol=1e-5)
    np.testing.assert_allclose(expected[2], abs(exact - truth).mean(0), rtol=1e-6)
    np.testing.assert_allclose(expected[3], abs(exact[:, None] - exact).sum((0, 1)) / (9 * 8), rtol=1e-6)


def test_the_network_of_fifty_members_is_small() -> None:
    assert len(crps.sorting_network(50)) == 395
