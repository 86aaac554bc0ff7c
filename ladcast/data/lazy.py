"""Fields that are computed or put together when they are read, one time after the other, and not before."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from ladcast.data.derive import SIX_HOURS, six_hour_precipitation

LEADING = ("time", "level")
HORIZONTAL = ("latitude", "longitude")
STATES_AT_ONCE = 64
"""States that are read before the next ones where a store may have to decode each: few lead times of many members."""
Read = Callable[..., npt.NDArray[Any]]
"""Takes an array of positions along each dimension, and returns the values there, with all of the dimensions."""


class LazyField(BackendArray):
    """Presents a function as an array: `read` is called with the positions that are wanted, when they are wanted."""

    def __init__(self, shape: Sequence[int], read: Read, dtype: npt.DTypeLike = np.float32) -> None:
        self.shape, self.read, self.dtype = tuple(shape), read, np.dtype(dtype)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        support = indexing.IndexingSupport.OUTER
        return indexing.explicit_indexing_adapter(key, self.shape, support, self._read)

    def _read(self, key: tuple[Any, ...]) -> npt.NDArray[Any]:
        points = [np.arange(size)[part] for part, size in zip(key, self.shape, strict=True)]
        values = self.read(*map(np.atleast_1d, points))
        return values.reshape([size for part in points for size in part.shape])  # an integer drops its dimension


def lazy_variable(
    dims: Sequence[str],
    field: LazyField,
    attrs: Mapping[str, Any] | None = None,
    encoding: Mapping[str, Any] | None = None,
) -> xr.Variable:
    """Returns a lazy field as a variable of a dataset."""
    return xr.Variable(dims, indexing.LazilyIndexedArray(field), attrs, encoding)


def guarded(ds: xr.Dataset, where: str) -> xr.Dataset:
    """Returns a dataset whose values are read as late as before, but whose damage ends in a ValueError that names it.

    `where` is the file or store, with which messages begin.
    """
    late = {}
    for name, stored in ds.variables.items():
        if name in ds.xindexes:
            continue
        read = partial(_read_stored, stored, f"{where}: '{name}'")  # pickles
        field = LazyField(stored.shape, read, stored.dtype)
        late[name] = lazy_variable(list(map(str, stored.dims)), field, stored.attrs, stored.encoding)
    coordinates = {name: late.pop(name) for name in list(late) if name in ds.coords}
    return ds.assign_coords(coordinates).assign(late)


def _read_stored(stored: xr.Variable, where: str, *points: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    try:
        values: npt.NDArray[Any] = np.asarray(stored[tuple(map(as_slice, points))].values)  # a scalar, too
    except (OSError, RuntimeError, ValueError, ZeroDivisionError) as error:  # of netCDF and of Zarr and its codecs
        raise ValueError(
            f"{where}: expected values that can be read, got '{error}'. Copy it again, or make it again."
        ) from error
    return values


def as_slice(index: npt.NDArray[np.int64]) -> slice | npt.NDArray[np.int64]:
    """Turns evenly spaced positions into a slice: stores read slices faster than lists, and arrays view them."""
    steps = set(np.diff(index).tolist()) or {1}
    if not len(index) or len(steps) > 1 or 0 in steps:
        return index
    (step,) = steps
    stop = int(index[-1]) + (1 if step > 0 else -1)
    return slice(int(index[0]), None if stop < 0 else stop, step)


def outer(points: Sequence[npt.NDArray[np.int64]]) -> tuple[Any, ...]:
    """Returns what to index an array with for these positions along each axis: a view where all are evenly spaced."""
    slices = tuple(map(as_slice, points))
    return slices if all(isinstance(index, slice) for index in slices) else np.ix_(*points)


def lazy_maps(
    dims: Sequence[str], sizes: Sequence[int], read: Read, attrs: Mapping[str, Any] | None = None
) -> xr.Variable:
    """Returns a float32 variable of which `read` gives whole horizontal fields, at positions of the other dimensions.

    The horizontal dimensions are the last two.
    """

    def part(*points: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        return read(*points[:-2])[..., points[-2], :][..., points[-1]]

    return lazy_variable(dims, LazyField(sizes, part), attrs)


def elementwise(function: Callable[..., xr.DataArray], *fields: xr.DataArray) -> xr.DataArray:
    """Applies a pointwise function to fields when the result is read; fields broadcast by name of dimension.

    The first field has all dimensions of the result.
    """
    first = fields[0]
    leading = [str(dim) for dim in first.dims if dim not in HORIZONTAL]
    dims = [*leading, *HORIZONTAL]

    def read(*points: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        at = dict(zip(leading, points, strict=True))
        blocks = [field.isel({dim: at[dim] for dim in leading if dim in field.dims}).load() for field in fields]
        computed: npt.NDArray[Any] = function(*blocks).transpose(*dims).values
        return computed.astype(np.float32)

    variable = lazy_maps(dims, [first.sizes[dim] for dim in dims], read)
    return xr.DataArray(variable, coords={dim: first[dim] for dim in dims})


def six_hour_sums(hourly: xr.DataArray) -> xr.DataArray:
    """Sums hourly precipitation (m) over the six hours before each time, when the sum is read."""
    times = hourly["time"].values
    hourly = hourly.transpose("time", *HORIZONTAL)

    def read(points: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        wanted = times[points]
        needed = np.flatnonzero(_within_six_hours(times, wanted))
        sums = six_hour_precipitation(hourly.isel(time=needed).values, times[needed])
        return sums[np.searchsorted(needed, points)].astype(np.float32)

    return xr.DataArray(lazy_maps(hourly.dims, hourly.shape, read), coords=hourly.coords)  # type: ignore[arg-type]


def joined(parts: Sequence[xr.DataArray], axes: dict[str, npt.NDArray[Any]], where: str) -> xr.DataArray:
    """Puts pieces of one variable together along time and level; what no piece has is NaN.

    Raises:
        ValueError: two pieces have the same time and level.
    """
    dims = [*(dim for dim in LEADING if dim in parts[0].dims), *HORIZONTAL]
    leading = dims[:-2]
    places = [{dim: _positions(axes[dim], part[dim].values) for dim in leading} for part in parts]
    _check_single(places, axes, leading, f"{where}: '{parts[0].name}'")
    shape = [len(axes[dim]) for dim in leading] + [parts[0].sizes[dim] for dim in HORIZONTAL]

    def read(*points: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        block = np.full([len(p) for p in points] + shape[-2:], np.nan, dtype=np.float32)
        for part, place in zip(parts, places, strict=True):
            local = [place[dim][p] for dim, p in zip(leading, points, strict=True)]
            there = [np.flatnonzero(index >= 0) for index in local]
            if all(len(index) for index in there):
                chosen = {dim: index[t] for dim, index, t in zip(leading, local, there, strict=True)}
                block[np.ix_(*there)] = part.isel(chosen).load().transpose(*dims).values
        return block

    coords = {dim: axes[dim] for dim in leading} | {dim: parts[0][dim].values for dim in HORIZONTAL}
    return xr.DataArray(lazy_maps(dims, shape, read, parts[0].attrs), coords=coords, name=parts[0].name)


def _within_six_hours(times: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    after = np.searchsorted(np.sort(wanted), times)
    following = np.sort(wanted)[np.minimum(after, len(wanted) - 1)]
    near: npt.NDArray[np.bool_] = (following >= times) & (following - times < SIX_HOURS)
    return near


def _positions(axis: npt.NDArray[Any], own: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Returns for each value of `axis` its position in `own`, or -1."""
    number = {value: index for index, value in enumerate(own.astype(axis.dtype).tolist())}
    return np.array([number.get(value, -1) for value in axis.tolist()])


def _check_single(
    places: Sequence[dict[str, npt.NDArray[np.int64]]],
    axes: dict[str, npt.NDArray[Any]],
    leading: Sequence[str],
    what: str,
) -> None:
    count = np.zeros([len(axes[dim]) for dim in leading], dtype=np.int64)
    for place in places:
        count[np.ix_(*(np.flatnonzero(place[dim] >= 0) for dim in leading))] += 1
    if (count > 1).any():
        first = np.argwhere(count > 1)[0]
        at = ", ".join(f"{dim} {axes[dim][index]}" for dim, index in zip(leading, first, strict=True))
        raise ValueError(f"{what} is given more than once at {at}. Remove one of the files.")


def load_together(ds: xr.Dataset, dim: str, length: int) -> xr.Dataset:
    """Reads all variables of some steps along a dimension before those of the next: `length`, and whole stored chunks.

    What decodes variables together, such as a forecast kept as latents, does so once then, however small its cache is.
    """
    chunk = max(field.encoding.get("preferred_chunks", {}).get(dim, 1) for field in ds.values())
    length = max(length - length % chunk, chunk)
    steps = [ds.isel({dim: slice(first, first + length)}).load() for first in range(0, ds.sizes[dim], length)]
    return xr.concat(steps, dim, data_vars="minimal", coords="minimal", compat="override", join="override")


Wanted = TypeVar("Wanted")
Result = TypeVar("Result")


def prefetch(
    read: Callable[[Wanted], Result], items: Iterable[Wanted], *, threads: int, ahead: int
) -> Generator[Result, None, None]:
    """Yields `read(item)` in order, with at most `ahead` results read or being read before their turn.

    An error in `read` is raised when its item's turn comes.
    """
    remaining = iter(items)
    pool = ThreadPoolExecutor(threads)
    try:
        # Results wait in the order of their items, whichever thread is done first.
        waiting = deque(pool.submit(read, item) for item in islice(remaining, ahead))
        while waiting:
            ready = waiting.popleft().result()
            waiting.extend(pool.submit(read, item) for item in islice(remaining, 1))
            yield ready
    finally:
        # Also where the caller stops early: what nobody will use is not begun.
        pool.shutdown(cancel_futures=True)
