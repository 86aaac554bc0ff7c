"""Spectra add up to the mean square, and single waves land on their own number."""

import numpy as np
import pytest
import torch
from scipy.special import sph_harm_y

from ladcast.grid import Grid
from ladcast.verification.statistics.spectra import legendre, max_degree, spherical_powers, zonal_powers

GRIDS = (Grid.regular(48, 25), Grid.regular(48, 25).without_south_pole(), Grid.regular(48, 24), Grid.regular(40, 33))


def harmonic(grid: Grid, degree: int, order: int) -> torch.Tensor:
    """A real harmonic with mean square 1."""
    lat, lon = np.meshgrid(np.deg2rad(grid.latitude), np.deg2rad(grid.longitude), indexing="ij")
    wave = sph_harm_y(degree, order, np.pi / 2 - lat, lon).real * np.sqrt(4 * np.pi)
    return torch.from_numpy(wave * (np.sqrt(2) if order else 1))


@pytest.mark.parametrize("num_lon", [11, 12])
def test_zonal_powers_sum_to_the_mean_square(generator: torch.Generator, num_lon: int) -> None:
    field = torch.randn(2, 5, num_lon, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(zonal_powers(field).sum(-1), field.square().mean(-1))


def test_one_wave_has_one_wavenumber() -> None:
    wave = 3 * torch.cos(2 * torch.pi * 4 * torch.arange(24, dtype=torch.float64) / 24)
    expected = torch.zeros(13, dtype=torch.float64)
    expected[4] = 4.5
    torch.testing.assert_close(zonal_powers(wave.expand(2, 24))[1], expected)


def test_a_shift_along_longitude_changes_no_spectrum(generator: torch.Generator) -> None:
    field = torch.randn(24, 48, generator=generator, dtype=torch.float64)
    for powers in (zonal_powers, lambda x: spherical_powers(x, GRIDS[2])):
        torch.testing.assert_close(powers(field.roll(7, -1)), powers(field))


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize(("degree", "order"), [(0, 0), (1, 1), (5, 0), (9, 4), (18, 18), (19, 3)])
def test_one_harmonic_has_one_degree(grid: Grid, degree: int, order: int) -> None:
    power = spherical_powers(2 * harmonic(grid, degree, order), grid)
    expected = torch.zeros(max_degree(grid) + 1, dtype=torch.float64)
    expected[degree] = 4
    torch.testing.assert_close(power, expected, atol=1e-9, rtol=1e-9)


def test_powers_of_a_smooth_field_sum_to_its_mean_square(generator: torch.Generator) -> None:
    grid = GRIDS[0]
    orders = [(degree, order) for degree in range(9) for order in range(degree + 1)]
    factors = torch.randn(len(orders), generator=generator, dtype=torch.float64)
    field = sum(factor * harmonic(grid, *order) for factor, order in zip(factors, orders, strict=True))
    torch.testing.assert_close(spherical_powers(field, grid).sum(), factors.square().sum())


def test_of_noise_at_the_scale_of_the_grid_a_part_is_missing(generator: torch.Generator) -> None:
    """Equiangular rows resolve fewer degrees than there are cells: only smooth fields have all their power."""
    grid = Grid.regular(48, 25)
    noise = torch.randn(50, *grid.shape, generator=generator, dtype=torch.float64)
    weight = torch.from_numpy(grid.area_weights)[:, None] / len(grid.latitude)
    square = (noise.square() * weight).sum(-2).mean()
    assert spherical_powers(noise, grid).sum(-1).mean() < 0.9 * square


def test_turning_the_sphere_keeps_the_power_of_each_degree() -> None:
    """The degree does not depend on where the poles are: x, y and z are the same wave."""
    grid = GRIDS[0]
    lat, lon = np.meshgrid(np.deg2rad(grid.latitude), np.deg2rad(grid.longitude), indexing="ij")
    axes = (np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat))
    for axis in axes:
        power = spherical_powers(torch.from_numpy(axis) ** 3, grid)
        np.testing.assert_allclose(power[[1, 3]], [3 / 25, 4 / 175], rtol=1e-9)


def test_legendre_functions_have_mean_square_one() -> None:
    sine, weight = np.polynomial.legendre.leggauss(40)
    for order in (0, 1, 7):
        basis = legendre(order, 20, sine)
        np.testing.assert_allclose(basis.T @ (basis * weight[:, None] / 2), np.eye(basis.shape[1]), atol=1e-10)
