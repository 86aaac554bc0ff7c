"""Frames to score without a store: those of a forecast, block by block, and what the autoencoder makes of the truth."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr

from ladcast.data.analysis import read_analysis
from ladcast.data.packing import pack, unpack
from ladcast.forecasting.ensemble import EnsembleOptions, forecast_ensemble
from ladcast.forecasting.forecaster import Forecaster


def forecast_frames(
    forecaster: Forecaster, truth: xr.Dataset, start: np.datetime64, options: EnsembleOptions
) -> Iterator[xr.Dataset]:
    """Yields the frames of one block after the other, with all members, from a state of the store."""
    analysis = read_analysis(truth, start, forecaster.channels, forecaster.grid)
    for _, frames in forecast_ensemble(forecaster, analysis, options):
        yield frames


def reconstruction(forecaster: Forecaster, truth: xr.Dataset, frames: xr.Dataset) -> xr.Dataset:
    """Returns what the autoencoder makes of the truth at the valid times of `frames`, as a single forecast of it.

    No forecast of this model can be closer to the truth than this, but by chance.
    """
    start, leads = frames["time"].values[0], frames["prediction_timedelta"].values
    states = pack(truth.sel(time=start + leads), forecaster.channels)
    masked = list(forecaster.channels.masked_on_land)
    made = []
    for state in states:
        ocean = ~state[masked].isnan().any(dim=0) if masked else None
        made.append(forecaster.codec.decode(forecaster.codec.encode(state[None]), ocean))
    named = [
        unpack(state, forecaster.channels, forecaster.grid, np.array([start + lead]))
        for state, lead in zip(made, leads, strict=True)
    ]
    together = xr.concat(named, dim="time").assign_coords(time=leads).rename(time="prediction_timedelta")
    return together.expand_dims(time=[start])
