"""Roughness of the ground: known hills have known slopes, angles and anisotropies."""

import numpy as np
import pytest

from data_pipelines.orography import subgrid_orography
from ladcast.constants import MODEL_EARTH_RADIUS_M
from ladcast.grid import Grid

FINE, COARSE = Grid.parse("1440x720"), Grid.parse("16x8")
LAT, LON = np.meshgrid(np.deg2rad(FINE.latitude), np.deg2rad(FINE.longitude), indexing="ij")
HEIGHT_M, WAVES = 500.0, 160
TROPICS = slice(3, 5)


def hills(towards_deg: float) -> np.ndarray:
    """Returns parallel ridges, with slopes towards an angle from east, where the Earth is nearly flat."""
    angle = np.deg2rad(towards_deg)
    return HEIGHT_M * np.sin(WAVES * (np.cos(angle) * LON + np.sin(angle) * LAT))


@pytest.mark.parametrize("towards_deg", [0.0, 90.0, 45.0])
def test_ridges_have_one_direction(towards_deg: float):
    fields = subgrid_orography(hills(towards_deg), FINE, COARSE)
    angle = np.rad2deg(fields["angle_of_sub_gridscale_orography"][TROPICS])
    turn = (angle - towards_deg + 90) % 180 - 90
    np.testing.assert_allclose(turn, 0, atol=4)
    assert (fields["anisotropy_of_sub_gridscale_orography"][TROPICS] < 0.15).all()


def test_deviation_and_slope_of_a_sine_are_its_amplitude_over_root_2():
    fields = subgrid_orography(hills(90.0), FINE, COARSE)
    np.testing.assert_allclose(fields["standard_deviation_of_orography"][TROPICS], HEIGHT_M / 2**0.5, rtol=0.01)
    # Second-order differences flatten waves of 9 cells by sin(x) / x.
    step = WAVES * np.deg2rad(0.25)
    expected = HEIGHT_M * WAVES / MODEL_EARTH_RADIUS_M / 2**0.5 * np.sin(step) / step
    np.testing.assert_allclose(fields["slope_of_sub_gridscale_orography"][TROPICS], expected, rtol=0.01)


def test_hills_without_direction_are_isotropic_and_twice_as_steep_in_square():
    east, north = hills(0.0), hills(90.0)
    fields = subgrid_orography(east + north, FINE, COARSE)
    single = subgrid_orography(north, FINE, COARSE)
    assert (fields["anisotropy_of_sub_gridscale_orography"][TROPICS] > 0.85).all()
    ratio = fields["standard_deviation_of_orography"][TROPICS] / single["standard_deviation_of_orography"][TROPICS]
    np.testing.assert_allclose(ratio, 2**0.5, rtol=0.01)


def test_flat_ground_is_flat_everywhere_and_the_poles_are_finite():
    fields = subgrid_orography(np.full(FINE.shape, 1234.5), FINE, Grid.parse("16x9"))
    assert abs(fields["standard_deviation_of_orography"]).max() < 1e-3
    assert (fields["slope_of_sub_gridscale_orography"] == 0).all()
    assert (fields["anisotropy_of_sub_gridscale_orography"] == 1).all()
    rough = subgrid_orography(hills(0.0), FINE, Grid.parse("16x9"))
    assert all(np.isfinite(values).all() for values in rough.values())


def test_a_source_that_is_not_finer_is_refused():
    with pytest.raises(ValueError, match="at least twice its resolution"):
        subgrid_orography(np.zeros(COARSE.shape), COARSE, Grid.parse("16x9"))
