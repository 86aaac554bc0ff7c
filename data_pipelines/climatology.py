"""Stage `climatology`: mean and spread by day of the year, the baseline that forecasts must beat."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import xarray as xr

from data_pipelines.excerpt import write_compact
from data_pipelines.manifest import Content, describe_times
from data_pipelines.options import EVERYTHING, EXECUTION, ExecutionArgument, SelectionArgument
from data_pipelines.product import produce
from data_pipelines.states import View
from data_pipelines.workers import WorkUnit, item_units
from ladcast.documents import read_netcdf
from ladcast.verification.climatology_fit import fit_climatology


@dataclass(frozen=True)
class ClimatologyFit:
    """Fits each variable by itself: a unit is a variable, read once from the first year to the last."""

    view: View
    window_days: int
    step_days: int
    hourly: bool
    quantiles: tuple[float, ...]

    def __post_init__(self) -> None:  # before anything is written
        if self.window_days < 1 or self.window_days % 2 == 0:
            raise ValueError(f"Expected --window-days odd, got {self.window_days}.")
        if self.step_days < 1:
            raise ValueError(f"Expected --step-days of at least 1, got {self.step_days}.")
        if not all(0 < probability < 1 for probability in self.quantiles):
            raise ValueError(f"Expected --quantiles between 0 and 1, got {list(self.quantiles)}.")

    def about(self) -> Content:
        """Describes the product."""
        return {
            "stage": "climatology",
            "inputs": {"store": self.view.about},
            "arguments": {
                **self.view.arguments,
                "window_days": self.window_days,
                "step_days": self.step_days,
                "hourly": self.hourly,
                "quantiles": self.quantiles,
            },
            **describe_times(self.view.open()["time"].values),
        }

    def units(self) -> Sequence[WorkUnit]:
        """Returns the variables."""
        return item_units(self.view.channels.variables)

    def create(self, folder: Path) -> None:
        """Makes the place of the parts."""
        (folder / "parts").mkdir()

    def make(self, folder: Path, unit: WorkUnit) -> Iterable[str]:
        """Fits one variable."""
        fitted = fit_climatology(
            self.view.open()[[unit.label]],
            days=self.window_days,
            step=self.step_days,
            hourly=self.hourly,
            quantiles=self.quantiles,
        )
        part = f"parts/{unit.label}.nc"
        fitted.to_netcdf(folder / part, engine="netcdf4")
        return [part]

    def finish(self, folder: Path) -> Path:
        """Puts the variables together and rounds them."""
        parts = [read_netcdf(folder / f"parts/{unit.label}.nc") for unit in self.units()]
        path = folder / "climatology.nc"
        source = self.view.open().attrs.get("source", self.view.store.name)
        write_compact(
            xr.merge(parts, combine_attrs="override", compat="no_conflicts").assign_attrs(source=source), path
        )
        return path


def climatology(
    store: Path,
    output: Path,
    *,
    window_days: int = 61,
    step_days: int = 5,
    hourly: bool = False,
    quantiles: tuple[float, ...] = (),
    selection: SelectionArgument = EVERYTHING,
    execution: ExecutionArgument = EXECUTION,
) -> Path:
    """Write the climatology of a store to a netCDF file.

    Args:
        store: Zarr store in the WeatherBench 2 layout.
        output: netCDF file to write: `<variable>` and `<variable>_std` by `dayofyear`, and what is asked for below.
        window_days: width of the window around each day, odd.
        step_days: distance of the days that are stored.
        hourly: fit each hour of the day by itself, as forecasts with a diurnal cycle need.
        quantiles: probabilities such as 0.05 0.95: also write these quantiles, which scores of events and tails need,
            and of precipitation what SEEPS needs.
        selection: what to read; use training years only.
        execution: where to do the work.
    """
    recipe = ClimatologyFit(View.of(store, selection), window_days, step_days, hourly, quantiles)
    return produce(recipe, output, execution.by_default(0))
