"""Planted vortices: forecasts in which the place of every low is known."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import xarray as xr

from ladcast.cyclones import make_table
from ladcast.cyclones.points import bearing_deg, distance_km
from ladcast.grid import Grid
from ladcast.times import STEP, lead_times

START = np.datetime64("2011-10-11T00", "ns")
MEMBER_DIMS = ("time", "prediction_timedelta", "number", "latitude", "longitude")
LEVEL_DIMS = (*MEMBER_DIMS[:3], "level", *MEMBER_DIMS[3:])


@dataclass(frozen=True)
class Vortex:
    """A low that moves: one latitude, longitude and depth (Pa) per lead time, from the initial time on."""

    latitude: np.ndarray
    longitude: np.ndarray
    depth: np.ndarray | float = 2000.0
    radius_km: float = 500.0

    def best_track(self, storm: str = "planted") -> xr.Dataset:
        steps = len(self.latitude)
        times = START + np.arange(steps) * STEP
        columns = {"time": times, "latitude": self.latitude, "longitude": self.longitude}
        return make_table({"storm": [storm] * steps, **columns})


def line(start: tuple[float, float], end: tuple[float, float], steps: int, **kind: object) -> Vortex:
    """A vortex that moves evenly in latitude and longitude over `steps` lead times."""
    (south, west), (north, east) = start, end
    return Vortex(np.linspace(south, north, steps + 1), np.linspace(west, east, steps + 1), **kind)


def plant(members: Sequence[Sequence[Vortex]], grid: Grid, *, winds: bool = True) -> xr.Dataset:
    """Builds a forecast whose member m holds the vortices `members[m]` on a weak slope of pressure."""
    lat, lon = np.meshgrid(grid.latitude, grid.longitude, indexing="ij")
    steps = len(members[0][0].latitude) - 1
    msl = np.empty((1, steps, len(members), *grid.shape), dtype=np.float32)
    u, v = np.zeros_like(msl), np.zeros_like(msl)
    msl[:] = 101_300 + 3 * lat
    for number, vortices in enumerate(members):
        for vortex in vortices:
            depth = np.broadcast_to(vortex.depth, steps + 1)
            for step in range(steps):
                at = vortex.latitude[step + 1], vortex.longitude[step + 1]
                away = distance_km(lat, lon, *at) / vortex.radius_km
                msl[0, step, number] -= depth[step + 1] * np.exp(-(away**2))
                speed = np.sign(at[0]) * depth[step + 1] / 50 * away * np.exp(-(away**2))
                outward = np.deg2rad(bearing_deg(lat, lon, *at) + 180)
                u[0, step, number] -= speed * np.cos(outward)
                v[0, step, number] += speed * np.sin(outward)
    coords = {
        "time": [START],
        "prediction_timedelta": lead_times(steps),
        "number": np.arange(len(members)),
        "latitude": list(grid.latitude),
        "longitude": list(grid.longitude),
    }
    forecast = xr.Dataset({"mean_sea_level_pressure": (MEMBER_DIMS, msl)}, coords=coords, attrs={"source": "planted"})
    if winds:
        forecast = forecast.assign_coords(level=[850])
        forecast["u_component_of_wind"] = (LEVEL_DIMS, u[:, :, :, None])
        forecast["v_component_of_wind"] = (LEVEL_DIMS, v[:, :, :, None])
    return forecast


@pytest.fixture(name="line")
def line_fixture() -> Callable[..., Vortex]:
    return line


@pytest.fixture(name="vortex")
def vortex_fixture() -> type[Vortex]:
    return Vortex


@pytest.fixture(name="plant")
def plant_fixture() -> Callable[..., xr.Dataset]:
    return plant


@pytest.fixture
def errors_km() -> Callable[[xr.Dataset, xr.Dataset], np.ndarray]:
    """Distances of tracked positions from the planted ones at the same times."""

    def compare(tracks: xr.Dataset, truth: xr.Dataset) -> np.ndarray:
        row = np.searchsorted(truth["time"].values, tracks["time"].values)
        there = (truth[name].values[row] for name in ("latitude", "longitude"))
        return distance_km(tracks["latitude"].values, tracks["longitude"].values, *there)

    return compare
