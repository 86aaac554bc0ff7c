"""Shuffled training samples from a Zarr store: samples a second of the loader beside other ways to read them.

All read the same store, which lies in the page cache, in the same random order. Ours, xarray and xbatcher give
normalised float32 tensors; zarr-python gives arrays as they are stored; the copy moves samples that are in memory.
One more line reads all frames in their order into memory, as float16, which serves them afterwards.
"""

import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import xarray as xr
import zarr
from zarr.codecs import BloscCodec

from ladcast.data.batches import SampleOrder, StoredStates, load_batches, load_scaled
from ladcast.data.normalization import Normalizer, pack
from ladcast.data.reader import open_reader
from ladcast.data.store import open_store
from ladcast.fields import ERA5_CHANNELS, VARIABLES
from ladcast.grid import Grid

CASES = {"1.5 deg": ("240x121", 48), "T31": ("64x33", 480)}
FRAMES_PER_SHARD, BATCH, REPEATS = 24, 8, 3


def main() -> None:
    torch.set_num_threads(1)
    versions = ", ".join(f"{name} {version(name)}" for name in ("zarr", "xarray", "numpy", "torch"))
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, {versions}")
    for label, (grid, frames) in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "states.zarr"
            write(path, Grid.parse(grid), frames)
            report(label, path, Grid.parse(f"{grid}-south"), frames)


def report(label: str, path: Path, grid: Grid, frames: int) -> None:
    """Prints the rate of every reader, and what part of ours it is."""
    ds = open_store(path, ERA5_CHANNELS, grid)
    state = pack(ds.isel(time=slice(8)), ERA5_CHANNELS).numpy()
    mean, std = (torch.from_numpy(f(state, axis=(0, 2, 3))) for f in (np.nanmean, np.nanstd))
    normalizer = Normalizer(ERA5_CHANNELS, mean, std)
    size = state[0].nbytes
    stored = sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) / frames
    print(f"\n{label}: {frames} frames of {size / 1e6:.2f} MB, {stored / 1e6:.2f} MB on disk, batches of {BATCH}")
    rates = {name: best_rates(read, frames) for name, read in readers(path, ds, normalizer).items()}
    ours = rates["ladcast, 1 thread"][0]
    for name, (rate, of_core) in rates.items():
        speed = f"{rate:8.0f} samples/s  {rate * size / 1e9:6.3f} GB/s  {rate / ours:7.3f} of ours"
        print(f"{name:30s} {speed}  {of_core:8.0f} samples a CPU second")
    if find_spec("xbatcher") is None:
        print("xbatcher                       skipped: it is not installed (pip install xbatcher)")


def readers(path: Path, ds: xr.Dataset, normalizer: Normalizer) -> dict[str, Callable[[int], object]]:
    """Returns functions that read all samples once, in the order of an epoch."""
    held = torch.empty(ds.sizes["time"], len(ERA5_CHANNELS), ds.sizes["latitude"], ds.sizes["longitude"])
    held.normal_()
    group = zarr.open_group(path, mode="r")
    plain, direct = open_reader(ds, normalizer), open_reader(ds, normalizer, path)

    def loader(threads: int, epoch: int) -> None:
        source = StoredStates(direct, threads=1)
        per_epoch = len(source) // BATCH
        steps = range(epoch * per_epoch, (epoch + 1) * per_epoch)
        order = SampleOrder(len(source), BATCH)
        for _ in load_batches(source, order, steps=steps, device=torch.device("cpu"), threads=threads):
            pass

    def in_memory(epoch: int) -> None:
        load_scaled(direct, threads=1)

    def copy(epoch: int) -> None:
        out = torch.empty(BATCH, *held.shape[1:])
        for batch in epoch_order(len(held), epoch).reshape(-1, BATCH):
            for place, frame in enumerate(batch):
                out[place].copy_(held[frame])

    def zarr_python(epoch: int) -> None:
        for frame in epoch_order(len(held), epoch):
            for name in ERA5_CHANNELS.variables:
                group[name][int(frame)]

    def xarray(epoch: int) -> None:
        out = np.empty((1, *held.shape[1:]), np.float32)
        for frame in epoch_order(len(held), epoch):
            plain.read(np.array([frame]), out)

    found: dict[str, Callable[[int], object]] = {
        "ladcast, 1 thread": lambda epoch: loader(1, epoch),
        "ladcast, 2 threads": lambda epoch: loader(2, epoch),
        "ladcast, all into memory": in_memory,
        "zarr-python, as stored": zarr_python,
        "xarray isel, pack, normalise": xarray,
        "memory copy": copy,
    }
    if find_spec("xbatcher") is not None:
        found["xbatcher, pack, normalise"] = lambda epoch: xbatcher(ds, normalizer, epoch)
    return found


def xbatcher(ds: xr.Dataset, normalizer: Normalizer, epoch: int) -> None:
    from xbatcher import BatchGenerator

    states = ds[list(ERA5_CHANNELS.variables)]
    batches = BatchGenerator(states, {**states.sizes, "time": 1})
    for frame in epoch_order(ds.sizes["time"], epoch):
        normalizer(pack(batches[int(frame)], ERA5_CHANNELS))


def epoch_order(samples: int, epoch: int) -> np.ndarray:
    return np.random.default_rng(epoch).permutation(samples)


def best_rates(read: Callable[[int], object], samples: int) -> tuple[float, float]:
    """Returns samples per second, and per second of one core: the first also tells how busy the machine was."""
    seconds, core_seconds = [], []
    for epoch in range(REPEATS):
        started, core_started = time.perf_counter(), time.process_time()
        read(epoch)
        seconds.append(time.perf_counter() - started)
        core_seconds.append(time.process_time() - core_started)
    return samples / min(seconds), samples / min(core_seconds)


def write(path: Path, grid: Grid, frames: int) -> None:
    """Writes plausible states in the layout of WeatherBench 2: a frame a chunk, in shards."""
    rows, columns = grid.shape
    sizes = {"time": frames, "level": len(ERA5_CHANNELS.levels), "longitude": columns, "latitude": rows}
    variables = {}
    for name in ERA5_CHANNELS.variables:
        dims = tuple(dim for dim in sizes if dim != "level" or VARIABLES[name].on_levels)
        variables[name] = (dims, np.stack(list(fields(name, grid, frames))))
    coordinates = {
        "time": np.datetime64("2020-01-01", "ns") + np.arange(frames) * np.timedelta64(6, "h"),
        "level": list(ERA5_CHANNELS.levels),
        "longitude": list(grid.longitude),
        "latitude": list(grid.latitude),
    }
    encoding = {}
    for name, (dims, _) in variables.items():
        frame = tuple(sizes[dim] for dim in dims[1:])
        compressor = BloscCodec(cname="zstd", clevel=3, shuffle="shuffle")
        encoding[name] = {"chunks": (1, *frame), "shards": (FRAMES_PER_SHARD, *frame), "compressors": compressor}
    ds = xr.Dataset(variables, coords=coordinates)
    ds.to_zarr(path, zarr_format=3, encoding=encoding, consolidated=False)


def fields(name: str, grid: Grid, frames: int) -> Iterator[np.ndarray]:
    """Yields fields of a variable with the spectrum of the atmosphere (k^-3), so that they compress as it does."""
    about = VARIABLES[name]
    rows, columns = grid.shape
    levels = ERA5_CHANNELS.levels if about.on_levels else (None,)
    low, high = about.plausible
    if name == "geopotential":
        middle = 9.80665 * 8000 * np.log(1013 / np.array(levels))
    else:
        middle = np.full(len(levels), (low + high) / 2)
    wave = np.hypot(np.fft.fftfreq(columns, 1 / columns)[:, None], np.arange(rows // 2 + 1))
    spectrum = np.maximum(wave, 1) ** -2
    random = np.random.default_rng(len(name))
    patterns = np.fft.irfft2(np.fft.rfft2(random.standard_normal((16, columns, rows))) * spectrum, (columns, rows))
    patterns -= patterns.mean((1, 2), keepdims=True)
    patterns *= (high - low) / 100 / patterns.std()
    for frame in range(frames):
        field = np.stack([m + np.roll(patterns[(frame + k) % 16], frame, 0) for k, m in enumerate(middle)])
        if about.masked_on_land:
            field[:, : columns // 3] = np.nan
        yield (field if about.on_levels else field[0]).astype(np.float32)


if __name__ == "__main__":
    main()
