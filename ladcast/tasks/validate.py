"""Validation during training: the same rollout and the same scorer as a real forecast."""

from __future__ import annotations

import xarray as xr

from ladcast.data.analysis import read_analysis
from ladcast.forecasting.ensemble import EnsembleOptions, forecast_ensemble
from ladcast.forecasting.forecaster import Forecaster
from ladcast.tasks.build import ForecastValidation
from ladcast.times import DAY, parse_time
from ladcast.verification.accumulate import merge
from ladcast.verification.score import score


def forecast_scores(forecaster: Forecaster, validation: ForecastValidation) -> dict[str, float]:
    """Returns fair CRPS and spread/skill of the headline channels at each whole day, over all starts."""
    truth = validation.store.open()
    options = EnsembleOptions(
        validation.members,
        validation.days,
        seed=0,
        sampling=forecaster.config.sampling,
        batch_size=validation.members,
    )
    parts = []
    for start in validation.starts:
        time = parse_time(start)
        analysis = read_analysis(validation.store.path, time, forecaster.channels, forecaster.grid)
        blocks = [frames for _, frames in forecast_ensemble(forecaster, analysis, options)]
        parts.append(score(xr.concat(blocks, dim="prediction_timedelta"), truth))
    metrics = merge(parts).metrics().sel(channel=list(validation.variables))
    values = {}
    for days in range(1, validation.days + 1):
        for channel in validation.variables:
            at = metrics.sel(channel=channel, prediction_timedelta=days * DAY)
            values[f"{channel}_crps_{days}d"] = float(at["fair_crps"])
            values[f"{channel}_spread_skill_{days}d"] = float(at["spread_skill"])
    return values
