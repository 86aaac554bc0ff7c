"""Stage `climatology`: mean and spread by day of the year, the baseline that forecasts must beat."""

from __future__ import annotations

from pathlib import Path

from data_pipelines.compact import write_compact
from ladcast.data.reading import select_period
from ladcast.data.store import open_store
from ladcast.fields import read_channels
from ladcast.grid import Grid
from ladcast.verification.climatology import fit_climatology


def climatology(
    store: Path,
    output: Path,
    *,
    channels: str = "era5",
    grid: str | None = None,
    start: str | None = None,
    end: str | None = None,
    window_days: int = 61,
    step_days: int = 5,
) -> Path:
    """Write the climatology of a store to a netCDF file.

    Args:
        store: Zarr store in the WeatherBench 2 layout.
        output: netCDF file to write: `<variable>` and `<variable>_std` by `dayofyear`.
        channels: `era5`, or a YAML file that names another channel set.
        grid: grid of the model, such as 240x121-south, where it leaves out the south pole of the store.
        start: first time, such as 1990-01-01; use training years only.
        end: last time, inclusive.
        window_days: width of the window around each day, odd.
        step_days: distance of the days that are stored.
    """
    opened = open_store(store, read_channels(channels), Grid.parse(grid) if grid else None)
    ds = select_period(opened, start, end)
    fitted = fit_climatology(ds[[*read_channels(channels).variables]], days=window_days, step=step_days)
    write_compact(fitted.assign_attrs(source=ds.attrs.get("source", store.name)), output)
    return output
