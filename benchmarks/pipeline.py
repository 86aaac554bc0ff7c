"""The data pipeline beside what it is compared with: layout of stores, regridding, statistics, memory.

`python benchmarks/pipeline.py [layout|regrid|statistics|memory]...` prints each figure with its ratio. Files come from
and go to a temporary folder, so they are read from the page cache: the figures are those of the processor.
"""

import contextlib
import io
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import dask
import numpy as np
import xarray as xr
import yaml
import zarr
from zarr.codecs import BloscCodec, ZstdCodec

from data_pipelines import Execution, StateSelection, StoreLayout
from data_pipelines.statistics import statistics
from data_pipelines.transfer import regrid
from ladcast.data.regrid import regrid as regrid_array
from ladcast.data.zarr_chunks import CHECKED
from ladcast.fields import ChannelSet
from ladcast.grid import Grid

HERE = Execution(workers=0)
REPEATS = 5
MB = 1e6
UPPER = ChannelSet(("temperature", "u_component_of_wind"), ("2m_temperature",), (250, 500, 850))
COMPRESSORS = {
    "zarr's default (zstd 0)": ZstdCodec(level=0),
    "zstd 3": ZstdCodec(level=3),
    "blosc lz4 5 + shuffle": BloscCodec(cname="lz4", clevel=5, shuffle="shuffle"),
    "blosc zstd 3 + shuffle": BloscCodec(cname="zstd", clevel=3, shuffle="shuffle"),
    "blosc zstd 3 + bitshuffle": BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle"),
    "blosc zstd 7 + shuffle": BloscCodec(cname="zstd", clevel=7, shuffle="shuffle"),
}


def weather(shape: tuple[int, ...], mean: float = 270.0) -> np.ndarray:
    """Returns float32 fields with a k^-3 spectrum, as the atmosphere has, that move slowly in time."""
    random = np.random.default_rng(0)
    *leading, rows, columns = shape
    y, x = np.meshgrid(np.fft.fftfreq(rows) * rows, np.fft.rfftfreq(columns) * columns, indexing="ij")
    amplitude = (1 + np.hypot(x, y)) ** -2.0
    phases = random.uniform(0, 2 * np.pi, (*leading, *amplitude.shape))
    fields = np.fft.irfft2(amplitude * np.exp(1j * phases), (rows, columns))
    return (mean + 10 * fields / fields.std()).astype(np.float32)


def best(actions: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Returns the least time of each action, in seconds; they take turns, so that all see the same noise."""
    times: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(REPEATS):
        for name, action in actions.items():
            started = time.perf_counter()
            action()
            times[name].append(time.perf_counter() - started)
    return {name: min(measured) for name, measured in times.items()}


def layout(folder: Path) -> None:
    values = weather((60, 13, 121, 240))
    print(f"Layout: {values.shape} float32, {values.nbytes / MB:.0f} MB; one chunk a frame unless said otherwise")
    print(f"{'':44}{'ratio':>7}{'write MB/s':>12}{'read MB/s':>11}{'frame ms':>10}{'pair ms':>9}")
    auto = {"chunks": "auto", "compressors": "auto"}
    measure(folder / "auto", "zarr-python as it comes (auto chunks)", values, auto)
    for name, compressor in COMPRESSORS.items():
        measure(folder / name, name, values, {"chunks": (1, *values.shape[1:]), "compressors": compressor})
    ours = {"compressors": CHECKED}
    for frames in (1, 4):
        sizes = {"chunks": (frames, *values.shape[1:]), "shards": (60, *values.shape[1:])}
        measure(folder / f"shard{frames}", f"ladcast: with crc32c, {frames} a chunk, shards", values, ours | sizes)
    surface = weather((600, 121, 240))
    print(f"A surface field: {surface.shape}, {surface.nbytes / MB:.0f} MB")
    for frames in (1, 8, 40):
        sizes = {"chunks": (frames, 121, 240), "shards": (120, 121, 240)}
        measure(folder / f"surface{frames}", f"ladcast: {frames} frames a chunk, shards of 120", surface, ours | sizes)


def measure(path: Path, label: str, values: np.ndarray, options: dict) -> None:
    """Writes an array, and reads it whole, frame by frame at random, and in pairs of neighbours."""
    zarr.create_array(str(path), data=values, **options)
    array = zarr.open_array(path, mode="r")
    stored = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    frames = np.random.default_rng(0).permutation(len(values) - 1)[:40].tolist()
    seconds = best(
        {
            "write": lambda: zarr.create_array(str(path), data=values, overwrite=True, **options),
            "read": lambda: array[:],
            "frame": lambda: [array[k] for k in frames],
            "pair": lambda: [array[k : k + 2] for k in frames],
        }
    )
    rates = f"{values.nbytes / MB / seconds['write']:12.0f}{values.nbytes / MB / seconds['read']:11.0f}"
    one, two = (1e3 * seconds[name] / len(frames) for name in ("frame", "pair"))
    print(f"{label:44}{values.nbytes / stored:7.2f}{rates}{one:10.2f}{two:9.2f}")


def world(frames: int, grid: Grid) -> xr.Dataset:
    """Returns a store's worth of plausible fields."""
    means = {"temperature": 260.0, "u_component_of_wind": 5.0, "2m_temperature": 287.0}
    variables = {}
    for name in UPPER.variables:
        levels = (len(UPPER.levels),) if name in UPPER.upper_air else ()
        dims = ("time", *(("level",) if levels else ()), "latitude", "longitude")
        variables[name] = (dims, weather((frames, *levels, *grid.shape), means[name]))
    times = np.datetime64("2001-01-01", "ns") + np.arange(frames) * np.timedelta64(6, "h")
    coordinates = {"time": times, "level": list(UPPER.levels)}
    horizontal = {"latitude": list(grid.latitude), "longitude": list(grid.longitude)}
    return xr.Dataset(variables, coordinates | horizontal)


def regridding(folder: Path) -> None:
    source, target = Grid.parse("1440x721"), Grid.parse("240x121")
    values = weather((8, *source.shape))
    dims = ("time", "latitude", "longitude")
    coordinates = {"latitude": list(source.latitude), "longitude": list(source.longitude)}
    field = xr.DataArray(values, coordinates, dims)
    places = {"latitude": list(target.latitude), "longitude": list(target.longitude)}
    print(f"Regridding {values.shape} to {target.shape}, {values.nbytes / MB:.0f} MB")
    actions: dict[str, Callable[[], object]] = {
        "ladcast, conservative": lambda: regrid_array(values, source, target),
        "xarray .interp, linear": lambda: field.interp(places),
        "xarray .coarsen(6).mean, no poles": lambda: coarsened(field),
    }
    if find_spec("xarray_regrid"):
        import_module("xarray_regrid")
        wanted = xr.Dataset(coords=places)
        actions["xarray-regrid, conservative"] = lambda: field.regrid.conservative(
            wanted, latitude_coord="latitude", skipna=False
        )
    else:
        print("xarray-regrid is not installed: pip install 'xarray-regrid[accel]'")
    report(best(actions), values.nbytes)


def coarsened(field: xr.DataArray) -> xr.DataArray:
    return field.isel(latitude=slice(0, 720)).coarsen(latitude=6, longitude=6).mean()


def summarising(folder: Path) -> None:
    ds = world(240, Grid.parse("240x121"))
    store, channels = folder / "world.zarr", folder / "channels.yaml"
    ds.chunk(time=1).to_zarr(store)
    channels.write_text(yaml.safe_dump(UPPER.to_dict()))
    selection = StateSelection(channels=str(channels))
    print(f"Statistics of {ds.sizes['time']} frames of {len(UPPER)} channels, {ds.nbytes / MB:.0f} MB, one process")
    number = iter(range(99))

    def ours() -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            statistics(store, folder / f"{next(number)}.json", selection=selection, execution=HERE)

    def by_dask(scheduler: str) -> None:
        lazy = xr.open_zarr(store, chunks={"time": 8})
        dask.compute(*mean_and_std(lazy), scheduler=scheduler)

    actions: dict[str, Callable[[], object]] = {
        "ladcast-data statistics": ours,
        "xarray .mean and .std, dask, one thread": lambda: by_dask("synchronous"),
        "xarray .mean and .std, dask, all threads": lambda: by_dask("threads"),
        "xarray .mean and .std, all in memory": lambda: mean_and_std(xr.open_zarr(store, chunks=None).load()),
    }
    report(best(actions), ds.nbytes)


def mean_and_std(ds: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset]:
    over = ("time", "latitude", "longitude")
    return ds.mean(over, dtype=np.float64), ds.std(over, dtype=np.float64)


def memory(folder: Path) -> None:
    channels = folder / "channels.yaml"
    channels.write_text(yaml.safe_dump(UPPER.to_dict()))
    selection, peaks = StateSelection(channels=str(channels)), {}
    for frames in (120, 1200):
        store = folder / f"{frames}.zarr"
        for part in range(0, frames, 120):
            ds = world(120, Grid.parse("240x121"))
            ds = ds.assign_coords(time=ds["time"].values + part * np.timedelta64(6, "h"))
            ds.chunk(time=1).to_zarr(store, **({"append_dim": "time"} if part else {}))
        peaks[frames] = {
            "regrid": peak(run_regrid, store, folder / f"{frames}-coarse.zarr", selection),
            "statistics": peak(run_statistics, store, folder / f"{frames}.json", selection),
        }
        print(f"{frames:5} frames, {frames * 7 * 121 * 240 * 4 / MB:6.0f} MB: peak RSS {describe(peaks[frames])}")
    ratios = {name: peaks[1200][name] / peaks[120][name] for name in peaks[120]}
    print(f"   10 times as long: {', '.join(f'{name} {ratio:.2f} times' for name, ratio in ratios.items())}")


def run_regrid(store: Path, output: Path, selection: StateSelection) -> None:
    regrid(store, output, onto="120x61", selection=selection, layout=StoreLayout(shard_frames=120), execution=HERE)


def run_statistics(store: Path, output: Path, selection: StateSelection) -> None:
    statistics(store, output, selection=selection, execution=HERE)


def peak(
    stage: Callable[[Path, Path, StateSelection], None], store: Path, output: Path, selection: StateSelection
) -> float:
    """Returns the peak memory (MB) of a stage in a process of its own."""
    context = multiprocessing.get_context("spawn")
    answers = context.SimpleQueue()
    process = context.Process(target=measured, args=(answers, stage, store, output, selection))
    process.start()
    megabytes = answers.get()
    process.join()
    return megabytes


def measured(answers, stage, store: Path, output: Path, selection: StateSelection) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        stage(store, output, selection)
    # Not `getrusage`, which begins with the peak of the process that started this one.
    lines = Path("/proc/self/status").read_text().splitlines()
    answers.put(next(int(line.split()[1]) / 1e3 for line in lines if line.startswith("VmHWM")))


def describe(peaks: dict[str, float]) -> str:
    return ", ".join(f"{name} {megabytes:.0f} MB" for name, megabytes in peaks.items())


def report(seconds: dict[str, float], size: int) -> None:
    """Prints the rate of each, and its time as a multiple of the first."""
    reference = next(iter(seconds.values()))
    for name, took in seconds.items():
        print(f"  {name:42}{size / MB / took:8.0f} MB/s   {took / reference:6.2f} times the time")


PARTS = {"layout": layout, "regrid": regridding, "statistics": summarising, "memory": memory}


def main() -> None:
    versions = (
        f"zarr {zarr.__version__}, xarray {xr.__version__}, numpy {np.__version__}, Python {sys.version.split()[0]}"
    )
    print(f"{os.cpu_count()} cores; {versions}; best of {REPEATS}")
    for name in sys.argv[1:] or PARTS:
        with tempfile.TemporaryDirectory() as folder:
            print()
            PARTS[name](Path(folder))


if __name__ == "__main__":
    main()
