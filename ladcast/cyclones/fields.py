"""Reads what the tracker needs from a forecast or from analyses: a few fields, some lead times at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr
from jaxtyping import Float, Shaped
from torch import Tensor

from ladcast.data.lazy import STATES_AT_ONCE
from ladcast.grid import Grid, circles_globe
from ladcast.units import GRAVITY

PRESSURE, HEIGHT = "mean_sea_level_pressure", "geopotential_at_surface"
WIND_NAMES = ("u_component_of_wind", "v_component_of_wind")
WIND_LEVEL, STEERING_LEVELS, CORE_LEVELS = 850, (500, 700, 850), (300, 500)


@dataclass(frozen=True)
class TrackingFields:
    """The fields of some states (any members and times) on one device; None where the source lacks a field.

    `msl` in Pa, `wind` (u and v at 850 hPa) and `steering` (u and v, mean of 500 to 850 hPa) in m/s, `thickness`
    (geopotential at 300 minus 500 hPa) in m2/s2, `height` of the surface in m.
    """

    grid: Grid
    msl: Float[Tensor, "state lat lon"]
    wind: Float[Tensor, "state 2 lat lon"] | None = None
    steering: Float[Tensor, "state 2 lat lon"] | None = None
    thickness: Float[Tensor, "state lat lon"] | None = None
    height: Float[Tensor, "lat lon"] | None = None


@dataclass(frozen=True)
class TrackingReader:
    """Reads one forecast (dims prediction_timedelta, number, latitude, longitude and level), some lead times at a time.

    Nothing is read before its turn, and of a store that decodes latents only these states: a storm that all members
    have lost costs no more decoding.
    """

    forecast: xr.Dataset
    grid: Grid
    init_time: np.datetime64
    device: str = "cpu"

    @property
    def members(self) -> Shaped[np.ndarray, " member"]:
        """Returns the numbers of the members."""
        return np.asarray(self.forecast["number"].values) if "number" in self.forecast.dims else np.zeros(1, dtype=int)

    @property
    def times(self) -> Shaped[np.ndarray, " lead"]:
        """Returns the valid times, datetime64[ns]."""
        leads = self.forecast["prediction_timedelta"].values.astype("timedelta64[ns]")
        return np.asarray(self.init_time.astype("datetime64[ns]") + leads)

    def read(self, leads: slice) -> TrackingFields:
        """Reads the states of some lead times; the index of a state is lead * members + member.

        Raises:
            ValueError: the pressure has NaN.
        """
        part = self.forecast.isel(prediction_timedelta=leads)
        msl = self._read(part[PRESSURE])
        if count := int(np.isnan(msl).sum()):
            times = np.unique(self.times[leads])
            raise ValueError(
                f"{PRESSURE} has {count} NaN of {msl.size} values between {times[0]} and {times[-1]}. Leave them "
                "out, or repair the source."
            )
        thickness = height = None
        if set(CORE_LEVELS) <= _levels(part, "geopotential"):
            upper, lower = (self._read(part["geopotential"].sel(level=level)) for level in CORE_LEVELS)
            thickness = upper - lower
        if HEIGHT in self.forecast:
            surface = self.forecast[HEIGHT].transpose("latitude", "longitude").values
            height = np.asarray(surface / GRAVITY, dtype=np.float32)
        others = (*self._winds(part), thickness, height)
        on_device = (None if field is None else torch.from_numpy(field).to(self.device) for field in others)
        return TrackingFields(self.grid, torch.from_numpy(msl).to(self.device), *on_device)

    def chunks(self) -> Iterator[tuple[slice, TrackingFields]]:
        """Yields all lead times with their fields, several at once where there are few members."""
        step = max(1, STATES_AT_ONCE // len(self.members))
        for first in range(0, len(self.times), step):
            leads = slice(first, min(first + step, len(self.times)))
            yield leads, self.read(leads)

    def _read(self, field: xr.DataArray) -> Float[np.ndarray, "state lat lon"]:
        loaded = field.load()  # before it is reordered: lazy arrays may be transposed point by point
        loaded = loaded if "number" in loaded.dims else loaded.expand_dims("number")
        ordered = loaded.transpose("prediction_timedelta", "number", "latitude", "longitude")
        return np.ascontiguousarray(ordered.values, dtype=np.float32).reshape(-1, *self.grid.shape)

    def _winds(self, part: xr.Dataset) -> tuple[npt.NDArray[np.float32] | None, npt.NDArray[np.float32] | None]:
        levels = _levels(part, *WIND_NAMES)
        if WIND_LEVEL not in levels:
            return None, None
        by_level = {
            level: np.stack([self._read(part[name].sel(level=level)) for name in WIND_NAMES], axis=1)
            for level in STEERING_LEVELS
            if level in levels
        }
        mean: npt.NDArray[np.float32] = np.mean(list(by_level.values()), axis=0)
        return by_level[WIND_LEVEL], mean


def open_readers(source: xr.Dataset, device: str = "cpu") -> list[TrackingReader]:
    """Returns a reader of each forecast of a store, or of a series of analyses as one 'forecast' of one member.

    Raises:
        ValueError: there is no mean sea level pressure, a dimension is unknown, or the grid is not regular and global.
    """
    if PRESSURE not in source:
        has = ", ".join(map(str, source.data_vars))
        raise ValueError(f"Tracking needs {PRESSURE} in Pa, which the source lacks; it has {has}.")
    forecast = source
    if "prediction_timedelta" not in source.dims:
        times = np.atleast_1d(source["time"].values.astype("datetime64[ns]"))
        forecast = source.rename(time="prediction_timedelta").assign_coords(prediction_timedelta=times - times[0])
        forecast = forecast.assign_coords(time=times[0])
    dims = set(forecast[PRESSURE].dims)
    known = {"prediction_timedelta", "latitude", "longitude"}
    if not known <= dims <= known | {"time", "number"}:
        raise ValueError(
            f"{PRESSURE} is expected with the dimensions time, prediction_timedelta, number, latitude, longitude, or "
            f"time, latitude, longitude, got {source[PRESSURE].dims}. Select or rename the others."
        )
    if not circles_globe(forecast["longitude"].values):
        west, east = forecast["longitude"].values[[0, -1]]
        raise ValueError(
            f"Tracking needs longitudes around the globe, got {west:g} to {east:g} degrees: a low at the side of a "
            "box cannot be told from a slope. Track the whole forecast, and choose among its tracks."
        )
    latitude, longitude = (tuple(forecast[name].values.astype(float).tolist()) for name in ("latitude", "longitude"))
    grid = Grid(latitude, longitude)
    init_times = np.atleast_1d(forecast["time"].values).astype("datetime64[ns]")
    if "time" not in dims:
        return [TrackingReader(forecast, grid, init_times[0], device)]
    return [TrackingReader(forecast.isel(time=index), grid, time, device) for index, time in enumerate(init_times)]


def describe_rules(source: xr.Dataset) -> str:
    """Says which rules the fields of a source allow, and which are left out for want of a field."""
    winds = WIND_LEVEL in _levels(source, *WIND_NAMES)
    rules = {
        "closed contour of mean sea level pressure": True,
        "vorticity at 850 hPa and steering flow (u and v at 850 hPa)": winds,
        "warm core (geopotential at 300 and 500 hPa)": set(CORE_LEVELS) <= _levels(source, "geopotential"),
        "height of the ground (geopotential_at_surface)": HEIGHT in source,
    }
    used = "; ".join(name for name, there in rules.items() if there)
    missing = "; ".join(name for name, there in rules.items() if not there)
    return f"can judge by: {used}" + (f"\nfields missing for: {missing}" if missing else "")


def _levels(source: xr.Dataset, *names: str) -> set[int]:
    if any(name not in source or "level" not in source[name].dims for name in names):
        return set()
    return {int(level) for level in source["level"].values}
