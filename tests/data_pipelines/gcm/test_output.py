"""Exact answers for columns whose answer is known."""

import numpy as np
import pytest

jnp = pytest.importorskip("jax.numpy", reason="the nature run needs JAX: pip install 'ladcast[simulate]'")

from data_pipelines.gcm import output  # noqa: E402
from data_pipelines.gcm.output import GAS_CONSTANT, LAPSE_EXPONENT, LAPSE_RATE  # noqa: E402
from ladcast.units import GRAVITY  # noqa: E402

SIGMA = np.array([0.025, 0.095, 0.2, 0.34, 0.51, 0.685, 0.835, 0.95], np.float32)
LEVELS_PA = np.array([10, 50, 100, 300, 500, 850, 1000], np.float32) * 100
SURFACE_PRESSURE = np.array([[101000.0, 70000.0], [98000.0, 52000.0]], np.float32)


@pytest.fixture
def interpolator() -> output.PressureInterpolator:
    return output.PressureInterpolator.build(jnp.asarray(SURFACE_PRESSURE), SIGMA, LEVELS_PA)


def layers_pa() -> np.ndarray:
    return SIGMA[:, None, None] * SURFACE_PRESSURE


def target_pa() -> np.ndarray:
    return np.broadcast_to(LEVELS_PA[:, None, None], (len(LEVELS_PA), 2, 2))


def test_what_is_linear_in_log_pressure_is_exact_inside_and_constant_beyond(
    interpolator: output.PressureInterpolator,
) -> None:
    field = 3 + 2 * np.log(layers_pa())
    inside = np.clip(target_pa(), layers_pa()[0], layers_pa()[-1])
    np.testing.assert_allclose(interpolator.linear(jnp.asarray(field)), 3 + 2 * np.log(inside), rtol=1e-5)


@pytest.mark.slow
def test_an_isothermal_atmosphere_is_exactly_hydrostatic_above_the_lowest_layer(
    interpolator: output.PressureInterpolator,
) -> None:
    temperature = jnp.full((8, 2, 2), 250.0)
    height = GAS_CONSTANT * 250 * np.log(1e5 / layers_pa())
    found = interpolator.geopotential(jnp.asarray(height), temperature, temperature)
    expected = GAS_CONSTANT * 250 * np.log(1e5 / target_pa())
    above = target_pa() <= layers_pa()[-1]
    np.testing.assert_allclose(np.asarray(found)[above], expected[above], atol=2)
    np.testing.assert_allclose(np.asarray(interpolator.temperature(temperature))[above], 250, rtol=1e-6)


@pytest.mark.slow
def test_the_standard_lapse_rate_continues_below_the_lowest_layer(
    interpolator: output.PressureInterpolator,
) -> None:
    """With T = 288 K (p / 1000 hPa)^(Rd gamma / g), T + gamma z is the same everywhere."""
    temperature = 288 * (layers_pa() / 1e5) ** LAPSE_EXPONENT
    geopotential = GRAVITY / LAPSE_RATE * (288 - temperature)
    warm = jnp.asarray(temperature)
    found = interpolator.geopotential(jnp.asarray(geopotential), warm, warm)
    below = target_pa() > layers_pa()[-1]
    assert below.any()
    expected = 288 * (target_pa() / 1e5) ** LAPSE_EXPONENT
    np.testing.assert_allclose(np.asarray(interpolator.temperature(warm))[below], expected[below], rtol=1e-5)
    height = GRAVITY / LAPSE_RATE * (288 - expected)
    np.testing.assert_allclose(np.asarray(found)[below], height[below], atol=3)


def test_geopotential_of_the_standard_lapse_rate_is_good_between_the_layers(
    interpolator: output.PressureInterpolator,
) -> None:
    """The cubic has the right slope, so it beats a straight line by two orders of magnitude."""
    temperature = 288 * (layers_pa() / 1e5) ** LAPSE_EXPONENT
    geopotential = jnp.asarray(GRAVITY / LAPSE_RATE * (288 - temperature))
    warm = jnp.asarray(temperature)
    exact = GRAVITY / LAPSE_RATE * 288 * (1 - (target_pa() / 1e5) ** LAPSE_EXPONENT)
    between = (target_pa() > layers_pa()[0]) & (target_pa() < layers_pa()[-1])
    cubic = np.abs(np.asarray(interpolator.geopotential(geopotential, warm, warm)) - exact)[between].max()
    straight = np.abs(np.asarray(interpolator.linear(geopotential)) - exact)[between].max()
    assert 100 * cubic < straight


@pytest.mark.slow
def test_sea_level_pressure_is_exact_for_flat_ground_and_for_the_standard_lapse_rate() -> None:
    flat = jnp.zeros((2, 2))
    temperature = jnp.full((2, 2), 280.0)
    surface = jnp.asarray(SURFACE_PRESSURE)
    found = output.sea_level_pressure(surface, temperature, flat, lowest_sigma=0.95)
    np.testing.assert_allclose(found, surface, rtol=1e-6)
    height_m = 1000.0
    ground = 270.0
    lowest = ground / (1 + LAPSE_EXPONENT * (1 / 0.95 - 1))
    found = output.sea_level_pressure(
        surface, jnp.full((2, 2), lowest), jnp.full((2, 2), height_m * GRAVITY), lowest_sigma=0.95
    )
    exact = SURFACE_PRESSURE * ((ground + LAPSE_RATE * height_m) / ground) ** (1 / LAPSE_EXPONENT)
    np.testing.assert_allclose(found, exact, rtol=1e-5)


@pytest.mark.slow
def test_scalar_poles_have_one_value_and_other_rows_stay() -> None:
    field = np.random.default_rng(0).standard_normal((3, 16, 9)).astype(np.float32)
    filled = np.asarray(output.fill_scalar_poles(jnp.asarray(field)))
    for row in (0, -1):
        np.testing.assert_allclose(filled[..., row], np.repeat(field[..., row].mean(-1)[:, None], 16, 1), rtol=1e-5)
    np.testing.assert_array_equal(filled[..., 1:-1], field[..., 1:-1])


@pytest.mark.slow
@pytest.mark.parametrize("hemisphere", [0, -1])
def test_a_uniform_flow_across_the_pole_fills_its_own_pole(hemisphere: int) -> None:
    """One vector in the polar plane has components cos and sin of longitude; noise and zonal flow vanish."""
    angle = 2 * np.pi * np.arange(16) / 16
    wind = 7 * np.cos(angle) - 3 * np.sin(angle)
    field = np.tile((wind + 5 + np.cos(4 * angle))[:, None], (1, 9))
    field[:, hemisphere] = np.nan
    filled = output.fill_vector_poles(jnp.asarray(field, jnp.float32))
    np.testing.assert_allclose(filled[:, hemisphere], wind, atol=1e-5)
