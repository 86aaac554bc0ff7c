"""The states that a stage reads: of a store, of an archive, or derived from those of a store; and reading them.

Each is a `StateSource`: it says what is read, in the words of a manifest, and opens it anew in each process. Sources
may be slow or fail for a while: a read waits, tries again, and gives up with a reason.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import xarray as xr

from data_pipelines import Origin, StateSelection
from data_pipelines.manifest import fingerprint
from ladcast.data.derive import frames_of_week, hourly_windows, relative_vorticity, six_hour_parts
from ladcast.data.lazy import lazy_maps
from ladcast.data.sources.base import WEATHERBENCH_NAMES, from_hourly, translate
from ladcast.data.sources.files import open_files
from ladcast.data.sources.initial_state import make_source
from ladcast.data.store import (
    check_analyses,
    check_ends,
    check_regular,
    check_time_axis,
    declared_gaps,
    open_store,
    select_period,
)
from ladcast.data.weather import NoWeatherError
from ladcast.fields import PRECIPITATION, STATIC_VARIABLES, ChannelSet, find_variable, read_channels
from ladcast.grid import Grid, grid_of
from ladcast.times import Times, describe, parse_time

VORTICITY = "relative_vorticity"
WIND = ("u_component_of_wind", "v_component_of_wind")


class StateSource(ABC):
    """Says where states come from. A frozen dataclass: workers get a copy of it, and open it anew."""

    def open(self) -> xr.Dataset:
        """Returns the states, lazily, in canonical layout; a process opens equal sources once."""
        return _opened(self)

    @abstractmethod
    def open_anew(self) -> xr.Dataset:
        """Opens and checks the states."""

    @property
    @abstractmethod
    def about(self) -> dict[str, Any]:
        """Returns the entry of a manifest's `inputs`."""

    @property
    @abstractmethod
    def arguments(self) -> dict[str, Any]:
        """Returns the entry of a manifest's `arguments`."""


@lru_cache(maxsize=4)
def _opened(source: StateSource) -> xr.Dataset:
    return source.open_anew()


@dataclass(frozen=True)
class View(StateSource):
    """Selects channels and a period of a store, through the gate of `open_store`.

    The fingerprint is that of the whole store, so a view of a changed store is another view. `omit` leaves out times,
    `accept_gaps` lets the time axis have holes that nobody declared: both become gaps that the product declares.
    """

    store: Path
    digest: str
    channels: ChannelSet
    grid: Grid | None = None
    start: str | None = None
    end: str | None = None
    omit: tuple[str, ...] = ()
    accept_gaps: bool = False

    @classmethod
    def of(cls, store: Path, selection: StateSelection) -> View:
        """Fixes what is selected now."""
        channels = read_channels(selection.channels)
        grid = Grid.parse(selection.grid) if selection.grid else None
        return cls(store.absolute(), fingerprint(store), channels, grid, selection.start, selection.end)

    def open_anew(self) -> xr.Dataset:
        """Opens the store, and leaves out what is not selected."""
        ds = open_store(self.store, self.channels, self.grid, regular=not self.accept_gaps)
        selected = leave_out(select_period(ds, self.start, self.end), self.omit)
        return check_ends(selected, self.channels, str(self.store))

    @property
    def about(self) -> dict[str, Any]:
        """Returns the entry of a manifest's `inputs`."""
        return {"name": self.store.name, "fingerprint": self.digest}

    @property
    def arguments(self) -> dict[str, Any]:
        """Returns the entry of a manifest's `arguments`."""
        grid = None if self.grid is None else str(self.grid)
        period = {"start": self.start, "end": self.end, "omit": list(self.omit), "accept_gaps": self.accept_gaps}
        return {"channels": self.channels.to_dict(), "grid": grid, **period}


@dataclass(frozen=True)
class Archive(StateSource):
    """Selects a period of a source, every `step_hours`, but for the times `omit`, which become declared gaps.

    `settings` are attributes of the source, such as the root of a local copy. An archive has no checksum: the manifest
    names it and its settings, and a change of what it holds goes unseen.
    """

    source: str
    settings: tuple[tuple[str, str], ...]
    channels: ChannelSet
    start: str
    end: str
    step_hours: int = 6
    omit: tuple[str, ...] = ()
    grid: Grid | None = None

    @classmethod
    def of(cls, source: str, selection: StateSelection, origin: Origin) -> Archive:
        """Selects from a source; raises ValueError without a period."""
        if selection.start is None or selection.end is None:
            raise ValueError(f"An archive such as '{source}' needs a period: give --start and --end.")
        return cls(
            source,
            settings=origin.settings,
            channels=read_channels(selection.channels),
            start=selection.start,
            end=selection.end,
            step_hours=origin.step_hours,
            omit=origin.omit,
            grid=Grid.parse(selection.grid) if selection.grid else None,
        )

    def open_anew(self) -> xr.Dataset:
        """Opens the archive; of one that delivers files, fetches those that are missing."""
        settings: dict[str, Any] = dict(self.settings)
        source = make_source(self.source, **settings)
        source.fetch(self.times, self.channels)
        ds = open_store(source.open(self.times, self.channels), self.channels, self.grid, regular=False)
        return check_ends(ds, self.channels, self.source)

    @property
    def times(self) -> Times:
        """Returns the wanted times."""
        step = np.timedelta64(self.step_hours, "h")
        wanted = np.arange(parse_time(self.start), parse_time(self.end) + np.timedelta64(1, "ns"), step)
        return np.setdiff1d(wanted, np.array([parse_time(text) for text in self.omit], "datetime64[ns]"))

    @property
    def about(self) -> dict[str, Any]:
        """Returns the entry of a manifest's `inputs`."""
        return {"name": self.source, "settings": dict(self.settings)}

    @property
    def arguments(self) -> dict[str, Any]:
        """Returns the entry of a manifest's `arguments`."""
        period = {"start": self.start, "end": self.end, "step_hours": self.step_hours, "omit": list(self.omit)}
        return {"channels": self.channels.to_dict(), "grid": str(self.grid) if self.grid else None, **period}


@dataclass(frozen=True)
class Derived(StateSource):
    """Presents a store of hourly (or other) states as one every `step_hours`, with the fields that it lacks."""

    view: View
    step_hours: int = 6
    vorticity: bool = False

    def __post_init__(self) -> None:
        if self.step_hours < 1 or 24 % self.step_hours:
            raise ValueError(f"Expected --step-hours that divide a day: 1, 2, 3, 4, 6 ..., got {self.step_hours}.")

    def open_anew(self) -> xr.Dataset:
        """Opens the store, chooses the times for which all fields can be made, and says how to make them."""
        ds = open_store(self._on_the_step(), self.view.channels, self.view.grid, regular=False)
        check_ends(ds, self.view.channels, str(self.view.store))
        return with_vorticity(ds) if self.vorticity else ds

    @property
    def about(self) -> dict[str, Any]:
        """Returns the entry of a manifest's `inputs`."""
        return self.view.about

    @property
    def arguments(self) -> dict[str, Any]:
        """Returns the entry of a manifest's `arguments`."""
        return {**self.view.arguments, "step_hours": self.step_hours, "vorticity": self.vorticity}

    def _on_the_step(self) -> xr.Dataset:
        """Returns the frames every `step_hours` from 00 UTC for which all fields can be made."""
        view = self.view
        raw = open_files(view.store)
        check_analyses(raw, str(view.store))
        check_time_axis(raw, str(view.store))
        times = np.atleast_1d(raw["time"].values)
        check_regular(times, declared_gaps(view.store), str(view.store))
        possible = np.ones(len(times), dtype=bool)
        if PRECIPITATION in view.channels.variables and PRECIPITATION not in raw:
            possible = np.isin(times, list(six_hour_parts(hourly_windows(times))))
        steps = (times - times.astype("datetime64[D]")) % np.timedelta64(self.step_hours, "h")
        ds = translate(raw, (*WEATHERBENCH_NAMES, from_hourly), [*view.channels.variables, *STATIC_VARIABLES])
        ds.encoding["source"] = str(view.store)
        return select_period(ds.isel(time=np.flatnonzero(possible & (steps == 0))), view.start, view.end)


@dataclass(frozen=True)
class Weekly(StateSource):
    """Presents a store as means over the seven days before each 00 UTC, where all frames of the week are there."""

    view: View

    def open_anew(self) -> xr.Dataset:
        """Opens the store, and says which frames make each mean; raises ValueError where it holds no whole week."""
        ds = self.view.open()
        times = ds["time"].values
        moving = [name for name, field in ds.data_vars.items() if "time" in field.dims]
        hours = {name: find_variable(name).accumulated_hours for name in moving}
        weeks = {
            end: {summed: frames_of_week(times, end, accumulated_hours=summed) for summed in set(hours.values())}
            for end in times[times == times.astype("datetime64[D]")]
        }
        ends = [end for end, frames in weeks.items() if all(map(len, frames.values()))]
        if not ends:
            raise ValueError(
                f"{self.view.store}: expected the frames of seven days in a row, evenly apart (sums by the time over "
                f"which they are summed), got none in {describe(times[[0, -1]])}. Take a longer store."
            )
        means = {
            name: _mean_over(ds[name], np.stack([weeks[end][summed] for end in ends])) for name, summed in hours.items()
        }
        return ds.drop_vars([*moving, "time"]).assign(means).assign_coords(time=np.array(ends))

    @property
    def about(self) -> dict[str, Any]:
        """Returns the entry of a manifest's `inputs`."""
        return self.view.about

    @property
    def arguments(self) -> dict[str, Any]:
        """Returns the entry of a manifest's `arguments`."""
        return {**self.view.arguments, "days": 7}


def _mean_over(field: xr.DataArray, frames: npt.NDArray[np.int64]) -> xr.Variable:
    """Returns the means of some frames of a field, `[mean, frame]`, computed when they are read."""

    def read(wanted: npt.NDArray[np.int64], *levels: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        rows = frames[wanted]
        first = int(rows.min())
        at = dict(zip(map(str, field.dims[1:]), levels, strict=False))
        block = field.isel(time=slice(first, int(rows.max()) + 1)).isel(at).values.astype(np.float64)
        return np.stack([block[row - first].mean(0) for row in rows]).astype(np.float32)

    dims = list(map(str, field.dims))
    return lazy_maps(dims, (len(frames), *field.shape[1:]), read, {**field.attrs, "cell_methods": "time: mean"})


def with_vorticity(ds: xr.Dataset) -> xr.Dataset:
    """Adds the relative vorticity (s-1), computed when it is read.

    Raises:
        ValueError: the wind is not there.
    """
    missing = [name for name in WIND if name not in ds]
    if missing:
        raise ValueError(f"Vorticity needs {', '.join(WIND)}, missing: {', '.join(missing)}. Add them to the channels.")
    u, v = (ds[name] for name in WIND)
    grid = grid_of(ds)

    def read(times: Any, levels: Any) -> Any:
        east, north = (wind.isel(time=times, level=levels).values for wind in (u, v))
        return relative_vorticity(east, north, grid)

    attrs = {"units": "s-1", "standard_name": "atmosphere_relative_vorticity"}
    return ds.assign({VORTICITY: lazy_maps(u.dims, u.shape, read, attrs)})  # type: ignore[arg-type]


def leave_out(ds: xr.Dataset, omit: Sequence[str]) -> xr.Dataset:
    """Returns the frames but those at the times `omit`; raises ValueError where one is not there to be left out."""
    times, unwanted = ds["time"].values, np.array([parse_time(text) for text in omit], "datetime64[ns]")
    unknown = np.setdiff1d(unwanted, times)
    if unknown.size:
        raise ValueError(f"Expected to leave out {describe(unknown)}, which is not there. Correct --omit.")
    return ds.isel(time=np.flatnonzero(~np.isin(times, unwanted))) if omit else ds


Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Patience:
    """Says how long to bear with a source: `attempts`, with waits that double, each ended after `timeout_s`."""

    attempts: int = 5
    first_wait_s: float = 2.0
    timeout_s: float = 600.0

    def __call__(self, read: Callable[[], Answer], what: str) -> Answer:
        """Returns `read()`.

        Raises:
            ConnectionError: it failed, or took too long, every time; the message has the last reason.
            NoWeatherError: what was read is no weather, which another attempt would not change.
        """
        wait_s = self.first_wait_s
        for attempt in range(1, self.attempts + 1):
            try:
                return _within(self.timeout_s, read)
            except NoWeatherError:
                raise
            except Exception as error:
                if attempt == self.attempts:
                    reason = f"{type(error).__name__}: {error}"
                    raise ConnectionError(f"{what} could not be read in {attempt} attempts ({reason})") from error
            time.sleep(wait_s)
            wait_s *= 2
        raise AssertionError("the last attempt returns or raises")


NETWORK = Patience()
DISK = Patience(attempts=3, first_wait_s=0.5)


def _within(timeout_s: float, read: Callable[[], Answer]) -> Answer:
    """Returns `read()` or raises TimeoutError; a read that hangs is left behind in its thread."""
    answers: SimpleQueue[tuple[Answer | None, Exception | None]] = SimpleQueue()

    def run() -> None:
        try:
            answers.put((read(), None))
        except Exception as error:
            answers.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        result, error = answers.get(timeout=timeout_s)
    except Empty:
        raise TimeoutError(f"no answer within {timeout_s:g} s") from None
    if error is not None:
        raise error
    return result  # type: ignore[return-value]  # no error means that there is a result


def read_field(field: xr.DataArray, patience: Patience = DISK) -> npt.NDArray[np.float32]:
    """Returns the values of a field, time first.

    Raises:
        ConnectionError: they could not be read; the message says which field and times.
        NoWeatherError: values are missing, or no weather has them.
    """
    times = field["time"].values
    what = f"'{field.name}' from {describe(times[0])} to {describe(times[-1])}"
    return patience(lambda: field.values.astype(np.float32, copy=False), what)


def read_frames(ds: xr.Dataset) -> xr.Dataset:
    """Returns the fields of a dataset in memory; raises as `read_field` does."""
    fields = {name: field for name, field in ds.data_vars.items() if "time" in field.dims}
    return ds.assign({name: field.copy(data=read_field(field)) for name, field in fields.items()})
