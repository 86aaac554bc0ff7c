"""Positions of best tracks, checked, and the table of many."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import xarray as xr
from jaxtyping import Bool

from ladcast.cyclones.geometry import distance_km
from ladcast.cyclones.table import make_table, rows
from ladcast.times import HOUR, describe

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


def missing_or(text: str, factor: float, missing: tuple[str, ...] = ("", "-99", "-999", "0")) -> float:
    """Reads a number and converts it to our units; NaN where it is not reported."""
    return np.nan if text in missing else float(text) * factor


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


def _repeated(table: xr.Dataset) -> Bool[np.ndarray, " point"]:
    """Says which rows have the storm and the time of the row before."""
    return _same(table, "storm", "time")


def _repeated_alike(table: xr.Dataset) -> Bool[np.ndarray, " point"]:
    """Says which of these are at the same place, as in b-decks, where wind radii are given in rows of their own."""
    return np.asarray(_repeated(table) & (_from_before(table) < 1))


def _lost_between(table: xr.Dataset) -> Bool[np.ndarray, " point"]:
    """Says which rows are too far from both the row before and the row after."""
    jump = _jumps(table)
    return np.asarray(jump & np.append(jump[1:], False))


def _lost_at_an_end(table: xr.Dataset) -> Bool[np.ndarray, " point"]:
    """Says which first and last rows of storms are too far from the rest."""
    jump, begins = _jumps(table), ~_same(table, "storm")
    return np.asarray((jump & np.append(begins[1:], True)) | (begins & np.append(jump[1:], False)))


def _torn(table: xr.Dataset) -> Bool[np.ndarray, " point"]:
    """Says which rows are of storms that jump."""
    names = table["storm"].values.astype("U")
    return np.asarray(np.isin(names, names[_jumps(table)]))


FAR = f"positions over {JUMP_KM:g} km, and {JUMP_KM_H:g} km/h, from the next"
CHECKS: tuple[tuple[str, Callable[[xr.Dataset], Bool[np.ndarray, " point"]]], ...] = (
    ("", _repeated_alike),
    ("second positions at one time", _repeated),
    (FAR, _lost_between),
    (FAR, _lost_at_an_end),
    ("storms that jump", _torn),
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
