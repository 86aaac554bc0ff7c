"""Opens a store of weather states and checks it: all data enter through `open_store`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from ladcast.data.layout import canonical_layout, on_grid
from ladcast.data.lexicon import NEAR_MISSES, canonical_names, check_units
from ladcast.data.normalization import pack
from ladcast.data.sources.files import mark_forecast, open_files
from ladcast.data.sources.grib import FORECAST
from ladcast.data.weather import NoWeatherError, check_state, percent
from ladcast.documents import read_mapping
from ladcast.fields import LAND_SEA_MASK, LEVELS_HPA, MASKED_ON_LAND, VARIABLES, ChannelSet
from ladcast.grid import Grid, grid_of
from ladcast.times import FIRST_YEAR, LAST_YEAR, Times, describe, parse_time

CHANGE_OF_MASK = 0.01
LAND_SHARE_THAT_A_MASK_MUST_SHOW = 0.1
SHOWN_GAPS = 5
MOST_KEPT_BYTES = 2**30
"""Of a variable that is read to see where it is, and then used: 17 years of 6-hourly fields at 2.5 degrees."""
Gaps = set[tuple[np.datetime64, np.datetime64]]


def open_store(
    path: str | Path | xr.Dataset,
    channels: ChannelSet | None = None,
    grid: Grid | None = None,
    *,
    regular: bool = True,
    complete: bool = True,
    member: int | None = None,
    forecasts: bool = False,
) -> xr.Dataset:
    """Opens a Zarr store, netCDF or GRIB file, a folder or pattern of them, or a dataset lazily, and checks it.

    The result has the canonical layout: the variables of `channels`, by default all known ones that are there, and the
    static fields, with dimensions (time, level, latitude, longitude), from south to north, eastward within [0, 360),
    levels in channel order. No field is read here: each is judged when it is read, so that exactly what is used is
    judged (`ladcast.data.weather`; `check_ends` reads the first and last state, `validate_store` all). A `grid` without
    the south pole row drops it.

    Args:
        path: what to open.
        channels: the variables and levels that must be there.
        grid: the grid that they must be on.
        regular: whether all time steps must be equal, but for declared gaps; not so those of initial conditions.
        complete: whether NaN is refused.
        member: which member of an ensemble.
        forecasts: whether fields of a forecast are accepted where analyses are meant.

    Raises:
        FileNotFoundError: nothing is at `path`.
        ValueError: the content does not fit; the message says expected, got, where and what to do.
    """
    where = str(path.encoding.get("source", "The dataset") if isinstance(path, xr.Dataset) else path)
    gaps = set() if isinstance(path, xr.Dataset) else declared_gaps(Path(path))
    named = mark_forecast(canonical_names(path, where)) if isinstance(path, xr.Dataset) else open_files(path, member)
    if not forecasts:
        check_analyses(named, where)
    channels = channels or present_channels(named, where)
    check_present(named, channels, where)
    check_units(named, where)
    check_time_axis(named, where)
    ds = on_grid(canonical_layout(named, channels, where, complete=complete), grid, where)
    if regular:
        check_regular(ds["time"].values, gaps, where)
    return ds


def open_where_present(path: str | Path, variable: str, *, regular: bool = True) -> xr.Dataset:
    """Opens the states of those times at which one variable is there; archives such as ERA-40 have others without it.

    Other variables are judged as `open_store` does when they are read. This one is read once, to see where it is, and
    may have gaps; a small archive keeps it in memory.

    Raises:
        ValueError: the variable is at no time, or, where they are to be `regular`, the times are not evenly spaced.
    """
    ds = open_store(path, regular=False)
    if variable not in ds:
        return ds
    gappy = open_store(path, regular=False, complete=False)[variable]
    there, maps = [], []
    for index in range(gappy.sizes["time"]):
        values = gappy.isel(time=index).values
        if not np.isnan(values).all():
            there.append(index)
            maps += [values] if gappy.nbytes <= MOST_KEPT_BYTES else []
    if not there:
        raise ValueError(f"{path}: expected '{variable}', got NaN everywhere at all times. Take another source.")
    kept = ds.isel(time=there)
    if maps:
        kept = kept.assign({variable: gappy.isel(time=there).copy(data=np.stack(maps))})
    if regular:
        check_regular(kept["time"].values, declared_gaps(Path(path)), str(path))
    return kept


def check_ends(ds: xr.Dataset, channels: ChannelSet, where: str) -> xr.Dataset:
    """Judges the first and the last state of a dataset that will be read from end to end, and returns it.

    Both ends, because units and masks change within long archives, if they do.

    Raises:
        ValueError: no weather has such a state, or the SST does not mark the same land.
    """
    ends = ds.isel(time=sorted({0, ds.sizes["time"] - 1})).load()
    for index, state in enumerate(pack(ends, channels).numpy()):
        check_state(state, channels, grid_of(ds), f"{where}: at {describe(ends['time'].values[index])}")
    for name in (name for name in MASKED_ON_LAND if name in channels.surface):
        check_land(ends[name], where, ends.get(LAND_SEA_MASK))
    return ds


def check_land(states: xr.DataArray, where: str, mask: xr.DataArray | None = None) -> None:
    """Raises NoWeatherError unless a field is NaN over the same land at the first time and the last, if there is land.

    `mask` is the share of land, if it is known.
    """
    land, name = states.isnull(), states.name
    change = float((land.isel(time=0) != land.isel(time=-1)).mean())
    if change > CHANGE_OF_MASK:
        raise NoWeatherError(
            f"{where}: '{name}' is expected NaN over the same land at all times, got a mask that changes "
            f"at {percent(change)} of the points between the first and the last time. Use one land mask."
        )
    dry = 0.0 if mask is None else float(mask.mean())
    if dry > LAND_SHARE_THAT_A_MASK_MUST_SHOW and not land.any():
        raise NoWeatherError(
            f"{where}: '{name}' is expected NaN over land, got values everywhere, while '{LAND_SEA_MASK}' has "
            f"{dry:.0%} land. Mask it (`sst.where(land_sea_mask < 0.5)`)."
        )


def check_analyses(ds: xr.Dataset, where: str) -> None:
    """Raises ValueError where the fields are those of a forecast, as the headers of GRIB files say."""
    if FORECAST in ds.attrs:
        raise ValueError(
            f"{where}: expected analyses, got a forecast ({ds.attrs[FORECAST]}). Take the analysis of that time; "
            "`ladcast forecast --source` starts from it as it is."
        )


def check_present(ds: xr.Dataset, channels: ChannelSet, where: str) -> None:
    """Raises ValueError where variables, levels or the time are missing, with what is there."""
    missing = [name for name in channels.variables if name not in ds.data_vars]
    if missing:
        hints = "".join(f" '{name}' is there: {advice}." for name, advice in NEAR_MISSES.items() if name in ds)
        raise ValueError(
            f"{where}: expected {len(channels.variables)} variables, missing: {', '.join(missing)}. "
            f"There are: {', '.join(sorted(map(str, ds.data_vars))) or 'none'}.{hints} "
            "Add them (`ladcast analysis` takes a state from several sources), or name a model of fewer channels."
        )
    wrong = [name for name in channels.variables if ds[name].dtype.kind not in "fiu"]
    if wrong:
        raise ValueError(f"{where}: expected numbers in '{wrong[0]}', got {ds[wrong[0]].dtype}. Repair the file.")
    _check_axis(ds, "time", where)
    if channels.upper_air:
        _check_levels(ds, channels, where)


def check_time_axis(ds: xr.Dataset, where: str) -> None:
    """Raises ValueError unless a dataset has times along one dimension; otherwise as `check_times`."""
    _check_axis(ds, "time", where)
    check_times(np.atleast_1d(ds["time"].values), where)


def _check_axis(ds: xr.Dataset, name: str, where: str) -> None:
    if name not in ds.coords:
        units = " in hPa" if name == "level" else ""
        there = ", ".join(map(str, ds.coords)) or "none"
        raise ValueError(f"{where}: expected a coordinate '{name}'{units}, got {there}. Add it.")
    if ds[name].ndim > 1:
        raise ValueError(
            f"{where}: expected a coordinate '{name}' along one dimension, got {ds[name].dims}. "
            "Select one forecast or one lead time (`ds.isel`), so that each state has one time."
        )


def check_times(times: Times, where: str) -> None:
    """Raises ValueError unless the times are datetime64, increase and do not repeat."""
    if times.dtype.kind != "M" and times.size:
        got, advice = str(times.dtype), "Use a standard calendar."
        if hasattr(times.flat[0], "calendar"):
            got = f"those of the calendar '{times.flat[0].calendar}'"
        if times.dtype.kind == "m":
            got, advice = "time differences", "Put the dates in their place, such as `ds.assign_coords(time=dates)`."
        raise ValueError(f"{where}: 'time' is expected as datetime64, got {got}. {advice}")
    if times.size == 0 or np.isnat(times).any():
        raise ValueError(
            f"{where}: expected valid times, got {times.size} with {np.isnat(times).sum()} empty. Repair it."
        )
    years = times[[0, -1]].astype("datetime64[Y]").astype(int) + 1970
    if not FIRST_YEAR <= years.min() <= years.max() <= LAST_YEAR:
        span = f"{FIRST_YEAR}..{LAST_YEAR}"
        raise ValueError(f"{where}: 'time' is expected within the years {span}, got {years.max()}. Repair it.")
    steps = np.diff(times).astype("timedelta64[s]").astype(np.int64)
    if (steps == 0).any():
        raise ValueError(f"{where}: 'time' repeats {describe(times[1:][steps == 0])}. Drop the duplicates.")
    if (steps < 0).any():
        raise ValueError(f"{where}: 'time' goes back after {describe(times[:-1][steps < 0])}. Sort the store by time.")


def check_regular(times: Times, declared: Gaps, where: str) -> None:
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


def _check_levels(ds: xr.Dataset, channels: ChannelSet, where: str) -> None:
    _check_axis(ds, "level", where)
    if ds["level"].dtype.kind not in "fiu":
        raise ValueError(f"{where}: expected 'level' as numbers in hPa, got {ds['level'].dtype}. Convert it.")
    present = np.atleast_1d(ds["level"].values).astype(float)
    missing = [level for level in channels.levels if not np.isclose(present, level).any()]
    if missing:
        got = ", ".join(f"{level:g}" for level in present)
        in_pascal = present.size and present.max() > 2000
        advice = "They look like Pa: multiply by 0.01." if in_pascal else "Add them, or use fewer levels."
        raise ValueError(f"{where}: 'level' lacks {missing} hPa, there are {got or 'none'}. {advice}")


def present_channels(ds: xr.Dataset, where: str) -> ChannelSet:
    """Returns the known variables of a dataset with its levels; raises ValueError where there are none.

    Only the standard levels where there is a level of 10 hPa beside the wind at 10 m.
    """
    present = [about for name, about in VARIABLES.items() if name in ds]
    if not present:
        raise ValueError(f"{where}: expected any of {', '.join(VARIABLES)}; there are {', '.join(map(str, ds))}.")
    levels = np.sort(np.atleast_1d(ds["level"].values)) if "level" in ds else np.empty(0)
    odd = levels[levels % 1 != 0] if levels.dtype.kind in "fiu" else levels
    if odd.size:
        raise ValueError(f"{where}: expected levels of whole hPa, got {odd[0]}. Name the wanted ones in `channels`.")
    upper = tuple(about.name for about in present if about.on_levels)
    surface = tuple(about.name for about in present if not about.on_levels)
    if 10 in levels and any(name.startswith("10m") for name in surface):
        # `u10` would name the wind at 10 hPa and at 10 m.
        levels = np.intersect1d(levels, LEVELS_HPA)
    return ChannelSet(upper, surface, tuple(map(int, levels)) if upper else ())


def read_times(path: Path) -> Times:
    """Returns the times that a store or file holds."""
    ds = open_files(path)
    _check_axis(ds, "time", str(path))
    return np.atleast_1d(ds["time"].values)


def select_period(ds: xr.Dataset, start: str | None, end: str | None) -> xr.Dataset:
    """Returns the states from `start` up to and including `end`; raises ValueError where there are none."""
    times = ds["time"].values
    kept = np.ones(len(times), dtype=bool)
    if start is not None:
        kept &= times >= parse_time(start)
    if end is not None:
        kept &= times <= parse_time(end)
    if not kept.any():
        held = f"{describe(times[0])} to {describe(times[-1])}" if len(times) else "none"
        raise ValueError(f"No states from {start} to {end}: the store holds {held}. Choose another period.")
    return ds.isel(time=np.flatnonzero(kept))


def declared_gaps(store: Path) -> Gaps:
    """Returns the gaps in time that the manifest of a store admits: the last time before each, and the first after.

    Raises:
        ValueError: the manifest says that the store is unfinished, or it is damaged.
    """
    # A store holds its manifest; a netCDF file has it beside itself, or in a folder of its own.
    beside = store.with_name(f"{store.name}.manifest.json")
    places = (store / "manifest.json", beside, store.parent / "manifest.json")
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        return set()
    try:
        manifest = read_mapping(path)
    except ValueError as error:
        raise ValueError(f"{error} Copy it again, or delete it.") from None
    if manifest.get("status") == "running":
        raise ValueError(
            f"{store} is unfinished: its manifest.json has status 'running'. Finish or resume the job first."
        )
    try:
        return {(parse_time(before), parse_time(after)) for before, after in manifest.get("gaps", ())}
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: expected 'gaps' as pairs of times, got an error: {error}. Repair it.") from error
