"""First-order conservative regridding between latitude-longitude grids.

On such grids the overlap of two cells is a product of a latitude and a longitude overlap, so two small
matrices do the whole work: regridded = A_lat @ field @ A_lon^T.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from jaxtyping import Float

from ladcast.grid import TOLERANCE_DEG, Grid, grid_of

LEAST_VALID_AREA = 0.5


def regrid(
    field: Float[np.ndarray, "*batch lat lon"], source: Grid, target: Grid
) -> Float[np.ndarray, "*batch target_lat target_lon"]:
    """Averages a field over the cells of `target`; the area mean over the globe stays the same.

    NaN is left out of the averages; a cell of which less than half the area has values becomes NaN. A target
    without its south pole row has the other rows of the whole grid: nothing is spread over the missing cap.

    Raises:
        ValueError: the field does not lie on `source`.
    """
    if field.shape[-2:] != source.shape:
        raise ValueError(f"Expected a field on the source grid {source.shape}, got {field.shape[-2:]} (lat, lon).")
    if source.matches(target):
        return field.copy()
    if source.pole_rows[0] and source.without_south_pole().matches(target):
        return field[..., 1:, :].copy()
    gaps = np.isnan(field)
    total = _average(np.where(gaps, 0.0, field), source, target)
    valid = _average(~gaps, source, target) if gaps.any() else np.ones_like(total)
    # Cells that are half land exactly must not depend on rounding.
    enough = valid > LEAST_VALID_AREA - 1e-9
    mean = np.divide(total, valid, out=np.full_like(total, np.nan), where=enough)
    return mean.astype(field.dtype)


def regrid_dataset(ds: xr.Dataset, target: Grid) -> xr.Dataset:
    """Regrids every field of a dataset in canonical layout (see `open_store`), in memory."""
    source = grid_of(ds)
    fields = {
        name: xr.Variable(field.dims, regrid(field.values, source, target), field.attrs)
        for name, field in ds.data_vars.items()
    }
    coordinates = {name: ds[name] for name in ("time", "level") if name in ds.coords}
    horizontal = {"latitude": np.asarray(target.latitude), "longitude": np.asarray(target.longitude)}
    return xr.Dataset(fields, coords=coordinates | horizontal, attrs=ds.attrs)


def latitude_weights(source: Grid, target: Grid) -> Float[np.ndarray, "target_lat lat"]:
    """Returns the share of each target row's area that lies in each source row; rows sum to 1."""
    south, beside = target.latitude[:2]
    theirs, ours, missing_row = source.latitude_bounds, target.latitude_bounds, 2 * south - beside
    if abs(missing_row + 90) <= TOLERANCE_DEG:
        ours = np.concatenate([[(missing_row + south) / 2], ours[1:]])
    return _shares(_overlaps(*(np.sin(np.deg2rad(bounds)) for bounds in (theirs, ours))))


def longitude_weights(source: Grid, target: Grid) -> Float[np.ndarray, "target_lon lon"]:
    """Returns the share of each target column's width that lies in each source column; rows sum to 1."""
    theirs, ours = _column_bounds(source), _column_bounds(target)
    return _shares(sum(_overlaps(theirs + turn, ours) for turn in (-360.0, 0.0, 360.0)))


def _average(field: npt.NDArray[Any], source: Grid, target: Grid) -> npt.NDArray[np.float64]:
    from scipy.sparse import csr_array  # a cell overlaps few others: ten times faster than dense products

    rows, columns = csr_array(latitude_weights(source, target)), csr_array(longitude_weights(source, target))
    planes = field.reshape(-1, *source.shape)
    averaged = np.empty((len(planes), *target.shape))
    for plane, result in zip(planes, averaged, strict=True):
        result[...] = (columns @ (rows @ plane.astype(np.float64)).T).T
    return averaged.reshape(*field.shape[:-2], *target.shape)


def _overlaps(source: npt.NDArray[np.float64], target: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    upper = np.minimum(target[1:, None], source[None, 1:])
    lower = np.maximum(target[:-1, None], source[None, :-1])
    return np.asarray(np.maximum(upper - lower, 0.0))


def _shares(overlaps: Any) -> npt.NDArray[np.float64]:
    return np.asarray(overlaps / overlaps.sum(axis=1, keepdims=True))


def _column_bounds(grid: Grid) -> npt.NDArray[np.float64]:
    width = 360 / len(grid.longitude)
    edges = np.arange(len(grid.longitude) + 1, dtype=np.float64) - 0.5
    return grid.longitude[0] + width * edges
