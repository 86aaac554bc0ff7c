"""Reads normalised states of a store into memory that the caller owns: straight from chunks where that is possible."""

from __future__ import annotations

import warnings
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import xarray as xr
from jaxtyping import Float32

from ladcast.data.lazy import as_slice
from ladcast.data.lexicon import canonical_names
from ladcast.data.normalization import Normalizer, pack
from ladcast.data.weather import extremes, percent
from ladcast.data.zarr_chunks import ChunkedArray, ChunkError, UnsupportedLayoutError, check_encoding, open_array
from ladcast.fields import find_variable
from ladcast.files import is_consolidated
from ladcast.grid import TOLERANCE_DEG
from ladcast.times import Times, describe


@runtime_checkable
class StateReader(Protocol):
    """Reads states by number, normalised."""

    @property
    def times(self) -> Times:
        """Returns the time of every state."""
        ...

    @property
    def shape(self) -> tuple[int, int, int]:
        """Returns the size of a state: (channel, lat, lon)."""
        ...

    def read(self, indices: npt.NDArray[np.int64], out: Float32[np.ndarray, "time channel lat lon"]) -> None:
        """Writes the normalised states at `indices` into `out`, in any number of threads at once.

        Raises:
            ValueError: a chunk is missing or broken, or a field has NaN that is not land in the SST.
        """
        ...


def open_reader(ds: xr.Dataset, normalizer: Normalizer, store: Path | None = None) -> StateReader:
    """Returns a reader of the states of `ds`, a dataset as `open_store` gives it, or a selection of its times.

    `store` is the Zarr store that `ds` was opened from. Where its chunks hold whole states on a local disk, they are
    read without xarray; else a warning says why not. Both give the same numbers, bit for bit, as
    `normalizer(pack(ds, channels))`.

    Raises:
        ValueError: `ds` is not from `store`.
    """
    plain = XarrayReader(ds, normalizer)
    if store is None:
        return plain
    try:
        direct = ChunkReader.open(store, ds, normalizer)
    except UnsupportedLayoutError as reason:
        warnings.warn(f"Reads {store} through xarray, which is slower: {reason}.", stacklevel=2)
        return plain
    _check_same(direct, plain, store)
    return direct


@dataclass(frozen=True, eq=False)
class XarrayReader:
    """Reads any dataset through xarray."""

    ds: xr.Dataset
    normalizer: Normalizer

    @property
    def times(self) -> Times:
        """Returns the time of every state."""
        return self.ds["time"].values.astype("datetime64[ns]")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Returns (channel, lat, lon)."""
        return len(self.normalizer.channels), self.ds.sizes["latitude"], self.ds.sizes["longitude"]

    def read(self, indices: npt.NDArray[np.int64], out: Float32[np.ndarray, "time channel lat lon"]) -> None:
        """Writes the normalised states at `indices` into `out`; raises ValueError where a field has NaN."""
        state = pack(self.ds.isel(time=indices), self.normalizer.channels)
        try:
            out[...] = self.normalizer(state).numpy()
        except ValueError as error:
            raise ValueError(f"{describe(self.times[indices])}: {error}") from error


@dataclass(frozen=True, eq=False)
class ChunkReader:
    """Reads a local Zarr store by whole chunks: decompresses, reorders and normalises each state in one pass."""

    times: Times
    shape: tuple[int, int, int]
    positions: npt.NDArray[np.int64]
    """Place of every state along the time axis of the store."""
    fields: tuple[ChunkedField, ...]
    std: npt.NDArray[np.float32]
    land: np.float32
    """Scaled value of the SST on land."""
    lowest: npt.NDArray[np.float64]
    highest: npt.NDArray[np.float64]
    """Scaled bounds of the values of each channel."""

    @classmethod
    def open(cls, store: Path, ds: xr.Dataset, normalizer: Normalizer) -> ChunkReader:
        """Finds the states of `ds` in the store; raises UnsupportedLayoutError where xarray must read it."""
        raw = _open_raw(store)
        channels = normalizer.channels
        times = ds["time"].values.astype("datetime64[ns]")
        fields = tuple(ChunkedField.open(store, raw, ds, name, normalizer) for name in channels.variables)
        shape = (len(channels), ds.sizes["latitude"], ds.sizes["longitude"])
        positions = _places(_coordinate(raw, "time"), _coordinate(ds, "time"))
        std = normalizer.std.numpy().reshape(-1, 1, 1)
        bounds = np.array([extremes(channel) for channel in channels])
        lowest, highest = ((bounds - normalizer.mean.numpy()[:, None]) / normalizer.std.numpy()[:, None]).T
        lowest[list(channels.masked_on_land)] = -np.inf  # where land may have any value
        largest = float(np.finfo(np.float32).max)  # infinities are beyond any bounds
        lowest, highest = lowest.clip(-largest), highest.clip(max=largest)
        return cls(times, shape, positions, fields, std, np.float32(normalizer.sst_fill), lowest, highest)

    def read(self, indices: npt.NDArray[np.int64], out: Float32[np.ndarray, "time channel lat lon"]) -> None:
        """Writes the normalised states at `indices` into `out`; raises ValueError that names the file and the time."""
        for field in self.fields:
            by_chunk = defaultdict[int, list[tuple[int, int]]](list)
            for place, position in enumerate(self.positions[indices].tolist()):
                chunk, within = divmod(position, field.array.states_per_chunk)
                by_chunk[chunk].append((place, within))
            for chunk, places in by_chunk.items():
                try:
                    values = field.read_chunk(chunk)
                except ChunkError as error:
                    times = self.times[indices[[place for place, _ in places]]]
                    raise ValueError(f"'{field.name}' at {describe(times)}: {error}") from error
                for place, within in places:
                    np.subtract(values[within], field.mean, out=out[place, field.channels])
        for state, centred in zip(indices.tolist(), out, strict=True):
            self._finish(centred, state)

    def _finish(self, centred: npt.NDArray[np.float32], state: int) -> None:
        """Divides a state by the standard deviation, in place, and fills land.

        All channels at once: a call of numpy hands the interpreter to another thread, which takes longer than the sum.
        """
        np.divide(centred, self.std, out=centred)
        self._fill_land(centred, state)
        # The largest and smallest are NaN where any is: two fast passes for a check of all values.
        rows = centred.reshape(len(centred), -1)
        inside = (rows.min(1) >= self.lowest) & (rows.max(1) <= self.highest)
        if not inside.all():
            raise ValueError(self._describe_fault(centred, state, int(inside.argmin())))

    def _fill_land(self, scaled: npt.NDArray[np.float32], state: int) -> None:
        """Puts `land` where the SST is NaN; raises ValueError where that is everywhere."""
        for field in self.fields:
            if field.masked_on_land:
                gaps = np.isnan(scaled[field.channels])
                if gaps.all():
                    raise ValueError(self._describe_fault(scaled, state, field.channels.start))
                np.copyto(scaled[field.channels], self.land, where=gaps)

    def _describe_fault(self, scaled: npt.NDArray[np.float32], state: int, channel: int) -> str:
        field = next(field for field in self.fields if field.channels.start <= channel < field.channels.stop)
        plane = scaled[channel] * self.std[channel] + field.mean[channel - field.channels.start]
        share = (~np.isfinite(plane)).mean()
        found = f"{percent(share)} NaN or infinite" if share else f"{plane.min():g}..{plane.max():g}"
        return (
            f"'{field.name}' at {describe(self.times[state])}: expected finite values, and no others than weather has, "
            f"in {field.array.folder}, got {found}. `ladcast-data validate` lists all such states."
        )


@dataclass(frozen=True, eq=False)
class ChunkedField:
    """Reads one variable: its chunks, the order of their axes and points, and its mean."""

    name: str
    array: ChunkedArray
    axes: tuple[int, ...]
    """Axes of a stored chunk in the order (time, level, latitude, longitude)."""
    views: tuple[slice, ...]
    """What to take along each of these axes, where it is evenly spaced."""
    picks: dict[int, npt.NDArray[np.int64]]
    """What to take along the others: a copy."""
    channels: slice
    mean: npt.NDArray[np.float32]
    masked_on_land: bool

    @classmethod
    def open(cls, store: Path, raw: xr.Dataset, ds: xr.Dataset, name: str, normalizer: Normalizer) -> ChunkedField:
        """Finds a canonical variable in the store; `raw` has canonical names and the order of the store."""
        variable = raw[name].variable
        array = open_array(store / str(variable.attrs[STORED_NAME]))
        check_encoding(variable, array.folder)
        dims = ("time", *(("level",) if "level" in variable.dims else ()), "latitude", "longitude")
        points = [as_slice(_places(_coordinate(raw, dim), _coordinate(ds, dim))) for dim in dims[1:]]
        channels = normalizer.channels.rows(name)
        return cls(
            name,
            array,
            axes=tuple(map(variable.dims.index, dims)),
            views=(slice(None), *(index if isinstance(index, slice) else slice(None) for index in points)),
            picks={axis: index for axis, index in enumerate(points, start=1) if not isinstance(index, slice)},
            channels=channels,
            mean=normalizer.mean[channels].numpy().reshape(-1, 1, 1),
            masked_on_land=find_variable(name).masked_on_land,
        )

    def read_chunk(self, number: int) -> npt.NDArray[np.float32]:
        """Returns the states of one chunk in canonical order, `time [level] lat lon`, as float32."""
        values = self.array.read_chunk(number).transpose(self.axes)[self.views]
        for axis, index in self.picks.items():
            values = values.take(index, axis)
        return values.astype(np.float32, copy=False)


STORED_NAME = "name_in_store"


def _open_raw(store: Path) -> xr.Dataset:
    if not (store / "zarr.json").is_file() and not (store / ".zgroup").is_file():
        raise UnsupportedLayoutError("it is no Zarr store on a local disk")
    raw = xr.open_dataset(store, engine="zarr", chunks=None, consolidated=is_consolidated(store))
    for name, variable in raw.variables.items():
        variable.attrs[STORED_NAME] = name
    return canonical_names(raw, str(store))


def _check_same(direct: ChunkReader, plain: XarrayReader, store: Path) -> None:
    # One state tells: another dataset of the same times would be read without a word.
    first = np.zeros(1, np.int64)
    got, expected = (np.empty((1, *reader.shape), np.float32) for reader in (direct, plain))
    direct.read(first, got)
    plain.read(first, expected)
    if not np.array_equal(got, expected):
        raise ValueError(f"Expected the dataset that `open_store` gives for {store}, got another. Give its own store.")


def _coordinate(ds: xr.Dataset, name: str) -> npt.NDArray[np.float64]:
    """Returns a coordinate as float64: times in seconds, longitudes eastward from 0 degrees."""
    values = ds[name].values
    if name == "time":
        values = values.astype("datetime64[s]").astype(np.int64)
    return values.astype(np.float64) % 360 if name == "longitude" else values.astype(np.float64)


def _places(stored: npt.NDArray[np.float64], wanted: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Returns where each wanted coordinate lies among the stored ones."""
    order = np.argsort(stored)  # stores run in either direction
    edges = (stored[order][1:] + stored[order][:-1]) / 2
    places = order[np.searchsorted(edges, wanted)]
    apart = abs(stored[places] - wanted)
    if apart.max() > TOLERANCE_DEG:
        raise ValueError(
            f"Expected the coordinates of the dataset in its store, {wanted[apart.argmax()]} is not there."
        )
    return places.astype(np.int64)
