"""The cyclone tracker: 50 members at 1.5 deg on the CPU (and a GPU where there is one), beside the public tracker.

Pressure and wind are in memory: reading and decoding are not timed. Members are real ERA5 pressure of December 2025 (a
file that is handed over, 2.5 deg) brought to 1.5 deg and shifted in time, with their geostrophic wind and one planted
storm; without the file, waves of random phase stand in for it.
"""

import argparse
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import xarray as xr

from ladcast.cyclones import follow_storm, make_table, position_errors, track_all
from ladcast.cyclones.points import distance_km
from ladcast.data.regrid import regrid
from ladcast.data.store import open_store
from ladcast.grid import Grid, grid_of
from ladcast.times import STEP, lead_times

GRID, MEMBERS = Grid.parse("240x121"), 50
START = np.datetime64("2025-12-01T00", "ns")
PUBLIC_S_PER_MEMBER = 17.0  # 28 steps, one CPU core: the public tracker follows one storm


def background(path: Path | None) -> np.ndarray:
    """Returns pressure (time, lat, lon) in Pa."""
    if path is not None:
        ds = open_store(path)
        return regrid(ds["mean_sea_level_pressure"].values.astype(np.float64), grid_of(ds), GRID).astype(np.float32)
    lat, lon = np.deg2rad(GRID.latitude)[:, None], np.deg2rad(GRID.longitude)
    rng, waves = np.random.default_rng(0), np.arange(4, 12)
    phase, speed = rng.uniform(0, 2 * np.pi, waves.size), rng.normal(0.1, 0.05, waves.size)
    frames = [
        sum(
            600 * np.cos(lat) * np.sin(k * lon + p + c * t + k * lat)
            for k, p, c in zip(waves, phase, speed, strict=True)
        )
        for t in range(124)
    ]
    return (101_300 + np.stack(frames)).astype(np.float32)


def geostrophic(msl: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns wind (u, v) in m/s, held back near the equator and the poles."""
    lat = np.deg2rad(np.asarray(GRID.latitude))[:, None]
    coriolis = 1.458e-4 * np.sin(lat) + np.where(lat >= 0, 1e-5, -1e-5)
    north, east = np.gradient(msl, np.deg2rad(1.5), axis=(-2, -1))
    radius, density = 6.371e6, 1.0
    scale = 1 / (density * coriolis * radius)
    return -north * scale, east * scale / np.cos(lat).clip(0.05)


def forecast(pressure: np.ndarray, steps: int) -> tuple[xr.Dataset, xr.Dataset]:
    """Builds a forecast with a planted storm, and the storm's best track."""
    lat, lon = np.meshgrid(GRID.latitude, GRID.longitude, indexing="ij")
    hours = np.arange(steps + 1) * 6
    at_lat, at_lon = 15 + hours * 0.1, (140 - hours * 0.12) % 360
    storm = [-3000 * np.exp(-((distance_km(lat, lon, *here) / 350) ** 2)) for here in zip(at_lat, at_lon, strict=True)]
    shape = (1, steps, MEMBERS, *GRID.shape)
    fields = {name: np.empty(shape, dtype=np.float32) for name in ("msl", "u", "v")}
    for member in range(MEMBERS):
        for step in range(steps):
            msl = pressure[(step + member) % len(pressure)] + storm[step + 1]
            u, v = geostrophic(msl)
            for name, field in zip(fields, (msl, u, v), strict=True):
                fields[name][0, step, member] = field
    dims = ("time", "prediction_timedelta", "number", "latitude", "longitude")
    ds = xr.Dataset(
        {"mean_sea_level_pressure": (dims, fields["msl"])},
        coords={
            "time": [START],
            "prediction_timedelta": lead_times(steps),
            "number": np.arange(MEMBERS),
            "latitude": list(GRID.latitude),
            "longitude": list(GRID.longitude),
            "level": [850],
        },
    )
    level = (*dims[:3], "level", *dims[3:])
    ds["u_component_of_wind"] = (level, fields["u"][:, :, :, None])
    ds["v_component_of_wind"] = (level, fields["v"][:, :, :, None])
    best = make_table(
        {
            "storm": ["planted"] * (steps + 1),
            "time": START + np.arange(steps + 1) * STEP,
            "latitude": at_lat,
            "longitude": at_lon,
        }
    )
    return ds, best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pressure", type=Path, nargs="?", help="file of 6-hourly global pressure, such as ERA5's")
    path = parser.parse_args().pressure
    threads = torch.get_num_threads()
    print(f"{platform.machine()}, {threads} threads, PyTorch {torch.__version__}; {MEMBERS} members, {GRID}")
    pressure = background(path)
    ds, best = forecast(pressure, 60)
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    for device in devices:
        report(ds, best, device)


def report(ds: xr.Dataset, best: xr.Dataset, device: str) -> None:
    short, public = ds.isel(prediction_timedelta=slice(28)), PUBLIC_S_PER_MEMBER * MEMBERS
    follow_storm(short, best, device=device)  # builds the stencils
    tracks, wall, cpu = timed(lambda: follow_storm(short, best, device=device), repeats=3)
    error = position_errors(tracks, best)["distance_km"]
    print(f"{device}: one storm, 28 steps   {wall:6.2f} s, {cpu:6.2f} s of CPU")
    print(f"     public tracker           {public:6.0f} s, {public / wall:.0f} times as long")
    print(f"     found at {error.size / (28 * MEMBERS):.1%} of the steps, {float(error.mean()):.0f} km off on average")
    tracks, wall, cpu = timed(lambda: track_all(ds, device=device), repeats=1)
    print(f"{device}: all storms, 60 steps  {wall:6.2f} s, {cpu:6.2f} s of CPU; {tracks.sizes['point']} lows in tracks")


def timed(call: Callable[[], xr.Dataset], *, repeats: int) -> tuple[xr.Dataset, float, float]:
    """Returns the result, and the least time on the clock and on the processors, in seconds."""
    walls, cpus = [], []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        tracks = call()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return tracks, min(walls), min(cpus)


if __name__ == "__main__":
    main()
