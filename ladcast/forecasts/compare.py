"""Opens what is compared with forecasts: the truth, a climatology, other systems, cut to what all have in common."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from ladcast.data.lazy import guarded
from ladcast.data.lexicon import canonical_names
from ladcast.data.store import open_store
from ladcast.documents import read_netcdf
from ladcast.forecasts.open import AnyForecast, at_times, in_our_order, open_system, without_analysis
from ladcast.grid import Box, Grid, grid_of, points_of
from ladcast.released import ModelFolder, find_model
from ladcast.times import AnyTime
from ladcast.verification import Climatology, intersect
from ladcast.verification.systems import Systems, cut_to_truth

AnyStates = str | Path | xr.Dataset
"""The path of states, such as analyses, or a dataset of them."""


def open_systems(
    forecasts: Mapping[str, Sequence[AnyForecast]],
    truth: AnyStates | None = None,
    *,
    times: Sequence[AnyTime] = (),
    climatology: Path | None = None,
    years: Path | None = None,
    equal_members: bool = False,
    baselines: bool = True,
) -> Systems:
    """Opens the stores of every system, and cuts the systems to what they have in common, and have truth for.

    Lead time 0 is left out, as it is an analysis. Without a truth it is that of the model of the first system, if its
    forecast starts from the model's own states; the climatology is then the model's, too. `times` are the initial times
    of the first system to take, by default all.

    Raises:
        ValueError: the systems have nothing in common, or there is no truth.
    """
    whole = {name: open_system(parts) for name, parts in forecasts.items()}
    first = next(iter(whole))
    whole[first] = at_times(whole[first], times, first)
    opened = {name: without_analysis(forecast) for name, forecast in whole.items()}
    if truth is None:
        own = own_model(opened[first])
        if own is None or own.truth is None:
            raise ValueError(
                "There is no truth, as the forecast does not start from states that its model brings. Name a store or "
                "file that holds the valid times, with `--truth` or as `truth`."
            )
        truth, climatology = own.truth, climatology or own.climatology
    known = None if climatology is None else _read_climatology(climatology)
    reference = None if known is None else grid_of(known)
    cut, report = intersect(opened, equal_members=equal_members, reference=reference)
    states = open_store(truth, grid=report.grid, regular=False)
    cut, report = cut_to_truth(cut, report, states["time"].values)
    return Systems(
        forecasts=cut,
        truth=states,
        report=report,
        climatology=None if known is None else _on_grid(known, report.grid, climatology),
        years=None if years is None else open_store(years, grid=report.grid),
        baselines=baselines,
        whole=whole,
    )


def open_truth(truth: AnyStates | None, forecast: xr.Dataset) -> xr.Dataset | None:
    """Opens the truth on the points of a forecast; by default that of the model from whose own states it starts."""
    own = own_model(forecast) if truth is None else None
    source = truth if own is None else own.truth
    if source is None:
        return None
    states = open_store(source, grid=points_of(forecast), regular=False)
    valid = forecast["time"].values[:, None] + forecast["prediction_timedelta"].values
    return states if own is None or np.isin(valid, states["time"].values).any() else None


def own_model(forecast: xr.Dataset) -> ModelFolder | None:
    """Returns the model whose own start states a forecast comes from: it has the truth that follows them."""
    try:
        starts = Path(json.loads(forecast.attrs.get("history", ""))["source"])
        model = ModelFolder(starts.parent) if starts.is_file() else find_model(starts.parent.name)
    except (FileNotFoundError, LookupError, TypeError, ValueError):
        return None
    return model if model.starts is not None and model.starts.name == starts.name else None


def open_climatology(path: Path, grid: Grid) -> Climatology:
    """Opens a climatology: a netCDF file is read whole, a Zarr store stays lazy; a surplus south pole row is cut."""
    return _on_grid(_read_climatology(path), grid, path)


def _read_climatology(path: Path) -> xr.Dataset:
    """Opens a climatology in our names and order; raises ValueError that names the file where it is none."""
    try:
        ds = guarded(xr.open_zarr(path, chunks=None), str(path)) if path.is_dir() else read_netcdf(path)
        ds = canonical_names(ds)
        if missing := [name for name in ("latitude", "longitude") if name not in ds.dims]:
            raise ValueError(f"the dimensions {missing} are missing")
        ds = in_our_order(ds)
        grid_of(ds)
        Climatology(ds)
    except FileNotFoundError:
        raise FileNotFoundError(f"No climatology at {path}. Make one with `ladcast-data climatology`.") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: expected a climatology, as `ladcast-data climatology` writes: {error}") from None
    return ds


def _on_grid(ds: xr.Dataset, grid: Grid, path: Path | None) -> Climatology:
    if isinstance(grid, Box):
        rows, columns = grid.within(grid_of(ds))
        points = {"latitude": list(grid.latitude), "longitude": list(grid.longitude)}
        return Climatology(ds.isel(latitude=rows, longitude=columns).assign_coords(points))
    if len(ds["latitude"]) == len(grid.latitude) + 1:
        ds = ds.isel(latitude=slice(1, None))
    if not grid_of(ds).matches(grid):
        raise ValueError(f"{path}: expected the grid {grid}, got {grid_of(ds)}. Fit it on the grid of the forecasts.")
    return Climatology(ds)
