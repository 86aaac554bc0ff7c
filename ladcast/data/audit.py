"""Reads every frame of a store once, in bounded memory, and lists everything that is wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from ladcast.data.layout import canonical_layout, on_grid
from ladcast.data.lexicon import canonical_names, check_units
from ladcast.data.prefetch import prefetch
from ladcast.data.sources.files import open_files
from ladcast.data.store import declared_gaps, finished_manifest, present_channels
from ladcast.data.validation import area_means, check_present, check_regular, check_times, plausible_range
from ladcast.fields import Channel, ChannelSet, find_variable
from ladcast.grid import Grid, grid_of
from ladcast.times import describe

SHOWN = 5
BLOCK_BYTES = 16 * 1024**2


@dataclass(frozen=True)
class Problem:
    """Holds one kind of fault of one variable and level: at how many times, and the first few of them."""

    variable: str
    level: int | None
    fault: str
    count: int
    times: tuple[np.datetime64, ...] = ()

    def __str__(self) -> str:
        area = f"'{self.variable}'" + (f" at {self.level:g} hPa" if self.level is not None else "")
        at = f" at {self.count} times: {describe(self.times, SHOWN)}" if self.times else ""
        more = " ..." if self.count > len(self.times) > 0 else ""
        return f"{area} {self.fault}{at}{more}" if self.variable else self.fault


@dataclass(frozen=True)
class StoreReport:
    """Holds what was checked and everything that was found; `str` lists it."""

    store: str
    frames: int = 0
    channels: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    gaps: tuple[tuple[np.datetime64, np.datetime64], ...] = field(default=())

    @property
    def ok(self) -> bool:
        """Says whether nothing is wrong."""
        return not self.problems

    def require(self) -> None:
        """Raises ValueError with the whole list where something is wrong."""
        if self.problems:
            raise ValueError(str(self))

    def __str__(self) -> str:
        gaps = [f"  declared gap: {describe(left)} -> {describe(right)}" for left, right in self.gaps]
        found = "no problem" if self.ok else f"{len(self.problems)} problems"
        title = f"{self.store}: {found} in {self.frames} frames of {len(self.channels)} channels"
        return "\n".join([title, *(f"  {problem}" for problem in self.problems), *gaps])


def validate_store(
    path: str | Path,
    channels: ChannelSet | None = None,
    grid: Grid | None = None,
    *,
    regular: bool = True,
    threads: int = 2,
) -> StoreReport:
    """Checks names, units, coordinates and every value of a store; see `open_store` for what is accepted.

    Found by value at each time and level: NaN (but for SST on land) and infinities, area means that are not
    plausible, single values beyond a variable's `extremes`, constant fields (holes filled with a number), frames that
    repeat the one before, a land mask of the SST that changes. Gaps in time are reported unless the manifest declares
    them.

    Memory: a few times `threads * BLOCK_BYTES` and the store's chunks, whatever the length of the store.

    Raises:
        FileNotFoundError: nothing is at `path`.
        ValueError: it cannot be opened at all.
    """
    where = str(path)
    manifest = finished_manifest(Path(path))
    raw = canonical_names(open_files(path))
    wanted = channels or present_channels(raw, where)
    gaps = declared_gaps(manifest)
    problems = list(_structure(raw, wanted, gaps if regular else None, where))
    present = _present(raw, wanted)
    try:
        ds = on_grid(canonical_layout(raw, present, where), grid, where)
    except (ValueError, KeyError) as error:
        return StoreReport(where, 0, present.names, (*problems, Problem("", None, str(error), 1)), tuple(sorted(gaps)))
    for name in present.variables:
        problems += _values(ds[name], present, threads)
    return StoreReport(where, ds.sizes["time"], present.names, tuple(problems), tuple(sorted(gaps)))


def _structure(
    raw: xr.Dataset, channels: ChannelSet, gaps: set[tuple[Any, Any]] | None, where: str
) -> Iterator[Problem]:
    """Yields what each check of the gate says, where it would stop at the first."""
    checks: list[Callable[[], None]] = [lambda: check_present(raw, channels, where)]
    # One variable at a time: `check_units` stops at the first.
    checks += [lambda name=name: check_units(raw[[name]], where) for name in raw.data_vars]  # type: ignore[misc]
    if "time" in raw.coords:
        times = np.atleast_1d(raw["time"].values)
        checks.append(lambda: check_times(times, where))
        if gaps is not None and times.dtype.kind == "M":
            checks.append(lambda: check_regular(times, gaps, where))
    for check in checks:
        try:
            check()
        except ValueError as error:
            yield Problem("", None, str(error).removeprefix(f"{where}: "), 1)


def _present(raw: xr.Dataset, channels: ChannelSet) -> ChannelSet:
    levels = np.atleast_1d(raw["level"].values) if "level" in raw.coords else np.empty(0)
    kept = tuple(level for level in channels.levels if np.isclose(levels, level).any())
    upper = tuple(name for name in channels.upper_air if name in raw and kept)
    return ChannelSet(upper, tuple(name for name in channels.surface if name in raw), kept)


def _values(field: xr.DataArray, channels: ChannelSet, threads: int) -> list[Problem]:
    """Reads one variable block by block; keeps a count and the first times of each fault, nothing else."""
    name = str(field.name)
    levels: list[int | None] = list(channels.levels) if name in channels.upper_air else [None]
    found: dict[tuple[int, str], list[Any]] = {}
    last: _Facts | None = None
    for facts in _blocks(field, threads):
        for fault, at in _faults(facts, last, [c for c in channels if c.variable == name]):
            for place in np.flatnonzero(at.any(0)):
                times = facts.times[at[:, place]]
                entry = found.setdefault((int(place), fault), [0, []])
                entry[0] += len(times)
                entry[1] += list(times[: SHOWN - len(entry[1])])
        last = facts
    return [
        Problem(name, levels[p], fault, count, tuple(times)) for (p, fault), (count, times) in sorted(found.items())
    ]


@dataclass(frozen=True, eq=False)
class _Facts:
    """Holds numbers by (time, level) of a block; `moved` is the share of points that were land, or sea, at first."""

    times: npt.NDArray[Any]
    nan: npt.NDArray[Any]
    infinite: npt.NDArray[Any]
    low: npt.NDArray[Any]
    high: npt.NDArray[Any]
    mean: npt.NDArray[Any]
    moved: npt.NDArray[Any]


def _blocks(field: xr.DataArray, threads: int) -> Iterator[_Facts]:
    weight = grid_of(field.to_dataset()).area_weights
    frame_bytes = field.dtype.itemsize * field.size // field.sizes["time"]
    length = max(1, BLOCK_BYTES // frame_bytes)
    first_land = np.isnan(field.isel(time=0).values) if find_variable(field.name).masked_on_land else np.empty(0)
    starts = range(0, field.sizes["time"], length)

    def read(start: int) -> _Facts:
        block = field.isel(time=slice(start, start + length)).load()
        return _facts(block if "level" in block.dims else block.expand_dims(level=1, axis=1), weight, first_land)

    return prefetch(read, starts, threads=threads, ahead=threads)


def _facts(block: xr.DataArray, weight: npt.NDArray[np.float64], first_land: npt.NDArray[Any]) -> _Facts:
    values, horizontal = block.values, (-2, -1)
    times, none = block["time"].values, np.zeros(block.shape[:2])
    if np.isfinite(values).all() and not first_land.size:  # nearly all blocks; the rest costs five more passes
        mean = values.sum(-1, dtype=np.float64) @ weight / (values.shape[-1] * weight.sum())
        return _Facts(times, none, none, values.min(horizontal), values.max(horizontal), mean, none)
    nan, infinite = np.isnan(values), np.isinf(values)
    known = ~(nan | infinite)
    low = np.where(known, values, np.inf).min(horizontal)
    high = np.where(known, values, -np.inf).max(horizontal)
    mean = area_means(block.copy(data=np.where(known, values, np.nan)), weight).values
    moved = (nan != first_land).mean(horizontal) if first_land.size else none
    return _Facts(times, nan.mean(horizontal), infinite.mean(horizontal), low, high, mean, moved)


def _faults(facts: _Facts, last: _Facts | None, channels: list[Channel]) -> Iterator[tuple[str, npt.NDArray[np.bool_]]]:
    """Yields each fault with the times and levels where it is."""
    about = channels[0].about
    bounds = np.array([plausible_range(channel) for channel in channels])
    empty = facts.nan + facts.infinite == 1
    lowest, highest = about.extremes
    yield "is NaN everywhere", facts.nan == 1
    if not about.masked_on_land:
        yield "has NaN", (facts.nan > 0) & (facts.nan < 1)
    yield "has infinities", facts.infinite > 0
    yield "has an implausible area mean", ~empty & ((facts.mean < bounds[:, 0]) | (facts.mean > bounds[:, 1]))
    yield f"has values outside {lowest:g}..{highest:g}", ~empty & ((facts.low < lowest) | (facts.high > highest))
    yield "is constant", ~empty & (facts.low == facts.high)
    if about.masked_on_land:
        yield "has land elsewhere than at the first time", facts.moved > 0
    else:  # the ocean surface of ERA5 changes once a day
        yield "repeats the time before", ~empty & _repeats(facts, last)


def _repeats(facts: _Facts, last: _Facts | None) -> npt.NDArray[np.bool_]:
    """Says where minimum, maximum and mean are those of the time before, to the last bit."""
    now = np.stack([facts.low, facts.high, facts.mean])
    before = now[:, :1] * np.nan if last is None else np.stack([last.low, last.high, last.mean])[:, -1:]
    same: npt.NDArray[np.bool_] = (now == np.concatenate([before, now[:, :-1]], axis=1)).all(0)
    return same
