"""The one table of tracks: a row per storm, member and time, as an xarray dataset along `point`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from jaxtyping import Bool, Int

COLUMNS: dict[str, dict[str, str]] = {
    "storm": {"long_name": "identifier of the storm"},
    "name": {"long_name": "name of the storm"},
    "number": {"standard_name": "realization", "long_name": "ensemble member", "units": "1"},
    "start": {"standard_name": "forecast_reference_time", "long_name": "initial time"},
    "time": {"standard_name": "time", "long_name": "valid time"},
    "latitude": {"standard_name": "latitude", "units": "degrees_north"},
    "longitude": {"standard_name": "longitude", "units": "degrees_east"},
    "msl": {
        "standard_name": "air_pressure_at_mean_sea_level",
        "long_name": "central pressure",
        "units": "Pa",
        "comment": "too high on a coarse grid: no measure of intensity",
    },
    "depth": {"long_name": "rise of pressure to the outermost closed contour", "units": "Pa"},
    "vorticity": {"long_name": "cyclonic vorticity at 850 hPa, mean of a disc", "units": "s-1"},
    "warm_core": {"long_name": "fall of the 300 to 500 hPa thickness around the centre", "units": "m2 s-2"},
    "height": {"standard_name": "surface_altitude", "units": "m"},
    "wind": {"standard_name": "wind_speed", "long_name": "maximum sustained wind", "units": "m s-1"},
}
"""Columns in order, with CF attributes. A table has `storm`, `time`, `latitude`, `longitude` and any of the others."""
OBLIGATORY = ("storm", "time", "latitude", "longitude")
SORTED_BY = ("time", "number", "start", "storm")
"""From the last to the first key."""


def make_table(columns: Mapping[str, npt.ArrayLike], **attributes: Any) -> xr.Dataset:
    """Builds a table from columns of equal length, sorted by storm, start, member and time.

    Longitudes come out within [-180, 180). `attributes` describe the whole, such as `members` (of the ensemble, those
    that have lost the storm included).
    """
    if missing := [name for name in OBLIGATORY if name not in columns]:
        raise ValueError(f"A table of tracks needs the columns {', '.join(OBLIGATORY)}; missing: {', '.join(missing)}.")
    table = xr.Dataset(
        {name: ("point", _column(name, columns[name]), about) for name, about in COLUMNS.items() if name in columns},
        attrs=attributes,
    )
    return sort_rows(table)


def sort_rows(table: xr.Dataset) -> xr.Dataset:
    """Sorts by storm, start, member and time."""
    keys = [table[name].values for name in SORTED_BY if name in table]
    return table.isel(point=np.lexsort([key.astype("U") if key.dtype == object else key for key in keys]))


def select_storm(table: xr.Dataset, storm: str) -> xr.Dataset:
    """Returns the rows of one storm.

    Raises:
        ValueError: there is no such storm; the message names the nearest, or lists some.
    """
    chosen = table.isel(point=np.flatnonzero(table["storm"].values == storm))
    if chosen.sizes["point"]:
        return chosen
    raise ValueError(f"No storm '{storm}' among {_count(table)}. {_suggest(table, storm)}")


def storms(table: xr.Dataset) -> list[str]:
    """Returns the identifiers of the storms in order."""
    return [str(storm) for storm in np.unique(table["storm"].values.astype("U"))]


def same_row(table: xr.Dataset, other: xr.Dataset, by: tuple[str, ...]) -> Int[np.ndarray, " point"]:
    """Returns, for each row of `table`, the index of the row of `other` with the same `by`, or -1."""
    keys, others = _keys(table, other, by)
    order = np.argsort(others, kind="stable")
    place = np.searchsorted(others[order], keys).clip(max=max(len(others) - 1, 0))
    if not len(others):
        return np.full(len(keys), -1)
    return np.where(others[order][place] == keys, order[place], -1)


def group(table: xr.Dataset, by: tuple[str, ...]) -> tuple[Int[np.ndarray, " group"], Int[np.ndarray, " point"]]:
    """Groups rows with the same `by`: returns the first row of each group, and the group of each row.

    Groups come in the order of a table that is sorted by `by`.
    """
    keys, _ = _keys(table, table, by)
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    return first, inverse.reshape(-1)


def with_members(table: xr.Dataset) -> int:
    """Returns the size of the ensemble, which the table states, as members that lost a storm have no rows."""
    if "members" not in table.attrs:
        raise ValueError("The table does not state `members`, the size of the ensemble. Add table.attrs['members'].")
    return int(table.attrs["members"])


def _keys(
    table: xr.Dataset, other: xr.Dataset, by: tuple[str, ...]
) -> tuple[Int[np.ndarray, " point"], Int[np.ndarray, " other"]]:
    """Numbers the rows of both so that the same `by` means the same number."""
    split = table.sizes["point"]
    keys = np.zeros(split + other.sizes["point"], dtype=np.int64)
    for name in by:
        both = [table[name].values, other[name].values]
        values = np.concatenate([column.astype("U") if column.dtype == object else column for column in both])
        known, index = np.unique(values, return_inverse=True)
        keys = np.unique(keys * max(len(known), 1) + index, return_inverse=True)[1]
    return keys[:split], keys[split:]


def _column(name: str, values: npt.ArrayLike) -> npt.NDArray[Any]:
    column = np.asarray(values)
    if name in ("storm", "name"):
        return column.astype(object)
    if name in ("time", "start"):
        return column.astype("datetime64[ns]")
    if name == "number":
        return column.astype(np.int64)
    column = column.astype(np.float64)
    return column - 360 * np.floor((column + 180) / 360) if name == "longitude" else column


def _count(table: xr.Dataset) -> str:
    return f"the {len(storms(table))} storms of {table.attrs.get('source', 'the table')}"


def _suggest(table: xr.Dataset, storm: str) -> str:
    import difflib

    names = dict(zip(table["storm"].values, table["name"].values, strict=True)) if "name" in table else {}
    by_name = [sid for sid, name in names.items() if str(name).upper() == storm.upper()]
    close = by_name or difflib.get_close_matches(storm, storms(table), n=3, cutoff=0.5) or storms(table)[:5]
    listed = ", ".join(f"{sid} ({names[sid]})" if sid in names else sid for sid in close)
    return f"Did you mean {listed}?" if by_name or len(close) < 5 else f"There are {listed}, ..."


def rows(table: xr.Dataset, kept: Bool[np.ndarray, " point"]) -> xr.Dataset:
    """Returns the rows that a mask keeps."""
    return table.isel(point=np.flatnonzero(kept))
