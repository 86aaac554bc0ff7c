"""`ladcast decode`: a forecast that was kept as latents, or a part of it, as fields."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ladcast.checkpoint import remove_output
from ladcast.forecasting.latent_manifest import LatentManifest, is_latent_store
from ladcast.tasks.engine import CACHE_BYTES
from ladcast.tasks.export import selected, write_part
from ladcast.tasks.export_request import ExportFormat
from ladcast.tasks.forecast_stores import open_forecast
from ladcast.tasks.selection import Selection
from ladcast.times import describe, parse_time


def decode(
    source: Path,
    output: Path,
    selection: Selection,
    *,
    times: Sequence[str] = (),
    form: ExportFormat | None = None,
    **decoding: Any,
) -> Path:
    """Decodes a part of a latent store frame by frame; a Zarr output of a killed run is completed.

    Memory holds the chosen members and variables of one lead time. `decoding` are options of `LatentEngine`.

    Raises:
        FileExistsError: the output exists, or an unfinished other one does.
        ValueError: the store has no such part, or the suffix of the output is unknown.
    """
    form = form or ExportFormat()
    LatentManifest.read(source)
    part = open_part(source, selection, times=times, **decoding)
    return write_part(part, output, form, ensemble_size=open_forecast(source, **decoding).sizes["number"])


def open_part(source: Path, selection: Selection, *, times: Sequence[str] = (), **decoding: Any) -> xr.Dataset:
    """Opens a part of a forecast lazily, be it of fields or of latents.

    Of latents, only the variables wanted are kept, and the cache holds the members wanted of one lead time, so that
    no frame is decoded twice when all variables of one lead time are read after each other.

    Raises:
        ValueError: the forecast has no such part.
    """
    whole = open_forecast(source, **decoding)
    part = selected(_at_times(whole, times, source), selection)
    if not is_latent_store(source):
        return part
    frames = [whole[name].isel(time=0, prediction_timedelta=0, number=0) for name in part.data_vars]
    needed = part.sizes["number"] * sum(frame.nbytes for frame in frames)
    unwanted = [name for name in whole.data_vars if name not in part.data_vars]
    options = {**decoding, "drop_variables": unwanted, "cache_bytes": max(needed, CACHE_BYTES)}
    return selected(_at_times(open_forecast(source, **options), times, source), selection)


def write_whole(output: Path, write: Callable[[Path], object]) -> Path:
    """Lets `write` fill a temporary file or folder that becomes `output` when it is complete.

    Raises:
        FileExistsError: `output` exists.
    """
    if output.exists():
        raise FileExistsError(f"{output} exists already. Choose another output, or delete it.")
    temporary = output.with_name(f".{os.getpid()}.{output.name}")
    try:
        write(temporary)
        temporary.rename(output)
    finally:
        remove_output(temporary)
    return output


def _at_times(forecast: xr.Dataset, times: Sequence[str], source: Path) -> xr.Dataset:
    if not times:
        return forecast
    wanted, there = np.array([parse_time(time) for time in times]), forecast["time"].values
    missing = np.setdiff1d(wanted, there)
    if missing.size:
        raise ValueError(f"{source} has no forecast from {describe(missing)}; it has {describe(there, limit=8)}.")
    return forecast.sel(time=wanted)
