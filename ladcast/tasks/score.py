"""`ladcast score`: one table of how a forecast compares with the truth, with persistence and with climatology."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ladcast.data.layout import grid_of
from ladcast.data.store import open_store
from ladcast.forecasting.latent_manifest import is_latent_store
from ladcast.tasks.engine import LatentEngine
from ladcast.verification import (
    Climatology,
    format_table,
    persistence,
    score,
    score_climatology,
)

SHOWN_DAYS = (1, 2, 3, 4, 5, 7, 10, 15)


def score_forecast(forecast_path: Path, truth_path: Path, climatology_path: Path | None) -> dict[str, xr.Dataset]:
    """Scores a forecast store and its baselines on the same starts; returns the metrics of each system.

    Raises:
        ValueError: the truth does not cover the forecast; the message lists the valid times that are missing.
    """
    forecast = open_forecast(forecast_path)
    truth = open_store(truth_path, grid=grid_of(forecast), regular=False)
    climatology = None if climatology_path is None else Climatology(xr.load_dataset(climatology_path))
    systems = {"ladcast": score(forecast, truth, climatology=climatology)}
    if np.isin(forecast["time"].values, truth["time"].values).all():
        start_states = truth.sel(time=forecast["time"].values)
        systems["persistence"] = score(persistence(start_states, forecast), truth)
    if climatology is not None:
        systems["climatology"] = score_climatology(climatology, forecast, truth)
    return {name: accumulator.metrics() for name, accumulator in systems.items()}


def table(metrics: Mapping[str, xr.Dataset]) -> str:
    """Formats the metrics for people: the channels that were scored, at whole days."""
    scored = next(iter(metrics.values()))
    leads = scored["prediction_timedelta"].values / np.timedelta64(1, "D")
    return format_table(
        metrics,
        headline=tuple(map(str, scored["channel"].values)),
        leads_days=[days for days in SHOWN_DAYS if days in leads],
    )


def write_scores(metrics: Mapping[str, xr.Dataset], forecast: Path, output: Path) -> Path:
    """Writes all metrics of all systems to one netCDF file, replacing an older one when it is whole."""
    systems = xr.DataArray(list(metrics), dims="system", name="system")
    together = xr.concat([ds.drop_vars("start") for ds in metrics.values()], systems, combine_attrs="drop")
    together.attrs = {"Conventions": "CF-1.11", "title": "forecast scores", "forecast": forecast.name}
    temporary = output.with_name(f"{output.name}.partial")
    together.to_netcdf(temporary, engine="netcdf4")
    temporary.rename(output)
    return output


def open_forecast(path: Path, **decoding: Any) -> xr.Dataset:
    """Opens a forecast store lazily: of fields, or of latents, to which `decoding` applies (see `LatentEngine`).

    Raises:
        FileNotFoundError: there is none; where an unfinished one lies beside it, the message says how to go on.
    """
    if is_latent_store(path):
        return xr.open_dataset(path, engine=LatentEngine, **decoding)
    if path.is_dir():
        forecast: xr.Dataset = xr.open_zarr(path, chunks=None, decode_timedelta=True)
        return forecast
    partial = path.with_name(f"{path.name}.partial")
    hint = " It is unfinished: run the same `ladcast forecast` again to go on." if partial.is_dir() else ""
    raise FileNotFoundError(f"No forecast at {path}.{hint}")
