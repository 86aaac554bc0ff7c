"""Fields that a source lacks, computed from fields that it has: pure functions of arrays, in SI units.

Exact, up to rounding: geopotential from its height, six-hour precipitation. Approximations, and how far they are
off: specific humidity from relative humidity (1 %, measured on GFS), sea surface temperature from the skin
temperature, vertical velocity from the geometric one, finite-difference vorticity.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast

import numpy as np
import numpy.typing as npt
import xarray as xr
from jaxtyping import Float, Int, Shaped

from ladcast.grid import Grid
from ladcast.times import HOUR, WEEK, Times
from ladcast.units import GRAVITY, MODEL_EARTH_RADIUS_M

GAS_CONSTANT_DRY_AIR = 287.06
WATER_TO_DRY_AIR = 0.62198
"""Ratio of the molar masses of water vapour and dry air."""
FREEZING_SEA_K = 271.46
"""Temperature at which sea water freezes, as ERA5 sets the SST under ice."""
SIX_HOURS = np.timedelta64(6, "h")

Array = TypeVar("Array", npt.NDArray[Any], xr.DataArray)
Phase = Literal["water", "ncep", "ecmwf"]
SignedWindows = tuple[tuple[int, int], ...]
"""Which windows to add (+1) and to subtract (-1): pairs of their number and the sign."""


def geopotential(height: Array) -> Array:
    """Returns the geopotential (m2 s-2) of a geopotential height (gpm); exact by definition."""
    return height * GRAVITY


def saturation_vapour_pressure(temperature: Array, phase: Phase = "ecmwf") -> Array:
    """Returns the saturation vapour pressure (Pa) at a temperature (K).

    Tetens' formula with Buck's (1981) constants over water and ice, as in the IFS documentation (Cy47r3, part IV,
    eq. 7.5). `phase` is what a centre saturates against: `water` at any temperature; `ecmwf` a mix of ice and
    water, quadratic between 250.16 K and 273.16 K (eq. 7.6); `ncep` a mix, linear between 253.16 K and 273.16 K.
    """
    water: Any = 611.21 * np.exp(17.502 * (temperature - 273.16) / (temperature - 32.19))
    if phase == "water":
        return cast("Array", water)
    ice: Any = 611.21 * np.exp(22.587 * (temperature - 273.16) / (temperature + 0.7))
    coldest, power = (250.16, 2) if phase == "ecmwf" else (253.16, 1)
    share: Any = ((temperature - coldest) / (273.16 - coldest)).clip(0.0, 1.0) ** power
    mixed: Array = share * water + (1 - share) * ice
    return mixed


def specific_humidity(
    relative_humidity: Array, temperature: Array, pressure: Array | float, phase: Phase = "ecmwf"
) -> Array:
    """Returns the specific humidity (kg kg-1) from relative humidity (%), temperature (K) and pressure (Pa).

    q = eps e / (p - (1 - eps) e) with e = RH e_sat(T). An approximation: sources round RH to 1 % and saturate
    against another mix of water and ice. Against GFS's own 2 m humidity the mean error is 0.2 % above freezing and
    1 % to 3 % below 255 K with `ncep`, but 30 % to 40 % with `water`.
    """
    saturated: Any = saturation_vapour_pressure(temperature, phase)
    # Where e_sat comes near the pressure, as in the stratosphere, the formula has a pole.
    vapour: Any = np.minimum(saturated * relative_humidity.clip(0.0, 100.0) / 100, 0.5 * pressure)
    humidity: Array = WATER_TO_DRY_AIR * vapour / (pressure - (1 - WATER_TO_DRY_AIR) * vapour)
    return humidity


def vertical_velocity(
    upward_wind: Array, temperature: Array, pressure: Array | float, specific_humidity: Array | float = 0.0
) -> Array:
    """Returns omega (Pa s-1) = -rho g w from the geometric vertical wind w (m s-1), T (K) and p (Pa).

    The density is that of moist air, p / (R Tv). An approximation: dp/dt and the advection of pressure are left out.
    """
    virtual = temperature * (1 + (1 / WATER_TO_DRY_AIR - 1) * specific_humidity)
    return -upward_wind * GRAVITY * pressure / (GAS_CONSTANT_DRY_AIR * virtual)


def sea_surface_temperature(skin_temperature: xr.DataArray, land: xr.DataArray, *ice: xr.DataArray) -> xr.DataArray:
    """Returns the SST (K) from skin temperature (K), land share and, where known, sea-ice share; NaN on land.

    Open water has the skin temperature, sea under ice `FREEZING_SEA_K`, which is also the lowest value. Land is where
    its share is at least one half. An approximation: the skin has a diurnal cycle, and lakes count as sea.
    """
    water = skin_temperature
    if ice:  # whose surface, the skin, may be far colder than the water below
        water = FREEZING_SEA_K + (skin_temperature - FREEZING_SEA_K) * (1 - ice[0].clip(0.0, 1.0))
    return water.clip(min=FREEZING_SEA_K).where(land < 0.5)


def relative_vorticity(
    u: Float[np.ndarray, "*batch lat lon"], v: Float[np.ndarray, "*batch lat lon"], grid: Grid
) -> Float[np.ndarray, "*batch lat lon"]:
    """Returns the relative vorticity (s-1) of a wind (m s-1): (dv/dlon / cos(lat) - d(u cos(lat))/dsin(lat)) / a.

    Differences of second order in the mean over the sphere, exact for rigid rotation. On a pole row, where longitude
    has no meaning, the first term vanishes and the second is that of the zonal mean: the circulation around the cap
    over its area.
    """
    latitude = np.deg2rad(grid.latitude)
    cosine, sine = np.cos(latitude)[:, None], np.sin(latitude)
    width = 2 * np.deg2rad(360 / len(grid.longitude))
    poles = np.zeros((len(latitude), 1), dtype=bool)
    poles[0], poles[-1] = grid.pole_rows
    eastward = (np.roll(v, -1, -1) - np.roll(v, 1, -1)) / (width * np.where(poles, np.inf, cosine))
    # In float64, since neighbours that differ little are subtracted.
    moment = u.astype(np.float64) * np.where(poles, 0.0, cosine)
    northward = np.gradient(moment, sine, axis=-2, edge_order=2)
    northward = np.where(poles, northward.mean(-1, keepdims=True), northward)
    return np.asarray((eastward - northward) / MODEL_EARTH_RADIUS_M, u.dtype)


@dataclass(frozen=True)
class Window:
    """The interval (UTC) over which a field is accumulated."""

    start: np.datetime64
    end: np.datetime64


def six_hour_parts(windows: Sequence[Window]) -> dict[np.datetime64, SignedWindows]:
    """Returns, for each end of a window, which windows add up to the six hours before it, where some do.

    Windows that tile the six hours are preferred (1 + 1 + ..., 3 + 3, 6); else the difference of two accumulations
    with the same start (0-12 h minus 0-6 h).
    """
    number = {window: index for index, window in enumerate(windows)}
    found = {end: _tiles(end, number) or _difference(end, number) for end in sorted({w.end for w in windows})}
    return {end: parts for end, parts in found.items() if parts}


def accumulate(fields: Mapping[int, npt.NDArray[Any]], parts: SignedWindows) -> npt.NDArray[Any]:
    """Adds up the `fields` (by number) of one interval and clips at 0: packing leaves small negative values."""
    total = sum(sign * fields[number].astype(np.float64) for number, sign in parts)
    return np.asarray(np.maximum(np.asarray(total), 0.0))


def six_hour_precipitation(hourly: Float[np.ndarray, "time ..."], times: Times) -> Float[np.ndarray, "time ..."]:
    """Returns the sum over the six hours before each time (m) of hourly sums (m), each ending at its time.

    Clipped at 0; NaN where one of the six hours is missing, in `times` or in value.
    """
    parts = six_hour_parts(hourly_windows(times))
    sums = np.full(hourly.shape, np.nan, dtype=hourly.dtype)
    for index, time in enumerate(times):
        if time in parts:
            sums[index] = accumulate({number: hourly[number] for number, _ in parts[time]}, parts[time])
    return sums


def hourly_windows(times: Iterable[np.datetime64]) -> list[Window]:
    """Returns the hour that ends at each time."""
    return [Window(time - np.timedelta64(1, "h"), time) for time in times]


def frames_of_week(
    points: Shaped[np.ndarray, " frame"], end: np.generic, *, accumulated_hours: int = 0
) -> Int[np.ndarray, " some"]:
    """Returns the positions of the frames whose mean is that of the seven days before `end`; none where one is missing.

    `points` are times or lead times that increase. An instantaneous field counts from the first instant of the week on
    and not at its end; what is accumulated is there at the end of its hours, and the first frame is that many hours
    after the begin.
    """
    side: Literal["left", "right"] = "right" if accumulated_hours else "left"
    found = np.arange(*np.searchsorted(points, np.array([end - WEEK, end]), side=side))  # type: ignore[operator]
    step = accumulated_hours * HOUR if accumulated_hours else np.diff(points).min() if len(points) > 1 else WEEK
    return found if len(found) * step == WEEK else found[:0]


def _tiles(end: np.datetime64, number: Mapping[Window, int]) -> SignedWindows:
    chosen: list[tuple[int, int]] = []
    reached = end
    while reached > end - SIX_HOURS:
        # The longest window that fits comes first: sums of few windows have few rounding errors.
        starts = [end - SIX_HOURS + np.timedelta64(hour, "h") for hour in range(6)]
        fitting = [Window(start, reached) for start in starts if Window(start, reached) in number]
        if not fitting:
            return ()
        chosen.append((number[fitting[0]], 1))
        reached = fitting[0].start
    return tuple(chosen)


def _difference(end: np.datetime64, number: Mapping[Window, int]) -> SignedWindows:
    for window, index in number.items():
        earlier = Window(window.start, end - SIX_HOURS)
        if window.end == end and earlier in number:
            return ((index, 1), (number[earlier], -1))
    return ()
