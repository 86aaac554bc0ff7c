"""One layout for every source: (time, level, latitude, longitude), south to north, eastward from 0 degrees.

Nothing is read here. Each variable becomes a view that reorders a state, and judges it, at the moment it is read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from ladcast.data.lazy import LazyField, as_slice, lazy_variable
from ladcast.data.weather import FieldGate
from ladcast.fields import STATIC_VARIABLES, ChannelSet
from ladcast.grid import TOLERANCE_DEG, Box, Grid, eastward, grid_of

DIMENSIONS = ("time", "level", "latitude", "longitude")
Order = npt.NDArray[np.int64]
Judge = Callable[..., None]


def canonical_layout(
    ds: xr.Dataset, channels: ChannelSet | None, where: str, *, judged: bool = True, complete: bool = True
) -> xr.Dataset:
    """Selects the variables of `channels` and the static fields, lazily reordered to the canonical layout.

    Without channels the static fields alone, which need no time. The others are `judged` when they are read, and if
    they must be `complete`, refused where they have NaN (see `FieldGate`).

    Raises:
        ValueError: a variable has other dimensions, or the coordinates do not cover the globe once.
    """
    ds = ds.expand_dims("time") if "time" in ds.coords and "time" not in ds.dims else ds
    chosen = channels or ChannelSet((), (), ())
    rows, columns = _south_to_north(ds, where), _eastward(ds, where)
    order = {"latitude": rows, "longitude": columns}
    coordinates: dict[str, npt.NDArray[Any]] = {}
    if channels is not None:
        coordinates["time"] = ds["time"].values.astype("datetime64[ns]")
    if chosen.upper_air:
        ds = ds.expand_dims("level") if "level" not in ds.dims else ds
        order["level"] = np.array([int(abs(ds["level"].values - level).argmin()) for level in chosen.levels])
        coordinates["level"] = np.asarray(chosen.levels)
    coordinates["latitude"] = ds["latitude"].values[rows].astype(np.float64)
    coordinates["longitude"] = eastward(ds["longitude"].values[columns])
    variables: dict[str, xr.Variable] = {}
    for name in chosen.variables:
        dims = DIMENSIONS if name in chosen.upper_air else ("time", *DIMENSIONS[2:])
        own = chosen.channels[chosen.rows(name)]
        gate = FieldGate(own, coordinates, where, complete) if judged else None
        variables[name] = _reordered(ds[name], order, dims, where, gate)
    for name in (name for name in STATIC_VARIABLES if name in ds):
        variables[name] = _reordered(ds[name], order, DIMENSIONS[2:], where)
    return xr.Dataset(variables, coords=coordinates, attrs=plain_attributes(ds.attrs))


def plain_attributes(attrs: Mapping[Any, Any]) -> dict[str, Any]:
    """Returns attributes as JSON has them: netCDF files hold NumPy's numbers and arrays."""
    numpy = (np.generic, np.ndarray)
    return {str(name): value.tolist() if isinstance(value, numpy) else value for name, value in attrs.items()}


def on_grid(ds: xr.Dataset, grid: Grid | None, where: str) -> xr.Dataset:
    """Returns a dataset in canonical layout on exactly `grid`, if given: without the south pole row, or cut to a box.

    Raises:
        ValueError: the dataset is on another grid.
    """
    if grid is None:
        return ds
    present = grid_of(ds)
    if isinstance(grid, Box):
        rows, columns = grid.within(present)
        ds = ds.isel(latitude=rows, longitude=columns)
    elif present.pole_rows[0] and present.without_south_pole().matches(grid):
        ds = ds.isel(latitude=slice(1, None))
    elif not present.matches(grid):
        raise ValueError(
            f"{where}: expected the grid {grid}, got {present}. Regrid the store with "
            "`ladcast-data regrid`, or start a forecast from it with `--source`, which regrids."
        )
    # Coordinates of other sources may be rounded (float32): take the exact ones.
    return ds.assign_coords(latitude=np.asarray(grid.latitude), longitude=np.asarray(grid.longitude))


def _reordered(
    field: xr.DataArray, order: dict[str, Order], dims: tuple[str, ...], where: str, judge: Judge | None = None
) -> xr.Variable:
    if "time" not in dims and "time" in field.dims:
        field = field.isel(time=0, drop=True)
    if set(field.dims) != set(dims):
        extra = [dim for dim in field.dims if dim not in dims]
        advice = f"Select one with `ds.isel({extra[0]}=0)`." if extra else "Add the missing dimension."
        raise ValueError(f"{where}: '{field.name}' is expected with dimensions {dims}, got {field.dims}. {advice}")
    own = {dim: index for dim, index in order.items() if dim in dims}
    shape = [len(own[dim]) if dim in own else field.sizes[dim] for dim in dims]
    read = partial(_read_reordered, field.variable, dims, own, judge, f"{where}: '{field.name}'")
    return lazy_variable(dims, LazyField(shape, read, field.dtype), plain_attributes(field.attrs))


def _read_reordered(
    source: xr.Variable,
    dims: tuple[str, ...],
    order: dict[str, Order],
    judge: Judge | None,
    where: str,
    *wanted: npt.NDArray[np.int64],
) -> npt.NDArray[Any]:
    """Reads a variable in another order of dimensions and points, by whole maps, as stores keep them."""
    points = {
        dim: as_slice(order[dim][index] if dim in order else index) for dim, index in zip(dims, wanted, strict=True)
    }
    maps = source.isel({dim: points[dim] for dim in ("time", "level") if dim in points})
    try:
        # Loaded before it is transposed: xarray's own lazy transpose reads point by point.
        stored = maps.values
    except (RuntimeError, ZeroDivisionError) as error:  # of what `ladcast.data.lazy.guarded` has not opened
        raise ValueError(f"{where}: expected values that can be read, got '{error}'. Copy the file again.") from error
    in_rows = stored.transpose([maps.dims.index(dim) for dim in dims])[..., points["latitude"], :]
    values: npt.NDArray[Any] = in_rows[..., points["longitude"]]
    if judge is not None:
        judge(values, *wanted)
    return values


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
    longitude = eastward(_coordinate(ds, "longitude", where))
    order = np.argsort(longitude)
    ordered = longitude[order]
    steps = np.diff(np.append(ordered, ordered[0] + 360))
    if steps.min() < TOLERANCE_DEG:
        twice = ordered[steps.argmin()]
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
    stored = ds[name].values
    if stored.dtype.kind not in "fiu" or not np.isfinite(stored).all():
        numbers = stored.dtype.kind == "f"
        odd = f"{(~np.isfinite(stored)).sum()} of {stored.size} that are not" if numbers else str(stored.dtype)
        raise ValueError(f"{where}: '{name}' is expected in finite degrees, got {odd}. Repair the coordinate.")
    values: npt.NDArray[np.float64] = stored.astype(np.float64)
    if name == "latitude" and abs(values).max() > 90 + TOLERANCE_DEG:
        raise ValueError(f"{where}: 'latitude' is expected within -90..90 deg, got {_ends(values)}. Repair it.")
    return values


def _ends(values: npt.NDArray[np.float64]) -> str:
    return f"{', '.join(f'{value:g}' for value in values[:3])} ... {values[-1]:g} ({len(values)} values)"
