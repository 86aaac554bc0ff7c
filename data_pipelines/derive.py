"""Stage `derive`: six-hour precipitation from hourly sums, and vorticity, as a store with all other fields."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from data_pipelines.options import EVERYTHING, EXECUTION, LAYOUT, ExecutionArgument, LayoutArgument, SelectionArgument
from data_pipelines.product import produce
from data_pipelines.transfer import Transfer
from data_pipelines.view import View
from ladcast.data.derive import hourly_windows, relative_vorticity, six_hour_parts
from ladcast.data.lazy import lazy_maps
from ladcast.data.sources.base import WEATHERBENCH_NAMES, from_hourly, translate
from ladcast.data.sources.files import open_files
from ladcast.data.store import declared_gaps, open_store, select_period
from ladcast.data.validation import check_regular
from ladcast.fields import PRECIPITATION, STATIC_VARIABLES
from ladcast.grid import grid_of

VORTICITY = "relative_vorticity"
WIND = ("u_component_of_wind", "v_component_of_wind")


@dataclass(frozen=True)
class Derived:
    """Presents a store of hourly (or other) states as one every `step_hours`, with the fields that it lacks."""

    view: View
    step_hours: int = 6
    vorticity: bool = False

    def open(self) -> xr.Dataset:
        """Returns the frames, lazily, in canonical layout."""
        return _open(self)

    @property
    def about(self) -> dict[str, Any]:
        """Returns the entry of a manifest's `inputs`."""
        return self.view.about

    @property
    def arguments(self) -> dict[str, Any]:
        """Returns the entry of a manifest's `arguments`."""
        return {**self.view.arguments, "step_hours": self.step_hours, "vorticity": self.vorticity}


@lru_cache(maxsize=4)
def _open(derived: Derived) -> xr.Dataset:
    view = derived.view
    ds = open_store(_on_the_step(derived), view.channels, view.grid, regular=False)
    return with_vorticity(ds) if derived.vorticity else ds


def _on_the_step(derived: Derived) -> xr.Dataset:
    """Returns the frames every `step_hours` from 00 UTC for which all fields can be made."""
    view = derived.view
    raw = open_files(view.store)
    times = raw["time"].values
    check_regular(times, declared_gaps(view.store), str(view.store))
    possible = np.ones(len(times), dtype=bool)
    if PRECIPITATION in view.channels.variables and PRECIPITATION not in raw:
        possible = np.isin(times, list(six_hour_parts(hourly_windows(times))))
    steps = (times - times.astype("datetime64[D]")) % np.timedelta64(derived.step_hours, "h")
    wanted = [*view.channels.variables, *STATIC_VARIABLES]
    ds = translate(raw, (*WEATHERBENCH_NAMES, from_hourly), wanted)
    return select_period(ds.isel(time=np.flatnonzero(possible & (steps == 0))), view.start, view.end)


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


def derive(
    store: Path,
    output: Path,
    *,
    step_hours: int = 6,
    vorticity: bool = False,
    selection: SelectionArgument = EVERYTHING,
    layout: LayoutArgument = LAYOUT,
    execution: ExecutionArgument = EXECUTION,
) -> Path:
    """Write a store with the fields that another lacks: six-hour precipitation from hourly sums, and vorticity.

    Args:
        store: Zarr store with WeatherBench 2 names, hourly where it has total_precipitation alone.
        output: Zarr store to write, in canonical layout.
        step_hours: hours between the frames that are written.
        vorticity: also write the relative vorticity of the wind on levels.
        selection: what to read.
        layout: how to write it.
        execution: where to do the work.
    """
    frames = Derived(View.of(store, selection), step_hours, vorticity)
    return produce(Transfer("derive", frames, options=layout), output, execution)
