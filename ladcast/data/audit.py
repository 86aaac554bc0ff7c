"""Reads every state of a store once, in bounded memory, and lists everything that is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from ladcast.data.layout import canonical_layout, on_grid
from ladcast.data.lazy import prefetch
from ladcast.data.lexicon import check_units
from ladcast.data.normalization import pack
from ladcast.data.sources.files import open_files
from ladcast.data.store import (
    Gaps,
    check_analyses,
    check_present,
    check_regular,
    check_times,
    declared_gaps,
    present_channels,
)
from ladcast.data.weather import FieldFacts, NoWeatherError, check_state
from ladcast.fields import ChannelSet, find_variable
from ladcast.grid import Grid, grid_of
from ladcast.times import Times, describe

SHOWN = 5
PIECE_BYTES = 16 * 1024**2
WHOLE_STATES = 8


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
    gaps: tuple[tuple[np.datetime64, np.datetime64], ...] = ()

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
    path: str | Path, channels: ChannelSet | None = None, grid: Grid | None = None, *, threads: int = 2
) -> StoreReport:
    """Checks names, units, coordinates and every value of a store; see `open_store` for what is accepted.

    Found by value at each time and level: NaN (but for SST on land) and infinities, area means that are not
    plausible, single values beyond a variable's `extremes`, constant fields (holes filled with a number), states that
    repeat the one before, a land mask of the SST that changes; and at a few times, whether the fields of a state fit
    each other. Gaps in time are reported unless the manifest declares them.

    Memory: a few times `threads * PIECE_BYTES` and the store's chunks, whatever the length of the store.

    Raises:
        FileNotFoundError: nothing is at `path`.
        ValueError: it cannot be opened at all.
    """
    where = str(path)
    gaps = declared_gaps(Path(path))
    raw = open_files(path)
    wanted = channels or present_channels(raw, where)
    problems = _structure(raw, wanted, gaps, where)
    levels = np.atleast_1d(raw["level"].values) if "level" in raw.coords else np.empty(0)
    kept = tuple(level for level in wanted.levels if np.isclose(levels, level).any())
    upper = tuple(name for name in wanted.upper_air if name in raw and kept)
    present = ChannelSet(upper, tuple(name for name in wanted.surface if name in raw), kept)
    declared = tuple(sorted(gaps))
    try:
        ds = on_grid(canonical_layout(raw, present, where, judged=False), grid, where)
    except (ValueError, KeyError) as error:
        return StoreReport(where, 0, present.names, (*problems, Problem("", None, str(error), 1)), declared)
    for name in present.variables:
        problems += _values(ds[name], present, threads)
    problems += _states(ds, present)
    return StoreReport(where, ds.sizes["time"], present.names, tuple(problems), declared)


def _structure(raw: xr.Dataset, channels: ChannelSet, gaps: Gaps, where: str) -> list[Problem]:
    """Returns what each check of `open_store` says of names, units and times; `open_store` stops at the first."""
    problems: list[Problem] = []
    with _noted(problems, where):
        check_analyses(raw, where)
    with _noted(problems, where):
        check_present(raw, channels, where)
    for name in raw.data_vars:  # one at a time, because `check_units` stops at the first
        with _noted(problems, where):
            check_units(raw[[name]], where)
    if "time" in raw.coords:
        times = np.atleast_1d(raw["time"].values)
        with _noted(problems, where):
            check_times(times, where)
        if times.dtype.kind == "M":
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


def _states(ds: xr.Dataset, channels: ChannelSet) -> Iterator[Problem]:
    """Judges whole states at a few times from the first to the last: it takes a second look at all variables."""
    for index in np.unique(np.linspace(0, ds.sizes["time"] - 1, WHOLE_STATES).astype(int)):
        state = ds.isel(time=[index])
        try:
            check_state(pack(state, channels)[0].numpy(), channels, grid_of(ds), describe(state["time"].values))
        except NoWeatherError as error:
            yield Problem("", None, str(error), 1)


def _values(field: xr.DataArray, channels: ChannelSet, threads: int) -> list[Problem]:
    """Reads one variable piece by piece; keeps a count and the first times of each fault, nothing else."""
    name = str(field.name)
    own = channels.channels[channels.rows(name)]
    found: dict[tuple[int, str], list[Any]] = {}
    last: FieldFacts | None = None
    for times, facts, moved in _pieces(field, threads):
        faults = [(fault.format(*own[0].about.extremes), at) for fault, at in facts.faults(own)]
        if own[0].about.masked_on_land:
            faults.append(("has land elsewhere than at the first time", moved))
        else:  # the ocean surface of ERA5 changes once a day
            faults.append(("repeats the time before", _repeats(facts, last)))
        for fault, at in faults:
            for place in np.flatnonzero(at.any(0)):
                entry = found.setdefault((int(place), fault), [0, []])
                entry[0] += int(at[:, place].sum())
                entry[1] += list(times[at[:, place]][: SHOWN - len(entry[1])])
        last = facts  # the last time of a piece is compared with the first of the next
    return [
        Problem(name, own[p].level, fault, count, tuple(times)) for (p, fault), (count, times) in sorted(found.items())
    ]


def _pieces(field: xr.DataArray, threads: int) -> Iterator[tuple[Times, FieldFacts, npt.NDArray[np.bool_]]]:
    """Yields times, the facts of their fields, and whether land and sea are elsewhere than at the first time."""
    area = grid_of(field.to_dataset()).area_weights
    length = max(1, PIECE_BYTES // (field.dtype.itemsize * field.size // field.sizes["time"]))
    first_land = np.isnan(field.isel(time=0).values) if find_variable(field.name).masked_on_land else None

    def read(start: int) -> tuple[Times, FieldFacts, npt.NDArray[np.bool_]]:
        piece = field.isel(time=slice(start, start + length)).load()
        values = piece.values if "level" in piece.dims else piece.values[:, None]
        moved = np.zeros(values.shape[:2], dtype=bool)
        if first_land is not None:
            moved = (np.isnan(values) != first_land).any((-2, -1))
        return piece["time"].values, FieldFacts.of(values, area), moved

    return prefetch(read, range(0, field.sizes["time"], length), threads=threads, ahead=threads)


def _repeats(facts: FieldFacts, last: FieldFacts | None) -> npt.NDArray[np.bool_]:
    """Says where minimum, maximum and mean are those of the time before, to the last bit."""
    # Three numbers of a state stand for all: two states that share them to the last bit are one.
    now = np.stack([facts.low, facts.high, facts.mean])
    before = now[:, :1] * np.nan if last is None else np.stack([last.low, last.high, last.mean])[:, -1:]
    same = (now == np.concatenate([before, now[:, :-1]], axis=1)).all(0)
    return np.asarray(same & (facts.nan + facts.infinite < 1))
