"""Exporting 50 members at 1.5 degrees: bytes, time and peak memory of each format, beside the fields in float32.

Run as `python benchmarks/export.py [lead times]`; each format is written by a process of its own.
"""

import resource
import subprocess
import sys
import tempfile
import time
import warnings
from functools import lru_cache
from pathlib import Path

import dask.array
import numpy as np
import xarray as xr

from ladcast.fields import ERA5_CHANNELS, VARIABLES
from ladcast.forecasting.ensemble import FORECAST_DIMS
from ladcast.forecasts import ExportFormat
from ladcast.forecasts.export import find_writer
from ladcast.grid import Grid

MEMBERS, GRID = 50, Grid.parse("240x121")
FORMATS = {
    "netCDF4": ("fc.nc", ExportFormat()),
    "GRIB2 ccsds": ("fc.grib2", ExportFormat()),
    "GRIB2 simple": ("fc.grib2", ExportFormat(packing="simple")),
    "Zarr 3": ("fc.zarr", ExportFormat()),
    "Zarr 2": ("fc.zarr", ExportFormat(zarr_format=2)),
}
MIB = 2**20


@lru_cache
def smooth(shape: tuple[int, ...]) -> np.ndarray:
    """Returns fields as smooth as weather: waves of falling amplitude, and noise a thousandth of them."""
    generator = np.random.default_rng(0)
    lat, lon = np.meshgrid(np.deg2rad(GRID.latitude), np.deg2rad(GRID.longitude), indexing="ij")
    waves = np.stack([np.cos(k * lon + generator.uniform(0, 6.3)) * np.cos(lat) ** (k / 2) / k for k in range(1, 30)])
    amplitudes = generator.normal(size=(int(np.prod(shape[:-2])), len(waves))).astype(np.float32)
    fields = (amplitudes @ waves.reshape(len(waves), -1).astype(np.float32)).reshape(shape)
    return 280 + 10 * fields + 1e-2 * generator.standard_normal(shape, dtype=np.float32)


def forecast(leads: int) -> xr.Dataset:
    """Returns a forecast whose frames are made when they are read, from the same waves."""
    coordinates = {
        "time": np.array(["2011-10-11T00"], dtype="datetime64[ns]"),
        "prediction_timedelta": (np.arange(1, leads + 1) * np.timedelta64(6, "h")).astype("timedelta64[ns]"),
        "number": np.arange(MEMBERS),
        "level": np.array(ERA5_CHANNELS.levels),
        "latitude": np.array(GRID.latitude),
        "longitude": np.array(GRID.longitude),
    }
    fields = {}
    for name in ERA5_CHANNELS.variables:
        dims = tuple(dim for dim in FORECAST_DIMS if dim != "level" or VARIABLES[name].on_levels)
        shape = tuple(coordinates[dim].size for dim in dims)
        chunks = ((1,), (1,) * leads, *((size,) for size in shape[2:]))
        values = dask.array.map_blocks(
            lambda block_info: smooth(block_info[None]["chunk-shape"]) + block_info[None]["chunk-location"][1],
            chunks=chunks,
            dtype=np.float32,
            meta=np.empty((0,) * len(shape), np.float32),
        )
        land = np.zeros(GRID.shape, bool)
        land[30:70, 20:90] = VARIABLES[name].masked_on_land
        fields[name] = (dims, dask.array.where(land, np.float32(np.nan), values).astype(np.float32))
    return xr.Dataset(fields, coordinates)


def write(kind: str, leads: int) -> None:
    warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part in the Zarr format 3")
    name, form = FORMATS[kind]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    with tempfile.TemporaryDirectory() as folder:
        writer = find_writer(forecast(leads), Path(folder) / name, form, ensemble_size=MEMBERS)
        started = time.perf_counter()
        for _ in range(writer.start(), writer.frames):
            writer.append()
        path = writer.finish()
        seconds = time.perf_counter() - started
        files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
        size = sum(file.stat().st_size for file in files)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    fields = MEMBERS * leads * len(ERA5_CHANNELS) * np.prod(GRID.shape) * 4
    print(
        f"{kind:13} {size / leads / MIB:7.0f} MiB a lead time ({size / fields:4.0%} of float32)"
        f" {seconds / leads:6.1f} s a lead time, {peak - before:5.0f} MiB above {before:.0f} MiB, {len(files)} files",
        flush=True,
    )


def main() -> None:
    leads = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    for kind in FORMATS:
        subprocess.run([sys.executable, __file__, str(leads), kind], check=True)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        write(sys.argv[2], int(sys.argv[1]))
    else:
        main()
