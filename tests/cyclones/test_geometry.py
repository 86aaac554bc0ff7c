"""Geometry on the sphere: round trips, known distances, no trouble at the date line and the poles."""

import numpy as np
import pytest

from ladcast.cyclones.geometry import bearing_deg, destination, distance_km, extrapolate, positions, unit_vectors
from ladcast.units import MEAN_EARTH_RADIUS_KM

QUARTER = np.pi / 2 * MEAN_EARTH_RADIUS_KM


@pytest.fixture
def anywhere() -> np.ndarray:
    return np.random.default_rng(0).uniform([-89, -180, -89, -180], [89, 180, 89, 180], (200, 4)).T


def test_known_distances():
    assert distance_km(0.0, 0.0, 90.0, 123.0) == pytest.approx(QUARTER)
    assert distance_km(0.0, 179.0, 0.0, -179.0) == pytest.approx(QUARTER / 45)
    assert distance_km(12.0, 34.0, -12.0, -146.0) == pytest.approx(2 * QUARTER)
    assert distance_km(45.0, 7.0, 45.0, 7.0 + 1e-9) == pytest.approx(7.86e-8, rel=1e-2)  # no cancellation


def test_positions_undo_unit_vectors(anywhere):
    latitude, longitude, *_ = anywhere
    back = positions(3.0 * unit_vectors(latitude, longitude))
    np.testing.assert_allclose(back, (latitude, longitude))


def test_going_by_bearing_and_distance_arrives(anywhere):
    here, there = anywhere[:2], anywhere[2:]
    latitude, longitude = destination(*here, bearing_deg(*here, *there), distance_km(*here, *there))
    assert distance_km(latitude, longitude, *there).max() < 1e-4


def test_the_bearing_is_clockwise_from_north():
    np.testing.assert_allclose(
        bearing_deg(0.0, 179.0, np.array([1.0, 0.0, -1.0, 0.0]), np.array([179.0, -180.0, 179.0, 178.0])),
        [0.0, 90.0, 180.0, 270.0],
    )


def test_extrapolation_keeps_to_the_great_circle_and_the_speed(anywhere):
    before, now = unit_vectors(*anywhere[:2]), unit_vectors(*anywhere[2:])
    steps = np.full(len(now), 0.7)
    after = extrapolate(before, now, steps)
    angle, further = (np.arccos((now * other).sum(-1)) for other in (before, after))
    np.testing.assert_allclose(np.cos(further), np.cos(0.7 * angle), atol=1e-9)
    np.testing.assert_allclose((after * np.cross(before, now)).sum(-1), 0, atol=1e-12)


def test_what_does_not_move_stays():
    here = unit_vectors(np.array([12.0]), np.array([34.0]))
    np.testing.assert_allclose(extrapolate(here, here, np.ones(1)), here)
