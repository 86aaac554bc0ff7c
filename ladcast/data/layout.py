"""One layout for every source: (time, level, latitude, longitude), south to north, eastward from 0 degrees.

Nothing is read here. Each variable becomes a view that reorders a state at the moment it is read.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from ladcast.data.lazy import LazyField, as_slice, lazy_variable
from ladcast.fields import STATIC_VARIABLES, ChannelSet
from ladcast.grid import TOLERANCE_DEG, Grid, grid_of

DIMENSIONS = ("time", "level", "latitude", "longitude")
Order = npt.NDArray[np.int64]


def canonical_layout(ds: xr.Dataset, channels: ChannelSet | None, where: str) -> xr.Dataset:
    """Selects the variables of `channels` and the static fields, lazily reordered to the canonical layout.

    Without channels the static fields alone, which need no time.

    Raises:
        ValueError: a variable has other dimensions, or the coordinates do not cover the globe once.
    """
    ds = ds.expand_dims("time") if "time" in ds.coords and "time" not in ds.dims else ds
    rows, columns = _south_to_north(ds, where), _eastward(ds, where)
    order = {"latitude": rows, "longitude": columns}
    coordinates: dict[str, npt.NDArray[Any]] = {}
    if channels is not None:
        coordinates["time"] = ds["time"].values.astype("datetime64[ns]")
    if channels is not None and channels.upper_air:
        ds = ds.expand_dims("level") if "level" not in ds.dims else ds
        order["level"] = _level_order(ds["level"].values, channels)
        coordinates["level"] = np.asarray(channels.levels)
    coordinates["latitude"] = ds["latitude"].values[rows].astype(np.float64)
    coordinates["longitude"] = ds["longitude"].values[columns].astype(np.float64) % 360
    names = [*(channels.variables if channels else ()), *(name for name in STATIC_VARIABLES if name in ds)]
    variables = {name: _reordered(ds[name], order, _expected_dims(name, channels), where) for name in names}
    return xr.Dataset(variables, coords=coordinates, attrs=ds.attrs)


def on_grid(ds: xr.Dataset, grid: Grid | None, where: str) -> xr.Dataset:
    """Returns a dataset in canonical layout on exactly `grid`, if given; drops the south pole row for it.

    Raises:
        ValueError: the dataset is on another grid.
    """
    if grid is None:
        return ds
    present = grid_of(ds)
    if present.pole_rows[0] and present.without_south_pole().matches(grid):
        ds = ds.isel(latitude=slice(1, None))
    elif not present.matches(grid):
        raise ValueError(
            f"{where}: expected the grid {grid}, got {present}. Regrid the store with "
            "`ladcast-data regrid`, or start a forecast from it with `--source`, which regrids."
        )
    # Coordinates of other sources may be rounded (float32): take the exact ones.
    return ds.assign_coords(latitude=np.asarray(grid.latitude), longitude=np.asarray(grid.longitude))


def _reordered(field: xr.DataArray, order: dict[str, Order], dims: tuple[str, ...], where: str) -> xr.Variable:
    if "time" not in dims and "time" in field.dims:
        field = field.isel(time=0, drop=True)
    if set(field.dims) != set(dims):
        extra = [dim for dim in field.dims if dim not in dims]
        advice = f"Select one with `ds.isel({extra[0]}=0)`." if extra else "Add the missing dimension."
        raise ValueError(f"{where}: '{field.name}' is expected with dimensions {dims}, got {field.dims}. {advice}")
    own = {dim: index for dim, index in order.items() if dim in dims}
    shape = [len(own[dim]) if dim in own else field.sizes[dim] for dim in dims]
    read = partial(_read_reordered, field.variable, dims, own)
    return lazy_variable(dims, LazyField(shape, read, field.dtype), field.attrs)


def _read_reordered(
    source: xr.Variable, dims: tuple[str, ...], order: dict[str, Order], *wanted: npt.NDArray[np.int64]
) -> npt.NDArray[Any]:
    """Reads a variable in another order of dimensions and points, by whole maps, as stores keep them."""
    points = {
        dim: as_slice(order[dim][index] if dim in order else index) for dim, index in zip(dims, wanted, strict=True)
    }
    maps = source.isel({dim: points[dim] for dim in ("time", "level") if dim in points})
    # Loaded before it is transposed: xarray's own lazy transpose reads point by point.
    in_rows: npt.NDArray[Any] = maps.values.transpose([maps.dims.index(dim) for dim in dims])[
        ..., points["latitude"], :
    ]
    return in_rows[..., points["longitude"]]


def _expected_dims(name: str, channels: ChannelSet | None) -> tuple[str, ...]:
    if channels is None or name in STATIC_VARIABLES:
        return DIMENSIONS[2:]
    return DIMENSIONS if name in channels.upper_air else ("time", *DIMENSIONS[2:])


def _level_order(present: npt.NDArray[Any], channels: ChannelSet) -> Order:
    return np.array([int(abs(present - level).argmin()) for level in channels.levels])


def _south_to_north(ds: xr.Dataset, where: str) -> Order:
    latitude = _coordinate(ds, "latitude", where)
    steps = np.diff(latitude)
    if not ((steps > 0).all() or (steps < 0).all()):
        raise ValueError(f"{where}: 'latitude' is expected to increase or to decrease, got {_ends(latitude)}. Sort it.")
    order = np.argsort(latitude)
    south, north = latitude[order[0]], latitude[order[-1]]
    # A global grid may lack a pole row, but no more than one row on either side.
    reach = 90 - 1.01 * abs(steps).max() - TOLERANCE_DEG
    if south > -reach or north < reach:
        raise ValueError(f"{where}: expected a global grid, got latitudes {south:g}..{north:g}. Use a global store.")
    return order


def _eastward(ds: xr.Dataset, where: str) -> Order:
    longitude = _coordinate(ds, "longitude", where) % 360
    order = np.argsort(longitude)
    eastward = longitude[order]
    steps = np.diff(np.append(eastward, eastward[0] + 360))
    if steps.min() < TOLERANCE_DEG:
        twice = eastward[steps.argmin()]
        raise ValueError(f"{where}: 'longitude' has {twice:g} deg twice (modulo 360). Drop one of the two columns.")
    if abs(steps - 360 / len(steps)).max() > 2 * TOLERANCE_DEG:
        raise ValueError(
            f"{where}: expected evenly spaced longitudes around the globe, got {_ends(longitude)} "
            f"with a gap of {steps.max():g} deg. Use a global store."
        )
    return order


def _coordinate(ds: xr.Dataset, name: str, where: str) -> npt.NDArray[np.float64]:
    if name not in ds.coords or ds[name].dims != (name,) or ds[name].size < 2:
        got = ds[name].dims if name in ds.variables else f"the coordinates {', '.join(map(str, ds.coords))}"
        raise ValueError(f"{where}: expected a coordinate '{name}' along its own dimension, got {got}.")
    return ds[name].values.astype(np.float64)


def _ends(values: npt.NDArray[np.float64]) -> str:
    return f"{', '.join(f'{value:g}' for value in values[:3])} ... {values[-1]:g} ({len(values)} values)"
