"""Opens a part of a forecast, of fields or of latents."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ladcast.forecasts.engine import CACHE_BYTES
from ladcast.forecasts.formats.base import FORECAST_AXES
from ladcast.forecasts.formats.selection import select
from ladcast.forecasts.manifest import is_latent_store
from ladcast.forecasts.open import open_forecast
from ladcast.forecasts.selection import Selection
from ladcast.times import describe, parse_time


def open_part(source: Path, selection: Selection, *, times: Sequence[str] = (), **decoding: Any) -> xr.Dataset:
    """Opens a part of a forecast lazily, be it of fields or of latents.

    Of latents, only the variables wanted are kept, and the cache holds the members wanted of one lead time, so that
    no frame is decoded twice when all variables of one lead time are read after each other.

    Raises:
        ValueError: the forecast has no such part.
    """
    whole = open_forecast(source, **decoding)
    if missing := [dim for dim in FORECAST_AXES if dim not in whole.dims]:
        raise ValueError(
            f"{source} lacks the dimensions {', '.join(missing)} of an ensemble forecast: it has "
            f"{', '.join(map(str, whole.dims))}. Give a store that `ladcast forecast` wrote."
        )
    part = _selected(_at_times(whole, times, source), selection)
    if not is_latent_store(source):
        return part
    frames = [whole[name].isel(time=0, prediction_timedelta=0, number=0) for name in part.data_vars]
    needed = part.sizes["number"] * sum(frame.nbytes for frame in frames)
    unwanted = [name for name in whole.data_vars if name not in part.data_vars]
    options = {**decoding, "drop_variables": unwanted, "cache_bytes": max(needed, CACHE_BYTES)}
    return _selected(_at_times(open_forecast(source, **options), times, source), selection)


def _selected(forecast: xr.Dataset, selection: Selection) -> xr.Dataset:
    """Returns the part of a forecast that a selection names; raises ValueError where it is not there."""
    return select(
        forecast,
        variables=selection.variables,
        levels=selection.levels,
        leads=selection.leads,
        members=selection.members,
        region=selection.bounds,
    )


def _at_times(forecast: xr.Dataset, times: Sequence[str], source: Path) -> xr.Dataset:
    if not times:
        return forecast
    wanted, there = np.array([parse_time(time) for time in times]), forecast["time"].values
    missing = np.setdiff1d(wanted, there)
    if missing.size:
        raise ValueError(f"{source} has no forecast from {describe(missing)}; it has {describe(there, limit=8)}.")
    return forecast.sel(time=wanted)
