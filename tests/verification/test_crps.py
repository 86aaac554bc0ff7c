"""The inner loop: the sorted form, the GPU kernel (run by Triton's interpreter), and real data."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

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


def test_kernel_equals_the_sorted_form() -> None:
    """Runs the kernel's own code on the CPU; the last block of cells is not full."""
    pytest.importorskip("triton", reason="Triton comes with PyTorch's CUDA wheels")
    paths = os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": paths}
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr


@pytest.mark.gpu
@pytest.mark.parametrize("members", [2, 50, crps.REGISTER_MEMBERS, 80])
def test_gpu_equals_cpu(members: int) -> None:
    generator = torch.Generator().manual_seed(0)
    forecast, truth = torch.randn(members, 3, 9, 17, generator=generator), torch.randn(3, 9, 17, generator=generator)
    for ours, expected in zip(crps.moments(forecast.cuda(), truth.cuda()), crps.moments(forecast, truth), strict=True):
        torch.testing.assert_close(ours.cpu(), expected, rtol=1e-5, atol=1e-6)


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
