"""One position of a best track, checked, and the table of many."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xarray as xr

from ladcast.cyclones.table import make_table


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
        if not (abs(self.latitude) <= 90 and -180 <= self.longitude <= 360):  # also refuses NaN
            raise ValueError(f"no place on the globe: {self.latitude} N {self.longitude} E")


def missing_or(text: str, factor: float, missing: tuple[str, ...] = ("", "-99", "-999", "0")) -> float:
    """Reads a number and converts it to our units; NaN where it is not reported."""
    return np.nan if text in missing else float(text) * factor


def best_track_table(columns: Mapping[str, npt.ArrayLike]) -> xr.Dataset:
    """Builds a table of best tracks; of several rows for one storm and time the first counts."""
    table = make_table(columns)
    storm, time = table["storm"].values, table["time"].values
    repeated = np.concatenate([[False], (storm[1:] == storm[:-1]) & (time[1:] == time[:-1])])[: len(storm)]
    return table.isel(point=np.flatnonzero(~repeated))
