"""Validation during training: the same rollout and the same scorer as a real forecast, block by block."""

from __future__ import annotations

from ladcast.forecasting.ensemble import EnsembleOptions
from ladcast.forecasting.forecaster import Forecaster
from ladcast.tasks.build import ForecastValidation
from ladcast.tasks.frames import forecast_frames
from ladcast.times import DAY, parse_time
from ladcast.verification import merge, score


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
    parts = [
        score(frames, truth)
        for start in validation.starts
        for frames in forecast_frames(forecaster, truth, parse_time(start), options)
    ]
    metrics = merge(parts).metrics().sel(channel=list(validation.variables))
    values = {}
    for days in range(1, validation.days + 1):
        for channel in validation.variables:
            at = metrics.sel(channel=channel, prediction_timedelta=days * DAY)
            values[f"{channel}_crps_{days}d"] = float(at["fair_crps"])
            values[f"{channel}_spread_skill_{days}d"] = float(at["spread_skill"])
    return values
