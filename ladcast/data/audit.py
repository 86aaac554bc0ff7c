"""Reads every state of a store once, in bounded memory, and lists everything that is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from ladcast.data.layout import canonical_layout, on_grid
from ladcast.data.lexicon import check_units
from ladcast.data.prefetch import prefetch
from ladcast.data.sources.files import open_files
from ladcast.data.store import declared_gaps, present_channels
from ladcast.data.validation import area_means, check_present, check_regular, check_times, plausible_range
from ladcast.fields import Channel, ChannelSet, find_variable
from ladcast.grid import Grid, grid_of
from ladcast.times import describe

SHOWN = 5
PIECE_BYTES = 16 * 1024**2


@dataclass(frozen=True)
class Problem:
    """One kind of fault of one variable and level: at how many times it is, and the first few of them."""

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
    """What was checked in a store and everything that was found; `str` lists it."""

    store: str
    frames: int = 0
    channels: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    gaps: tuple[tuple[np.datetime64, np.datetime64], ...] = field(default=())

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
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
    plausible, single values beyond a variable's `extremes`, constant fields (holes filled with a number), states that
    repeat the one before, a land mask of the SST that changes. Gaps in time are reported unless the manifest declares
    them.

    Memory: a few times `threads * PIECE_BYTES` and the store's chunks, whatever the length of the store.

    Raises:
        FileNotFoundError: nothing is at `path`.
        ValueError: it cannot be opened at all.
    """
    where = str(path)
    gaps = declared_gaps(Path(path))
    raw = open_files(path)
    wanted = channels or present_channels(raw, where)
    problems = _structure(raw, wanted, gaps if regular else None, where)
    present = _present(raw, wanted)
    declared = tuple(sorted(gaps))
    try:
        ds = on_grid(canonical_layout(raw, present, where), grid, where)
    except (ValueError, KeyError) as error:
        return StoreReport(where, 0, present.names, (*problems, Problem("", None, str(error), 1)), declared)
    for name in present.variables:
        problems += _values(ds[name], present, threads)
    return StoreReport(where, ds.sizes["time"], present.names, tuple(problems), declared)


def _structure(raw: xr.Dataset, channels: ChannelSet, gaps: set[tuple[Any, Any]] | None, where: str) -> list[Problem]:
    """Returns what each check of `open_store` says of names, units and times; `open_store` stops at the first."""
    problems: list[Problem] = []
    with _noted(problems, where):
        check_present(raw, channels, where)
    for name in raw.data_vars:  # one at a time, because `check_units` stops at the first
        with _noted(problems, where):
            check_units(raw[[name]], where)
    if "time" in raw.coords:
        times = np.atleast_1d(raw["time"].values)
        with _noted(problems, where):
            check_times(times, where)
        if gaps is not None and times.dtype.kind == "M":
            with _noted(problems, where):
                check_regular(times, gaps, where)
    return problems


@contextmanager
def _noted(problems: list[Problem], where: str) -> Iterator[None]:
    """Adds what a check raises to the problems."""
    try:
        yield
    except ValueError as error:
        problems.append(Problem("", None, str(error).removeprefix(f"{where}: "), 1))


def _present(raw: xr.Dataset, channels: ChannelSet) -> ChannelSet:
    levels = np.atleast_1d(raw["level"].values) if "level" in raw.coords else np.empty(0)
    kept = tuple(level for level in channels.levels if np.isclose(levels, level).any())
    upper = tuple(name for name in channels.upper_air if name in raw and kept)
    return ChannelSet(upper, tuple(name for name in channels.surface if name in raw), kept)


def _values(field: xr.DataArray, channels: ChannelSet, threads: int) -> list[Problem]:
    """Reads one variable piece by piece; keeps a count and the first times of each fault, nothing else."""
    name = str(field.name)
    levels: list[int | None] = list(channels.levels) if name in channels.upper_air else [None]
    found: dict[tuple[int, str], list[Any]] = {}
    last: _Facts | None = None
    for facts in _pieces(field, threads):
        for fault, at in _faults(facts, last, channels.channels[channels.rows(name)]):
            for place in np.flatnonzero(at.any(0)):
                times = facts.times[at[:, place]]
                entry = found.setdefault((int(place), fault), [0, []])
                entry[0] += len(times)
                entry[1] += list(times[: SHOWN - len(entry[1])])
        last = facts  # the last time of a piece is compared with the first of the next
    return [
        Problem(name, levels[p], fault, count, tuple(times)) for (p, fault), (count, times) in sorted(found.items())
    ]


@dataclass(frozen=True, eq=False)
class _Facts:
    """Statistics of a piece, by time and level.

    `nan`, `infinite` and `moved` are shares of the points; those have moved that were land at first and are sea, or the
    reverse.
    """

    times: npt.NDArray[Any]
    nan: npt.NDArray[Any]
    infinite: npt.NDArray[Any]
    low: npt.NDArray[Any]
    high: npt.NDArray[Any]
    mean: npt.NDArray[Any]
    moved: npt.NDArray[Any]


def _pieces(field: xr.DataArray, threads: int) -> Iterator[_Facts]:
    weight = grid_of(field.to_dataset()).area_weights
    state_bytes = field.dtype.itemsize * field.size // field.sizes["time"]
    length = max(1, PIECE_BYTES // state_bytes)
    first_land = np.isnan(field.isel(time=0).values) if find_variable(field.name).masked_on_land else np.empty(0)
    starts = range(0, field.sizes["time"], length)

    def read(start: int) -> _Facts:
        piece = field.isel(time=slice(start, start + length)).load()
        return _facts(piece if "level" in piece.dims else piece.expand_dims(level=1, axis=1), weight, first_land)

    return prefetch(read, starts, threads=threads, ahead=threads)


def _facts(piece: xr.DataArray, weight: npt.NDArray[np.float64], first_land: npt.NDArray[Any]) -> _Facts:
    values, horizontal = piece.values, (-2, -1)
    times, none = piece["time"].values, np.zeros(piece.shape[:2])
    if np.isfinite(values).all() and not first_land.size:  # nearly all pieces; the rest costs five more passes
        mean = values.sum(-1, dtype=np.float64) @ weight / (values.shape[-1] * weight.sum())
        return _Facts(times, none, none, values.min(horizontal), values.max(horizontal), mean, none)
    nan, infinite = np.isnan(values), np.isinf(values)
    known = ~(nan | infinite)
    low = np.where(known, values, np.inf).min(horizontal)
    high = np.where(known, values, -np.inf).max(horizontal)
    mean = area_means(piece.copy(data=np.where(known, values, np.nan)), weight).values
    moved = (nan != first_land).mean(horizontal) if first_land.size else none
    return _Facts(times, nan.mean(horizontal), infinite.mean(horizontal), low, high, mean, moved)


def _faults(
    facts: _Facts, last: _Facts | None, channels: Sequence[Channel]
) -> Iterator[tuple[str, npt.NDArray[np.bool_]]]:
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
    # Three numbers of a state stand for all: two states that share them to the last bit are one.
    now = np.stack([facts.low, facts.high, facts.mean])
    before = now[:, :1] * np.nan if last is None else np.stack([last.low, last.high, last.mean])[:, -1:]
    same: npt.NDArray[np.bool_] = (now == np.concatenate([before, now[:, :-1]], axis=1)).all(0)
    return same
