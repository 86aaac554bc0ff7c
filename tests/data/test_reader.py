"""Frames read straight from chunks are `normalizer(pack(ds))`, bit for bit, from every layout; faults are named."""

import pickle
import threading
import warnings
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
import zarr
from zarr.codecs import BloscCodec

from ladcast.data.batches import SampleOrder, StoredStates, load_batches
from ladcast.data.normalization import Normalizer, pack
from ladcast.data.reader import ChunkReader, StateReader, XarrayReader, open_reader
from ladcast.data.store import open_store
from ladcast.fields import ChannelSet
from ladcast.grid import Grid

FRAMES = 11


@pytest.fixture
def long_world(make, grid: Grid) -> xr.Dataset:
    return make(grid, FRAMES)


@pytest.fixture
def normalizer(long_world: xr.Dataset, channels: ChannelSet) -> Normalizer:
    state = pack(long_world, channels).numpy()
    mean, std = (torch.from_numpy(f(state, axis=(0, 2, 3))) for f in (np.nanmean, np.nanstd))
    return Normalizer(channels, mean, std)


def write(ds: xr.Dataset, path: Path, *, frames: int = 1, shard: int = 4, zarr_format: int = 3) -> Path:
    """Writes a store of `frames` a chunk and, in Zarr v3, `shard` a file."""
    encoding = {}
    for name, field in ds.data_vars.items():
        if "time" in field.dims:
            sizes = tuple(ds.sizes[dim] for dim in field.dims[1:])
            encoding[name] = {"chunks": (frames, *sizes)}
            if zarr_format == 3:
                encoding[name] |= {"shards": (shard, *sizes), "compressors": BloscCodec(cname="zstd")}
    ds.to_zarr(path, zarr_format=zarr_format, encoding=encoding, consolidated=False)
    return path


def read(reader: StateReader, frames: list[int]) -> torch.Tensor:
    out = np.full((len(frames), *reader.shape), np.nan, np.float32)
    reader.read(np.array(frames), out)
    return torch.from_numpy(out)


def rolled(ds: xr.Dataset) -> xr.Dataset:
    """Returns the dataset with longitudes from -180 degrees."""
    return ds.assign_coords(longitude=(ds["longitude"] + 180) % 360 - 180).sortby("longitude")


def with_more_levels(ds: xr.Dataset) -> xr.Dataset:
    """Returns the dataset with levels that the channel set has not."""
    return xr.concat([ds, ds.sel(level=[850]).assign_coords(level=[925])], "level", data_vars="minimal")


SOURCES: dict[str, Callable[[xr.Dataset], xr.Dataset]] = {
    "canonical": lambda ds: ds,
    "WeatherBench 2": lambda ds: ds.transpose("time", "level", "longitude", "latitude"),
    "north to south": lambda ds: ds.isel(latitude=slice(None, None, -1)),
    "from -180 degrees": rolled,
    "levels from the ground": lambda ds: ds.isel(level=slice(None, None, -1)),
    "levels in no order": lambda ds: ds.isel(level=[1, 2, 0]),
    "more levels": with_more_levels,
    "levels last": lambda ds: ds.transpose("time", "latitude", "longitude", "level"),
    "ECMWF names": lambda ds: ds.rename(
        {"temperature": "t", "geopotential": "z", "2m_temperature": "t2m", "latitude": "lat", "longitude": "lon"}
    ),
    "float64": lambda ds: ds.astype(np.float64),
    "float16": lambda ds: ds.assign(temperature=ds["temperature"].astype(np.float16)),
}


@pytest.mark.slow
@pytest.mark.parametrize("change", SOURCES.values(), ids=SOURCES.keys())
def test_frames_are_the_normalised_ones_bit_for_bit(tmp_path, long_world, channels, normalizer, change):
    path = write(change(long_world), tmp_path / "states.zarr")
    ds = open_store(path, channels)
    reader = open_reader(ds, normalizer, path)
    assert isinstance(reader, ChunkReader)
    frames = [7, 0, 10, 3, 3]
    assert torch.equal(read(reader, frames), normalizer(pack(ds, channels))[frames])
    assert torch.equal(read(XarrayReader(ds, normalizer), frames), read(reader, frames))


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"frames": 2}, {"frames": 4}, {"shard": 1}, {"zarr_format": 2, "frames": 3}])
def test_chunks_may_hold_any_number_of_frames(tmp_path, long_world, channels, normalizer, options: dict):
    path = write(long_world, tmp_path / "states.zarr", **options)
    reader = open_reader(open_store(path, channels), normalizer, path)
    assert isinstance(reader, ChunkReader)
    frames = [9, 2, 3, 10, 2, 0]
    assert torch.equal(read(reader, frames), normalizer(pack(long_world, channels))[frames])


def test_a_selection_of_times_and_rows_keeps_its_own(tmp_path, long_world, channels, normalizer, grid: Grid):
    path = write(long_world, tmp_path / "states.zarr", frames=2)
    ds = open_store(path, channels, grid.without_south_pole()).isel(time=[1, 4, 5, 9])
    reader = open_reader(ds, normalizer, path)
    assert isinstance(reader, ChunkReader)
    assert (reader.times == ds["time"].values).all()
    assert reader.shape == (len(channels), 8, 16)
    assert torch.equal(read(reader, [3, 1]), normalizer(pack(long_world, channels))[[9, 4], :, 1:])


def test_files_beside_the_arrays_are_no_matter_of_a_warning(tmp_path, long_world, channels, normalizer):
    store = write(long_world, tmp_path / "states.zarr")
    zarr.consolidate_metadata(store)
    (store / "manifest.json").write_text("{}")
    (store / "restart").mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("error", zarr.errors.ZarrUserWarning)
        reader = open_reader(open_store(store, channels), normalizer, store)
    assert isinstance(reader, ChunkReader)


@pytest.mark.slow
def test_real_era5_is_read_as_through_xarray(shared: Path, tmp_path: Path):
    raw = xr.open_dataset(shared / "kit/era5/era5_6var_2deg_hourly_20190105.nc")
    path = write(raw, tmp_path / "era5.zarr")
    ds = open_store(path)
    channels = ChannelSet(tuple(name for name in ds if name in raw), (), tuple(ds["level"].values.tolist()))
    state = pack(ds, channels)
    normalizer = Normalizer(channels, state.mean((0, 2, 3)), state.std((0, 2, 3)))
    reader = open_reader(ds, normalizer, path)
    assert isinstance(reader, ChunkReader)
    assert torch.equal(read(reader, list(range(10))), normalizer(state))


@pytest.mark.slow
def test_a_resumed_run_reads_the_same_states(tmp_path, long_world, channels, normalizer):
    path = write(long_world, tmp_path / "states.zarr", frames=2)
    reader = open_reader(open_store(path, channels), normalizer, path)
    order, cpu = SampleOrder(FRAMES, 4, seed=2), torch.device("cpu")
    whole = list(load_batches(StoredStates(reader), order, steps=range(9), device=cpu))
    for stopped, threads in product((0, 1, 5), (1, 3)):
        source = StoredStates(reader, threads=threads)
        rest = list(load_batches(source, order, steps=range(stopped, 9), device=cpu, threads=threads))
        assert len(rest) == 9 - stopped
        for (scaled,), (again,) in zip(whole[stopped:], rest, strict=True):
            assert torch.equal(scaled, again)


def test_a_run_that_stops_early_leaves_no_threads(tmp_path, long_world, channels, normalizer):
    path = write(long_world, tmp_path / "states.zarr")
    source = StoredStates(open_reader(open_store(path, channels), normalizer, path), threads=3)
    before = set(threading.enumerate())
    batches = load_batches(source, SampleOrder(FRAMES, 4), steps=range(100), device=torch.device("cpu"))
    next(batches)
    batches.close()
    assert set(threading.enumerate()) == before


@pytest.mark.slow
def test_a_reader_goes_to_another_process(tmp_path, long_world, channels, normalizer):
    path = write(long_world, tmp_path / "states.zarr")
    reader = open_reader(open_store(path, channels), normalizer, path)
    assert torch.equal(read(pickle.loads(pickle.dumps(reader)), [5, 2]), read(reader, [5, 2]))


def test_packed_values_are_read_through_xarray_with_a_warning(tmp_path, long_world, channels, normalizer):
    packed = {"dtype": "int16", "scale_factor": 0.01, "add_offset": 250.0, "_FillValue": -9999}
    long_world.to_zarr(tmp_path / "states.zarr", encoding={"temperature": packed}, consolidated=False)
    ds = open_store(tmp_path / "states.zarr", channels)
    with pytest.warns(UserWarning, match=r"through xarray, which is slower: .*temperature has packed or masked"):
        reader = open_reader(ds, normalizer, tmp_path / "states.zarr")
    assert torch.equal(read(reader, [4, 1]), normalizer(pack(ds, channels))[[4, 1]])


def test_a_netcdf_file_is_read_through_xarray_with_a_warning(tmp_path, long_world, channels, normalizer):
    long_world.to_netcdf(tmp_path / "states.nc")
    ds = open_store(tmp_path / "states.nc", channels)
    with pytest.warns(UserWarning, match="it is no Zarr store on a local disk"):
        reader = open_reader(ds, normalizer, tmp_path / "states.nc")
    assert torch.equal(read(reader, [4, 1]), normalizer(pack(long_world, channels))[[4, 1]])


def test_the_dataset_of_another_store_is_refused(tmp_path, long_world, channels, normalizer):
    path = write(long_world, tmp_path / "states.zarr")
    other = open_store(long_world.assign(temperature=long_world["temperature"] + 1), channels)
    with pytest.raises(ValueError, match=r"dataset that `open_store` gives for .*states\.zarr, got another"):
        open_reader(other, normalizer, path)
    later = open_store(long_world.assign_coords(time=long_world["time"] + np.timedelta64(1, "D")), channels)
    with pytest.raises(ValueError, match="coordinates of the dataset in its store"):
        open_reader(later, normalizer, path)


def holed(ds: xr.Dataset, name: str, frame: int) -> xr.Dataset:
    """Returns the dataset with NaN in one field at one time."""
    return ds.assign({name: ds[name].where(ds["time"] != ds["time"][frame])})


@pytest.mark.slow
@pytest.mark.parametrize("name", ["specific_humidity", "2m_temperature", "sea_surface_temperature"])
def test_a_field_of_nan_is_named_with_its_time(tmp_path, long_world, channels, normalizer, name: str):
    path = write(holed(long_world, name, 6), tmp_path / "states.zarr", frames=2)
    reader = open_reader(open_store(path, channels), normalizer, path)
    read(reader, [5, 7])
    with pytest.raises(
        ValueError, match=rf"'{name}' at 2020-01-02T12: expected finite .*states\.zarr/{name}, got 100% NaN"
    ):
        read(reader, [5, 6, 7])


@pytest.mark.slow
@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinities_are_named_where_land_may_have_any_value(tmp_path, long_world, channels, normalizer, value: float):
    sst = long_world["sea_surface_temperature"].copy(deep=True)
    sst[6, -1, -1] = value
    path = write(long_world.assign(sea_surface_temperature=sst), tmp_path / "states.zarr", frames=2)
    reader = open_reader(open_store(path, channels), normalizer, path)
    with pytest.raises(ValueError, match=r"'sea_surface_temperature' at 2020-01-02T12: expected finite"):
        read(reader, [6])


def test_nan_read_through_xarray_is_named_with_its_time(long_world, channels, normalizer):
    reader = open_reader(holed(long_world, "temperature", 6), normalizer)
    with pytest.raises(ValueError, match=r"2020-01-02T12: Expected finite values in the state, .* t300, t500, t850"):
        read(reader, [6])


def test_a_broken_chunk_stops_the_batch_that_needs_it(tmp_path, long_world, channels, normalizer):
    path = write(long_world, tmp_path / "states.zarr", shard=1)
    reader = open_reader(open_store(path, channels), normalizer, path)
    file = path / "temperature/c/6/0/0/0"
    file.write_bytes(file.read_bytes()[:-8])
    order = SampleOrder(FRAMES, 1, seed=1)
    bad = next(step for step in range(FRAMES) if order.batch(step)[0] == 6)
    batches = load_batches(StoredStates(reader), order, steps=range(FRAMES), device=torch.device("cpu"))
    for _ in range(bad):
        next(batches)
    with pytest.raises(ValueError, match=r"'temperature' at 2020-01-02T12: .*states\.zarr/temperature/c/6/0/0/0"):
        next(batches)
