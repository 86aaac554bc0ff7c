"""Checks of a store's content: what is there, when, and whether the numbers can be what they claim."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import xarray as xr

from ladcast.constants import GRAVITY
from ladcast.data.lexicon import CONVERSIONS, NEAR_MISSES
from ladcast.fields import LAND_SEA_MASK, VARIABLES, Channel, ChannelSet
from ladcast.grid import grid_of
from ladcast.times import Times, describe

LAND_SHARE_THAT_A_MASK_MUST_SHOW = 0.1
CHANGE_OF_MASK = 0.01
SHOWN_GAPS = 5


def check_present(ds: xr.Dataset, channels: ChannelSet, where: str) -> None:
    """Raises ValueError where variables, levels or the time are missing, with what is there."""
    missing = [name for name in channels.variables if name not in ds.data_vars]
    if missing:
        hints = "".join(f" '{name}' is there: {advice}." for name, advice in NEAR_MISSES.items() if name in ds)
        raise ValueError(
            f"{where}: expected {len(channels.variables)} variables, missing: {', '.join(missing)}. "
            f"There are: {', '.join(sorted(map(str, ds.data_vars))) or 'none'}.{hints} "
            "Add them, or choose a smaller channel set."
        )
    if "time" not in ds.coords:
        raise ValueError(f"{where}: expected a coordinate 'time', got {', '.join(map(str, ds.coords))}. Add it.")
    if channels.upper_air:
        _check_levels(ds, channels, where)


def check_times(times: Times, where: str) -> None:
    """Raises ValueError unless the times are datetime64, increase and do not repeat."""
    if times.dtype.kind != "M":
        raise ValueError(f"{where}: 'time' is expected as datetime64, got {times.dtype}. Use a standard calendar.")
    if times.size == 0 or np.isnat(times).any():
        raise ValueError(
            f"{where}: expected valid times, got {times.size} with {np.isnat(times).sum()} empty. Repair it."
        )
    steps = np.diff(times).astype("timedelta64[s]").astype(np.int64)
    if (steps == 0).any():
        raise ValueError(f"{where}: 'time' repeats {describe(times[1:][steps == 0])}. Drop the duplicates.")
    if (steps < 0).any():
        raise ValueError(f"{where}: 'time' goes back after {describe(times[:-1][steps < 0])}. Sort the store by time.")


def check_regular(times: Times, declared: set[tuple[np.datetime64, np.datetime64]], where: str) -> None:
    """Raises ValueError where the step changes outside the `declared` gaps (last before, first after)."""
    if len(times) < 3:
        return
    steps = np.diff(times).astype("timedelta64[s]")
    # The median, so that a few gaps do not pass for the step.
    usual = np.sort(steps)[len(steps) // 2]
    gaps = [(times[i], times[i + 1]) for i in np.flatnonzero(steps != usual)]
    unexpected = [f"{describe(start)} -> {describe(end)}" for start, end in gaps if (start, end) not in declared]
    if unexpected:
        more = f" and {len(unexpected) - SHOWN_GAPS} more" if len(unexpected) > SHOWN_GAPS else ""
        raise ValueError(
            f"{where}: expected a step of {usual / np.timedelta64(1, 'h'):g} h in 'time', got other steps at "
            f"{'; '.join(unexpected[:SHOWN_GAPS])}{more}. Fill them, or declare them as 'gaps' in the "
            "manifest.json beside the store."
        )


def check_values(ds: xr.Dataset, channels: ChannelSet, where: str, *, complete: bool) -> None:
    """Reads the first and the last time by variable, and checks units by value, NaN and the SST mask.

    `ds` has the canonical layout. `complete=False` lets NaN pass, for sources whose gaps the caller handles.

    Raises:
        ValueError: an area mean is outside the plausible range, a field has NaN, the SST does not mark land.
    """
    weight = grid_of(ds).area_weights
    # Both ends, because units and masks change within long archives, if they do.
    ends = sorted({0, ds.sizes["time"] - 1})
    for name in channels.variables:
        states = ds[name].isel(time=ends).load()
        shares, means = states.isnull().mean(("latitude", "longitude")), area_means(states, weight)
        for channel in channels.channels[channels.rows(name)]:
            area = f"{where}: '{name}'" + (f" at {channel.level} hPa" if channel.level else "")
            here = {"level": channel.level} if channel.level else {}
            if complete and not channel.about.masked_on_land:
                _check_complete(shares.sel(here), area)
            _check_plausible(means.sel(here), channel, area)
        if VARIABLES[name].masked_on_land:
            _check_land(states, ds, where)


def _check_levels(ds: xr.Dataset, channels: ChannelSet, where: str) -> None:
    if "level" not in ds.coords:
        raise ValueError(
            f"{where}: expected a coordinate 'level' in hPa, got {', '.join(map(str, ds.coords))}. Add it."
        )
    present = np.atleast_1d(ds["level"].values).astype(float)
    missing = [level for level in channels.levels if not np.isclose(present, level).any()]
    if not missing:
        return
    got = ", ".join(f"{level:g}" for level in present)
    advice = "They look like Pa: multiply by 0.01." if present.max() > 2000 else "Add them, or use fewer levels."
    raise ValueError(f"{where}: 'level' lacks {missing} hPa, there are {got}. {advice}")


def area_means(states: xr.DataArray, weight: npt.NDArray[np.float64]) -> xr.DataArray:
    """Returns the mean over the sphere, by time and level, NaN left out; NaN where there is nothing else."""
    values, gaps = states.values, np.isnan(states.values)
    total = np.where(gaps, 0.0, values).sum(-1, dtype=np.float64) @ weight
    area = (~gaps).sum(-1) @ weight
    means = np.divide(total, area, out=np.full_like(total, np.nan), where=area > 0)
    return states.isel(latitude=0, longitude=0, drop=True).copy(data=means)


def _check_complete(shares: xr.DataArray, area: str) -> None:
    worst = int(shares.values.argmax())
    if shares.values[worst] > 0:
        time = describe(shares["time"].values[worst])
        raise ValueError(f"{area}: expected no NaN, got {shares.values[worst]:.1%} NaN at {time}. Fill it first.")


def _check_plausible(means: xr.DataArray, channel: Channel, area: str) -> None:
    low, high = plausible_range(channel)
    for mean in means.values.tolist():
        if np.isnan(mean) or low <= mean <= high:
            continue
        fitting = [rule for rule in CONVERSIONS.get(channel.about.units, ()) if low <= rule(mean) <= high]
        advice = f"It looks like {fitting[0].units}: {fitting[0]}." if fitting else "Check its units."
        raise ValueError(
            f"{area}: expected an area mean within {low:g}..{high:g} {channel.about.units}, got {mean:.4g}. {advice}"
        )


def plausible_range(channel: Channel) -> tuple[float, float]:
    """Returns bounds of the area mean; for geopotential above 900 hPa of the ICAO standard atmosphere."""
    if channel.variable != "geopotential" or channel.level is None or channel.level > 900:
        return VARIABLES[channel.variable].plausible
    tropopause_hpa, tropopause_m, scale_height_m = 226.32, 11e3, 6341.62
    if channel.level > tropopause_hpa:
        height = 44330.8 * (1 - (channel.level / 1013.25) ** 0.190263)
    else:
        height = tropopause_m + scale_height_m * np.log(tropopause_hpa / channel.level)
    return 0.6 * GRAVITY * height, 1.4 * GRAVITY * height


def _check_land(states: xr.DataArray, ds: xr.Dataset, where: str) -> None:
    land, name = states.isnull(), states.name
    if land.all(("latitude", "longitude")).any():
        raise ValueError(
            f"{where}: '{name}' is expected over the ocean, got NaN everywhere: the globe would become land. "
            "Take the field from another source."
        )
    change = float((land.isel(time=0) != land.isel(time=-1)).mean())
    if change > CHANGE_OF_MASK:
        raise ValueError(
            f"{where}: '{name}' is expected NaN over the same land at all times, got a mask that changes "
            f"at {change:.1%} of the points between the first and the last time. Use one land mask."
        )
    dry = float(ds[LAND_SEA_MASK].mean()) if LAND_SEA_MASK in ds else 0.0
    if dry > LAND_SHARE_THAT_A_MASK_MUST_SHOW and not land.any():
        raise ValueError(
            f"{where}: '{name}' is expected NaN over land, got values everywhere, while '{LAND_SEA_MASK}' has "
            f"{dry:.0%} land. Mask it (`sst.where(land_sea_mask < 0.5)`)."
        )
