"""What weather can be: the bounds of single fields, and the contrast, order and balance of a whole state.

A fault is a wrong unit, a hole that was filled with a number, or another order of points; never odd weather: all
bounds lie well beyond what ERA5, ERA-40, the GFS and the model of the nature runs have, from 0.25 to 5.6 degrees.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from jaxtyping import Float
from scipy.ndimage import uniform_filter

from ladcast.data.derive import GAS_CONSTANT_DRY_AIR
from ladcast.data.lexicon import CONVERSIONS
from ladcast.fields import Channel, ChannelSet
from ladcast.grid import Grid
from ladcast.times import describe
from ladcast.units import EARTH_ROTATION, GRAVITY, MODEL_EARTH_RADIUS_M

NAN_EVERYWHERE, NAN, INFINITE, IMPLAUSIBLE, EXTREME, CONSTANT, HOLED = (
    "is NaN everywhere",
    "has NaN",
    "has infinities",
    "has an implausible area mean",
    "has values outside {0:g}..{1:g}",
    "is constant",
    "has a hole of zeros",
)
WINDS = ("eastward_wind", "northward_wind")
MOST_ZEROS = 0.1
"""Share of the points where a wind may be 0 to the last bit: packed fields have up to 1 %, lost chunks more."""
LEAST_COLUMNS = 32
"""Coarser grids resolve no weather systems, whose contrast, order and balance could be judged."""
MOST_COLUMNS = 240
"""Finer grids are judged by every n-th point: that costs less, and shows the same."""
CONTRAST_HPA = (300, 850)
MOST_ROUGHNESS = 0.6
"""Mean square difference of neighbours over twice the variance: 1 of shuffled points, at most 0.26 of fields here."""
BALANCE_HPA, BALANCE_DEG = (200, 700), (25.0, 70.0)
LEAST_BALANCE, BALANCE_RATIO = 0.6, (0.6, 1.5)
"""Of the wind and the geostrophic one: correlation (0.93 to 0.99 here), ratio of standard deviations (0.88 to 1.16)."""
BALANCE_WIDTH_DEG = 12.0
"""Both are averaged over so much: fields spread from a coarser grid are stairs, with all gradients in the steps."""
THICKNESS_K, GROUND_HPA, GROUND_K = 25.0, 700, 60.0
"""How far the mean temperature of a layer may be from its thickness: 6 K here, 20 K where a level lies below ground."""
NEAR_SURFACE_RATIO = (0.25, 1.2)
"""Of the wind at 10 m and that at the lowest level, in root mean square: 0.74 to 0.9 here."""


class NoWeatherError(ValueError):
    """A field or state that no weather has; its message says which, when and where, and what to do."""


def percent(share: float) -> str:
    """Writes a share such that few of many points are not 0 %."""
    return f"{share:.0%}" if share >= 0.1 else f"{100 * share:.2g}%"


def plausible_range(channel: Channel) -> tuple[float, float]:
    """Returns bounds of the area mean; for geopotential above 900 hPa of the ICAO standard atmosphere."""
    if channel.variable != "geopotential" or channel.level is None or channel.level > 900:
        return channel.about.plausible
    standard = _standard_geopotential(channel.level)
    return 0.6 * standard, 1.4 * standard


def extremes(channel: Channel) -> tuple[float, float]:
    """Returns bounds of single values; of geopotential around the ICAO standard atmosphere."""
    if channel.variable != "geopotential" or channel.level is None:
        return channel.about.extremes
    standard = _standard_geopotential(channel.level)
    margin = 1.6e4  # of 1000 hPa below sea level in the deepest typhoon, 840 hPa as for the pressure there
    return 0.75 * standard - margin, 1.25 * standard + margin


def _standard_geopotential(level_hpa: int) -> float:
    tropopause_hpa, tropopause_m, scale_height_m = 226.32, 11e3, 6341.62
    if level_hpa > tropopause_hpa:
        return float(GRAVITY * 44330.8 * (1 - (level_hpa / 1013.25) ** 0.190263))
    return GRAVITY * (tropopause_m + scale_height_m * float(np.log(tropopause_hpa / level_hpa)))


@dataclass(frozen=True, eq=False)
class FieldFacts:
    """Statistics of fields by time and level: shares of NaN, infinities and zeros, and of the rest the others."""

    nan: npt.NDArray[Any]
    infinite: npt.NDArray[Any]
    zero: npt.NDArray[Any]
    low: npt.NDArray[Any]
    high: npt.NDArray[Any]
    mean: npt.NDArray[Any]

    @classmethod
    def of(cls, values: Float[np.ndarray, "time level lat lon"], area: Float[np.ndarray, " lat"]) -> FieldFacts:
        """Computes them, with the `area` of each row as weights."""
        plane, none = (-2, -1), np.zeros(values.shape[:2])
        low, high = values.min(plane), values.max(plane)
        straddles = (low <= 0) & (high >= 0)
        zero = (values == 0).mean(plane) if straddles.any() else none
        if np.isfinite(low).all() and np.isfinite(high).all():  # nearly all fields; the rest costs five more passes
            mean = values.sum(-1, dtype=np.float64) @ area / (values.shape[-1] * area.sum())
            return cls(none, none, zero, low, high, mean)
        nan, infinite = np.isnan(values), np.isinf(values)
        known = ~(nan | infinite)
        low = np.where(known, values, np.inf).min(plane)
        high = np.where(known, values, -np.inf).max(plane)
        total = np.where(known, values, 0.0).sum(-1, dtype=np.float64) @ area
        weight = known.sum(-1) @ area
        mean = np.divide(total, weight, out=np.full_like(total, np.nan), where=weight > 0)
        return cls(nan.mean(plane), infinite.mean(plane), zero, low, high, mean)

    def faults(self, channels: Sequence[Channel], *, whole: bool = True) -> Iterator[tuple[str, npt.NDArray[np.bool_]]]:
        """Yields each fault with the times and levels where it is; those of a `whole` globe only where it is one."""
        about = channels[0].about
        means, bounds = (np.array([of(channel) for channel in channels]) for of in (plausible_range, extremes))
        known = self.nan + self.infinite < 1
        yield NAN_EVERYWHERE, (self.nan == 1) & whole
        if not about.masked_on_land:
            yield NAN, (self.nan > 0) & ((self.nan < 1) | (not whole))
        yield INFINITE, self.infinite > 0
        yield CONSTANT, whole & known & (self.low == self.high)
        yield EXTREME, known & ((self.low < bounds[:, 0]) | (self.high > bounds[:, 1]))
        yield IMPLAUSIBLE, whole & known & ((self.mean < means[:, 0]) | (self.mean > means[:, 1]))
        if about.standard_name in WINDS:
            yield HOLED, whole & (self.low < self.high) & (self.zero > MOST_ZEROS)


@dataclass(frozen=True, eq=False)
class FieldGate:
    """Judges the fields of one variable when they are read: exactly those that are used.

    `complete=False` lets NaN pass, for readers that fill gaps or refuse them by themselves.
    """

    channels: Sequence[Channel]
    coordinates: Mapping[str, npt.NDArray[Any]]
    where: str
    complete: bool = True

    def __call__(self, values: npt.NDArray[Any], time: npt.NDArray[Any], *points: npt.NDArray[Any]) -> None:
        """Judges values at these positions of time, level (if there are levels), latitude and longitude.

        Raises:
            NoWeatherError: no weather has them.
        """
        if not values.size:
            return
        levels, (rows, columns) = points[:-2], points[-2:]
        channels = [self.channels[index] for index in levels[0]] if levels else self.channels
        latitude, longitude = self.coordinates["latitude"][rows], self.coordinates["longitude"][columns]
        planes = values if levels else values[:, None]
        # A row may be left out, that of a pole.
        whole = len(rows) >= len(self.coordinates["latitude"]) - 1 and len(columns) == len(
            self.coordinates["longitude"]
        )
        facts = FieldFacts.of(planes, np.cos(np.deg2rad(latitude)).clip(1e-6))
        for fault, at in facts.faults(channels, whole=whole):
            accepted = fault in (NAN, NAN_EVERYWHERE) and not self.complete
            if at.any() and not accepted:
                when, level = (int(index) for index in np.argwhere(at)[0])
                area = f"{self.where}: {_name(channels[level])}"
                moment = describe(self.coordinates["time"][time[when]])
                share = float((facts.nan + facts.infinite + facts.zero)[when, level])
                mean = float(facts.mean[when, level]) if whole else np.nan
                said = _explain(fault, channels[level], planes[when, level], (latitude, longitude), share, mean)
                raise NoWeatherError(f"{area}: {said.format(at=moment)}")


def _name(channel: Channel) -> str:
    return f"'{channel.variable}'" + (f" at {channel.level} hPa" if channel.level else "")


def _explain(
    fault: str,
    channel: Channel,
    plane: npt.NDArray[Any],
    places: tuple[npt.NDArray[Any], npt.NDArray[Any]],
    share: float,
    mean: float,
) -> str:
    """Says what was expected and what is there, with `{at}` for the time."""
    units = channel.about.units
    if fault in (NAN, NAN_EVERYWHERE) and channel.about.masked_on_land:
        return "expected over the ocean at {at}, got NaN everywhere: the globe would become land. Take another source."
    if fault in (NAN, NAN_EVERYWHERE):
        lost = f"{share:.1%}" if share >= 0.0005 else f"{round(share * plane.size)} of {plane.size} points"
        return f"expected no NaN, got {lost} NaN at {{at}}. Fill it first."
    low, high = plausible_range(channel)
    fitting = [rule for rule in CONVERSIONS.get(units, ()) if low <= rule(mean) <= high and not low <= mean <= high]
    if fault == IMPLAUSIBLE or (fault == EXTREME and fitting):
        advice = f"It looks like {fitting[0].units}: {fitting[0]}." if fitting else "Check its units."
        return f"expected an area mean within {low:g}..{high:g} {units}, got {mean:.4g} at {{at}}. {advice}"
    if fault in (EXTREME, INFINITE):
        low, high = extremes(channel)
        wrong = np.isinf(plane) if fault == INFINITE else (plane < low) | (plane > high)
        row, column = np.argwhere(wrong)[0]
        place = f"{places[0][row]:g} deg N, {places[1][column]:g} deg E"
        advice = "Half precision ends at 65504: store 32 bits." if fault == INFINITE else "Repair the field."
        return (
            f"expected values within {low:g}..{high:g} {units}, got {plane[row, column]:g} at {place} at {{at}} "
            f"({wrong.sum()} of {plane.size} points). {advice}"
        )
    held = f"one number everywhere, {plane.flat[0]:g}," if fault == CONSTANT else f"0 at {share:.0%} of the points"
    return f"expected values that differ, got {held} at {{at}}, as where a chunk is lost. Copy the store again."


def check_state(
    state: Float[np.ndarray, "channel lat lon"], channels: ChannelSet, grid: Grid, at: str, skip: Collection[int] = ()
) -> None:
    """Judges whether the fields of one time fit each other; `FieldGate` has judged each by itself.

    Their contrast shows factors such as Pa/s in hPa/s, neighbours show points in another order, the thickness of
    layers temperatures that are not theirs, and the geostrophic wind units, signs and rows in reverse.

    Args:
        state: the values; fields with NaN are passed over.
        channels: what they are.
        grid: where they lie.
        at: the source and the time, for messages.
        skip: channels that were made up.

    Raises:
        NoWeatherError: they do not.
    """
    if len(grid.longitude) < LEAST_COLUMNS:
        return
    usable = [i not in skip and np.isfinite(plane).all() for i, plane in enumerate(state)]
    every = max(1, -(-len(grid.longitude) // MOST_COLUMNS))
    fields = {
        channel: plane[::every, ::every].astype(np.float64)
        for channel, plane, good in zip(channels, state, usable, strict=True)
        if good
    }
    judged = _Fields(fields, np.asarray(grid.latitude)[::every], np.asarray(grid.longitude)[::every])
    checks = (judged.contrast, judged.order, judged.thickness, judged.balance, judged.near_surface)
    for fault in (fault for check in checks for fault in check()):
        raise NoWeatherError(f"{at}: {fault}")


@dataclass(frozen=True, eq=False)
class _Fields:
    """The complete fields of one time; each method yields a sentence for what cannot be."""

    planes: dict[Channel, npt.NDArray[np.float64]]
    latitude: npt.NDArray[np.float64]
    longitude: npt.NDArray[np.float64]

    def contrast(self) -> Iterator[str]:
        """Compares standard deviations over the sphere with their bounds."""
        for channel, plane in self.planes.items():
            low, high = channel.about.contrast
            spread = self._spread(plane)
            inside = channel.level is None or CONTRAST_HPA[0] <= channel.level <= CONTRAST_HPA[1]
            if inside and not low <= spread <= high:
                yield (
                    f"{_name(channel)}: expected a standard deviation over the globe within {low:g}..{high:g} "
                    f"{channel.about.units}, got {spread:.3g}. Check its units, and whether it is one field."
                )

    def order(self) -> Iterator[str]:
        """Compares neighbours along each latitude."""
        for channel, plane in self.planes.items():
            variance = plane.var()
            rough = np.mean((np.roll(plane, -1, -1) - plane) ** 2) / (2 * variance) if variance else 0.0
            if channel.about.smooth and rough > MOST_ROUGHNESS:
                yield (
                    f"{_name(channel)}: expected neighbours that resemble each other, got points without order "
                    f"(differences of {rough:.0%} of those between any two). Check the order of dimensions and points."
                )

    def thickness(self) -> Iterator[str]:
        """Compares the thickness of layers with their temperature: dz = R T ln(p1/p2)."""
        levels = sorted({c.level for c in self.planes if c.variable == "geopotential" and c.level})
        for upper, lower in pairwise(levels):
            heights, warmths = (
                [self.planes.get(Channel(name, level)) for level in (upper, lower)]
                for name in ("geopotential", "temperature")
            )
            if lower > 2 * upper or any(plane is None for plane in (*heights, *warmths)):
                continue
            layer = (heights[0] - heights[1]) / (GAS_CONSTANT_DRY_AIR * np.log(lower / upper))  # type: ignore[operator]
            apart = layer - (warmths[0] + warmths[1]) / 2  # type: ignore[operator]
            row, column = np.unravel_index(abs(apart).argmax(), apart.shape)
            if abs(apart[row, column]) > (GROUND_K if lower >= GROUND_HPA else THICKNESS_K):
                yield (
                    f"'geopotential' and 'temperature' from {upper} to {lower} hPa: expected a layer as thick as its "
                    f"temperature, got {layer[row, column]:.0f} K by thickness and "
                    f"{layer[row, column] - apart[row, column]:.0f} K at {self.latitude[row]:g} deg N, "
                    f"{self.longitude[column]:g} deg E. Repair the wrong one of the fields."
                )

    def balance(self) -> Iterator[str]:
        """Compares winds of middle latitudes with the geostrophic ones, u = -dz/dy / f and v = dz/dx / f."""
        belt = (abs(self.latitude) > BALANCE_DEG[0]) & (abs(self.latitude) < BALANCE_DEG[1])
        levels = sorted({c.level for c in self.planes if c.level and BALANCE_HPA[0] <= c.level <= BALANCE_HPA[1]})
        for level in levels:
            height = self.planes.get(Channel("geopotential", level))
            for name, index in (("u_component_of_wind", 0), ("v_component_of_wind", 1)):
                wind = self.planes.get(Channel(name, level))
                if height is None or wind is None:
                    continue
                fields = self._averaged(wind), self._geostrophic(self._averaged(height))[index]
                wind, ideal = (field[belt] - field[belt].mean() for field in fields)
                likeness = float((wind * ideal).mean() / max(wind.std() * ideal.std(), 1e-12))
                ratio = float(wind.std() / max(ideal.std(), 1e-12))
                if likeness < LEAST_BALANCE or not BALANCE_RATIO[0] <= ratio <= BALANCE_RATIO[1]:
                    yield (
                        f"{_name(Channel(name, level))}: expected a wind near the geostrophic one in middle latitudes "
                        f"(correlation above {LEAST_BALANCE:g}, size within {BALANCE_RATIO[0]:g}.."
                        f"{BALANCE_RATIO[1]:g}), got {likeness:.2f} and {ratio:.2f}. {_wind_advice(likeness, ratio)}"
                    )

    def near_surface(self) -> Iterator[str]:
        """Compares the wind at 10 m with that at the lowest level."""
        for short in "uv":
            low = [self.planes.get(Channel(f"{short}_component_of_wind", level)) for level in (1000, 925)]
            level = next((plane for plane in low if plane is not None), None)
            channel = Channel(f"10m_{short}_component_of_wind")
            if level is None or channel not in self.planes:
                continue
            ratio = self._spread(self.planes[channel]) / max(self._spread(level), 1e-12)
            if not NEAR_SURFACE_RATIO[0] <= ratio <= NEAR_SURFACE_RATIO[1]:
                yield (
                    f"{_name(channel)}: expected {NEAR_SURFACE_RATIO[0]:g} to {NEAR_SURFACE_RATIO[1]:g} of the "
                    f"standard deviation of the wind at the lowest level, got {ratio:.2f}. Check its units."
                )

    def _spread(self, plane: npt.NDArray[np.float64]) -> float:
        area = np.broadcast_to(np.cos(np.deg2rad(self.latitude)).clip(1e-6)[:, None], plane.shape)
        mean = np.average(plane, weights=area)
        return float(np.sqrt(np.average((plane - mean) ** 2, weights=area)))

    def _averaged(self, plane: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        points = max(1, round(BALANCE_WIDTH_DEG * len(self.longitude) / 360))
        averaged: npt.NDArray[np.float64] = uniform_filter(plane, points, mode=("nearest", "wrap"))
        return averaged

    def _geostrophic(self, height: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        latitude = np.deg2rad(self.latitude)
        coriolis = 2 * EARTH_ROTATION * np.sin(latitude)[:, None]
        coriolis = np.where(abs(coriolis) < 1e-6, np.inf, coriolis)  # outside of the belt
        width = 2 * np.deg2rad(360 / len(self.longitude)) * np.cos(latitude)[:, None].clip(1e-6)
        northward = np.gradient(height, latitude, axis=0)
        eastward = (np.roll(height, -1, 1) - np.roll(height, 1, 1)) / width
        return -northward / MODEL_EARTH_RADIUS_M / coriolis, eastward / MODEL_EARTH_RADIUS_M / coriolis


def _wind_advice(likeness: float, ratio: float) -> str:
    if likeness < -LEAST_BALANCE:
        return "Check its sign, and whether latitudes are labelled in reverse."
    if likeness > LEAST_BALANCE and 1.75 < ratio < 2.3:
        return f"It looks like kt: {CONVERSIONS['m s-1'][0]}."
    return "Check units, and the order of dimensions and points."
