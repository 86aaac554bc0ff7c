"""Zarr stores in the layout of WeatherBench 2, written block by block in whole shards."""

from __future__ import annotations

import math
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
import zarr
from zarr.codecs import BloscCodec

from data_pipelines.gcm.manifest import write_manifest
from ladcast.fields import ERA5_CHANNELS, VARIABLES, find_variable
from ladcast.grid import Grid

FIXED_ATTRIBUTES = {
    "geopotential_at_surface": {"units": "m2 s-2", "standard_name": "surface_geopotential"},
    "land_sea_mask": {"units": "1", "standard_name": "land_area_fraction"},
}
SURFACE_PRESSURE = {"units": "Pa", "standard_name": "surface_air_pressure"}
WRITERS = 16
CHUNK_BYTES = 2**20

Region = tuple[slice | int, ...]


@dataclass(frozen=True)
class Layout:
    """Describes a store: its leading axes with their coordinates, and how many of each make a shard."""

    axes: dict[str, npt.NDArray[Any]]
    shard: tuple[int, ...]
    grid: Grid
    levels_hpa: tuple[int, ...]

    def create(
        self,
        path: Path,
        fixed: Mapping[str, npt.NDArray[np.float32]],
        attributes: dict[str, Any],
        manifest: dict[str, Any],
    ) -> None:
        """Creates all coordinates, fixed fields `(lon, lat)` and empty variables; `path` appears complete.

        One chunk is one frame with all levels, or several where frames are small, as each chunk costs a reader
        about a millisecond; one shard is what a writer writes at once.
        """
        partial = path.with_name(path.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        with _quiet():
            coordinates = self._coordinates(fixed, attributes)
            coordinates.to_zarr(partial, zarr_format=3, consolidated=False)
            group = zarr.open_group(partial)
            for name, dimensions in self.variables().items():
                self._create_variable(group, name, dimensions)
            zarr.consolidate_metadata(partial)
        write_manifest(partial, manifest)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.rename(path)

    def variables(self) -> dict[str, tuple[str, ...]]:
        """Returns the dimensions of every variable."""
        on_levels = {name: VARIABLES[name].on_levels for name in ERA5_CHANNELS.variables} | {"surface_pressure": False}
        return {
            name: (*self.axes, *(("level",) if levels else ()), "longitude", "latitude")
            for name, levels in on_levels.items()
        }

    def _coordinates(self, fixed: Mapping[str, npt.NDArray[np.float32]], attributes: dict[str, Any]) -> xr.Dataset:
        horizontal = ("longitude", "latitude")
        dataset = xr.Dataset(
            {name: (horizontal, np.asarray(field), FIXED_ATTRIBUTES[name]) for name, field in fixed.items()},
            {
                **self.axes,
                "level": ("level", np.asarray(self.levels_hpa, np.int64), {"units": "hPa"}),
                "longitude": ("longitude", np.asarray(self.grid.longitude), {"units": "degrees_east"}),
                "latitude": ("latitude", np.asarray(self.grid.latitude), {"units": "degrees_north"}),
            },
            attributes,
        )
        for name in self.axes:
            if np.issubdtype(dataset[name].dtype, np.datetime64):
                dataset[name].encoding = {"units": "hours since 1970-01-01", "dtype": "int64"}
            elif np.issubdtype(dataset[name].dtype, np.timedelta64):
                dataset[name].encoding = {"units": "hours", "dtype": "int64"}
        return dataset

    def _create_variable(self, group: zarr.Group, name: str, dimensions: tuple[str, ...]) -> None:
        rows, columns = self.grid.shape
        sizes = {"level": len(self.levels_hpa), "longitude": columns, "latitude": rows}
        field = tuple(sizes[dimension] for dimension in dimensions[len(self.axes) :])
        about = VARIABLES.get(name)
        described = {"units": about.units, "standard_name": about.standard_name} if about else SURFACE_PRESSURE
        group.create_array(
            name,
            shape=(*(len(axis) for axis in self.axes.values()), *field),
            dtype="float32",
            chunks=(*(1 for _ in self.shard[1:]), _frames_per_chunk(self.shard[-1], field), *field),
            shards=(*self.shard, *field),
            compressors=BloscCodec(cname="zstd", clevel=3, shuffle="shuffle"),
            fill_value=float("nan"),
            dimension_names=dimensions,
            attributes={"long_name": name.replace("_", " "), **described},
        )


def _frames_per_chunk(shard_frames: int, field: tuple[int, ...]) -> int:
    """Returns how many frames of this shape make a chunk of at most `CHUNK_BYTES`: a divisor of the shard."""
    most = max(CHUNK_BYTES // (4 * math.prod(field)), 1)
    return max(n for n in range(1, shard_frames + 1) if shard_frames % n == 0 and n <= most)


@dataclass(frozen=True)
class Range:
    """Summarises values for a look at a store without reading it."""

    low: float
    high: float
    total: float
    count: int

    @classmethod
    def of(cls, values: npt.NDArray[np.float32]) -> Range:
        """Summarises an array; anything not finite makes an end not finite."""
        return cls(float(values.min()), float(values.max()), float(values.sum(dtype=np.float64)), values.size)

    def __add__(self, other: Range) -> Range:
        return Range(
            min(self.low, other.low),
            max(self.high, other.high),
            self.total + other.total,
            self.count + other.count,
        )

    def describe(self) -> dict[str, float]:
        """Returns minimum, maximum and the unweighted mean."""
        return {"min": self.low, "max": self.high, "mean": self.total / self.count}


class ShardWriter:
    """Checks fields and writes them into whole shards of a store, all variables at once."""

    def __init__(self, path: Path) -> None:
        with _quiet():
            self._arrays = dict(zarr.open_group(path, mode="r+").arrays())
        self._ocean = np.asarray(self._arrays["land_sea_mask"]) <= 0.5

    def write(
        self,
        frames: Mapping[str, npt.NDArray[np.float32]],
        regions: Sequence[Region],
        labels: npt.NDArray[np.str_],
    ) -> dict[str, Range]:
        """Writes `frames[name][:, k]` to region k of every variable and returns the range of each variable.

        `frames` are `(time, member, [level,] lon, lat)`; `labels[time, member]` names a frame in an error.

        Raises:
            FloatingPointError: a value is not finite (the sea surface temperature may be NaN over land).
        """
        with ThreadPoolExecutor(WRITERS) as pool:
            ranges = pool.map(lambda name: self._check(name, frames[name], labels), frames)
            found = dict(zip(frames, ranges, strict=True))
            jobs = [
                pool.submit(self._write_region, name, values[:, member], region)
                for name, values in frames.items()
                for member, region in enumerate(regions)
            ]
            for job in jobs:
                job.result()
        return found

    def _write_region(self, name: str, values: npt.NDArray[np.float32], region: Region) -> None:
        self._arrays[name][region] = values

    def _check(self, name: str, values: npt.NDArray[np.float32], labels: npt.NDArray[np.str_]) -> Range:
        checked = values[..., self._ocean] if find_variable(name).masked_on_land else values
        found = Range.of(checked)
        if np.isfinite([found.low, found.high]).all():
            return found
        bad = ~np.isfinite(checked.reshape(*labels.shape, -1)).all(axis=-1)
        raise FloatingPointError(
            f"{name} is not finite in {labels[bad][0]}: the model became unstable. "
            "What was written before stays; try another seed or a longer spin-up in a new store."
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences zarr's warning that consolidated metadata is no part of the version 3 specification."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Consolidated metadata", category=UserWarning)
        yield
