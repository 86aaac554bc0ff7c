"""The one table of tracks, a row per storm, member and time along `point`; and the checked rows of best tracks."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from jaxtyping import Bool, Int

from ladcast.cyclones.points import distance_km
from ladcast.times import HOUR, describe

Columns = dict[str, npt.NDArray[Any]]
"""Values along `point` by name, before they are a table."""
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
    """Returns the rows of one storm, by its identifier, or by its name where one storm alone has it.

    Raises:
        ValueError: there is no such storm; the message names the nearest, or lists some.
    """
    named = _named(table, storm)
    wanted = named[0] if len(named) == 1 else storm
    chosen = table.isel(point=np.flatnonzero(table["storm"].values == wanted))
    if chosen.sizes["point"]:
        return chosen
    count = f"the {len(storms(table))} storms of {table.attrs.get('source', 'the table')}"
    raise ValueError(f"No storm '{storm}' among {count}. {_suggest(table, storm)}")


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


def _names(table: xr.Dataset) -> dict[str, str]:
    """Returns the name of each storm by its identifier, where the table has names."""
    return dict(zip(table["storm"].values, table["name"].values, strict=True)) if "name" in table else {}


def _named(table: xr.Dataset, name: str) -> list[str]:
    """Returns the identifiers of the storms of a name, in letters of either case."""
    return [storm for storm, known in _names(table).items() if str(known).upper() == name.upper()]


def _suggest(table: xr.Dataset, storm: str) -> str:
    import difflib

    names, by_name = _names(table), _named(table, storm)
    close = by_name or difflib.get_close_matches(storm, storms(table), n=3, cutoff=0.5) or storms(table)[:5]
    listed = ", ".join(f"{sid} ({names[sid]})" if sid in names else sid for sid in close)
    return f"Did you mean {listed}?" if by_name or len(close) < 5 else f"There are {listed}, ..."


def rows(table: xr.Dataset, kept: Bool[np.ndarray, " point"]) -> xr.Dataset:
    """Returns the rows that a mask keeps."""
    return table.isel(point=np.flatnonzero(kept))


def after_start(tracks: xr.Dataset) -> xr.Dataset:
    """Returns the rows after the initial time, which are scored: the position in an analysis is no forecast."""
    return rows(tracks, tracks["time"].values > tracks["start"].values)


BOUNDS = {"wind": (0.0, 120.0), "msl": (85_000.0, 110_000.0)}
"""What storms have had, in m/s and Pa: 95 m/s (Patricia, 2015), 870 hPa (Tip, 1979)."""
JUMP_KM, JUMP_KM_H = 500.0, 250.0
"""A position further than this from another, and faster away than storms have moved (173 km/h), is not the storm's."""


@dataclass(frozen=True)
class Record:
    """One position of a storm: degrees, m/s, Pa; NaN where wind or pressure are not reported.

    Raises:
        ValueError: the position is not on the globe, or the identifier or the time is missing.
    """

    storm: str
    name: str
    time: np.datetime64
    latitude: float
    longitude: float
    wind: float
    msl: float

    def __post_init__(self) -> None:
        if not self.storm or np.isnat(self.time):
            raise ValueError("no storm or no time")
        if not (abs(self.latitude) <= 90 and abs(self.longitude) <= 360):  # also refuses NaN
            raise ValueError(f"no place on the globe: {self.latitude} N {self.longitude} E")


def missing_or(text: str, factor: float) -> float:
    """Reads a number and converts it to our units; NaN where it is not reported."""
    return np.nan if text in ("", "-99", "-999", "0") else float(text) * factor


def best_track_table(columns: Mapping[str, npt.ArrayLike], path: Path) -> xr.Dataset:
    """Builds a table of best tracks without what no storm has; a warning says what is left out.

    Of several rows for one storm and time the first counts. Winds and pressures beyond what storms have had become NaN.
    """
    table, said = make_table(columns), []
    for name in BOUNDS.keys() & set(table):
        least, most = BOUNDS[name]
        wrong = (table[name].values < least) | (table[name].values > most)
        table[name] = table[name].where(~wrong)
        if wrong.any():
            said.append(f"values of {name} outside {least:g} to {most:g}: {_example(table, wrong)}")
    for what, find in CHECKS:
        wrong = find(table)
        if what and wrong.any():
            said.append(f"{what}: {_example(table, wrong)}")
        table = rows(table, ~wrong)
    if said:
        warnings.warn(f"{path}: leaves out {'; '.join(said)}.", stacklevel=3)
    return table


def _lost(table: xr.Dataset) -> Bool[np.ndarray, " point"]:
    """Says which rows are too far from both the row before and the row after."""
    jump = _jumps(table)
    return np.asarray(jump & np.append(jump[1:], False))


def _lost_at_an_end(table: xr.Dataset) -> Bool[np.ndarray, " point"]:
    """Says which first and last rows of storms are too far from the rest."""
    jump, begins = _jumps(table), ~_same(table, "storm")
    return np.asarray((jump & np.append(begins[1:], True)) | (begins & np.append(jump[1:], False)))


FAR = f"positions over {JUMP_KM:g} km, and {JUMP_KM_H:g} km/h, from the next"
CHECKS: tuple[tuple[str, Callable[[xr.Dataset], Bool[np.ndarray, " point"]]], ...] = (
    # in b-decks wind radii are given in rows of their own, at the same place
    ("", lambda table: np.asarray(_same(table, "storm", "time") & (_from_before(table) < 1))),
    ("second positions at one time", lambda table: _same(table, "storm", "time")),
    (FAR, _lost),
    (FAR, _lost_at_an_end),
    ("storms that jump", lambda table: np.isin(names := table["storm"].values.astype("U"), names[_jumps(table)])),
)
"""What is wrong with rows, or '' for what nobody need know, and which they are: each among those that are left."""


def _same(table: xr.Dataset, *names: str) -> Bool[np.ndarray, " point"]:
    """Says which rows have the same values as the row before."""
    same = np.ones(table.sizes["point"], dtype=bool)
    same[:1] = False
    for name in names:
        same[1:] &= table[name].values[1:] == table[name].values[:-1]
    return same


def _from_before(table: xr.Dataset) -> npt.NDArray[np.float64]:
    latitude, longitude = table["latitude"].values, table["longitude"].values
    away = distance_km(latitude[1:], longitude[1:], latitude[:-1], longitude[:-1])
    return np.concatenate([np.zeros(min(len(latitude), 1)), away])


def _jumps(table: xr.Dataset) -> Bool[np.ndarray, " point"]:
    """Says which rows are too far from the row before, of the same storm."""
    away, hours = _from_before(table), np.diff(table["time"].values, prepend=table["time"].values[:1]) / HOUR
    return _same(table, "storm") & (away > JUMP_KM) & (away > JUMP_KM_H * hours)


def _example(table: xr.Dataset, wrong: Bool[np.ndarray, " point"]) -> str:
    at = int(np.flatnonzero(wrong)[0])
    return f"{int(wrong.sum())}, such as {table['storm'].values[at]} at {describe(table['time'].values[at])}"
