"""Positions on the sphere: distances, directions, motion. Latitudes and longitudes are in degrees."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from jaxtyping import Float

from ladcast.units import MEAN_EARTH_RADIUS_KM
from ladcast.verification.statistics.base import FloatArray

KM_PER_DEGREE = float(np.pi) * MEAN_EARTH_RADIUS_KM / 180

Degrees = npt.NDArray[Any] | float


def unit_vectors(latitude: Degrees, longitude: Degrees) -> Float[np.ndarray, "*point 3"]:
    """Returns points on the unit sphere: the only coordinates in which positions may be averaged."""
    lat, lon = np.deg2rad(np.asarray(latitude, dtype=float)), np.deg2rad(np.asarray(longitude, dtype=float))
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat) + 0 * lon], axis=-1)


def positions(vectors: Float[np.ndarray, "*point 3"]) -> tuple[FloatArray, FloatArray]:
    """Returns latitude and longitude (-180 to 180) of vectors of any length."""
    x, y, z = np.moveaxis(np.asarray(vectors, dtype=float), -1, 0)
    return np.rad2deg(np.arctan2(z, np.hypot(x, y))), np.rad2deg(np.arctan2(y, x))


def distance_km(latitude: Degrees, longitude: Degrees, other_latitude: Degrees, other_longitude: Degrees) -> FloatArray:
    """Returns great-circle distances in km, exact to the last digits also for near and opposite points."""
    here, there = unit_vectors(latitude, longitude), unit_vectors(other_latitude, other_longitude)
    here, there = np.broadcast_arrays(here, there)
    angle = np.arctan2(np.linalg.norm(np.cross(here, there), axis=-1), (here * there).sum(-1))
    return np.asarray(MEAN_EARTH_RADIUS_KM * angle)


def bearing_deg(latitude: Degrees, longitude: Degrees, other_latitude: Degrees, other_longitude: Degrees) -> FloatArray:
    """Returns the direction from one point to another, clockwise from north."""
    lat, other = np.deg2rad(np.asarray(latitude)), np.deg2rad(np.asarray(other_latitude))
    east = np.deg2rad(np.asarray(other_longitude) - np.asarray(longitude))
    x = np.cos(lat) * np.sin(other) - np.sin(lat) * np.cos(other) * np.cos(east)
    return np.asarray(np.rad2deg(np.arctan2(np.sin(east) * np.cos(other), x)) % 360)


def destination(
    latitude: Degrees, longitude: Degrees, bearing: Degrees, distance: Degrees
) -> tuple[FloatArray, FloatArray]:
    """Returns the point that lies `distance` km away in the direction `bearing` (degrees clockwise from north)."""
    lat, lon = np.deg2rad(np.asarray(latitude, dtype=float)), np.deg2rad(np.asarray(longitude, dtype=float))
    east, north = _tangents(lat, lon)
    heading = np.deg2rad(np.asarray(bearing, dtype=float))
    arc = np.asarray(distance, dtype=float) / MEAN_EARTH_RADIUS_KM
    direction = np.cos(heading)[..., None] * north + np.sin(heading)[..., None] * east
    here = unit_vectors(np.rad2deg(lat), np.rad2deg(lon))
    return positions(np.cos(arc)[..., None] * here + np.sin(arc)[..., None] * direction)


def extrapolate(
    before: Float[np.ndarray, "*point 3"], now: Float[np.ndarray, "*point 3"], steps: Degrees
) -> Float[np.ndarray, "*point 3"]:
    """Goes on along the great circle from `before` through `now`, by `steps` times their distance."""
    axis = np.cross(before, now)
    sine = np.linalg.norm(axis, axis=-1)
    angle = np.arctan2(sine, (before * now).sum(-1)) * np.asarray(steps)
    ahead = np.cross(axis, now) / np.maximum(sine, 1e-12)[..., None]
    vectors: FloatArray = np.cos(angle)[..., None] * now + np.sin(angle)[..., None] * ahead
    return vectors


def _tangents(lat: FloatArray, lon: FloatArray) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    zero = 0 * lat
    east = np.stack([-np.sin(lon), np.cos(lon), zero], axis=-1)
    north = np.stack([-np.sin(lat) * np.cos(lon), -np.sin(lat) * np.sin(lon), np.cos(lat)], axis=-1)
    return east, north
