"""Validation of a forecaster during training: numbers for the log, and maps to look at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import xarray as xr

from ladcast.config import ConfigError
from ladcast.data.analysis import read_analysis
from ladcast.fields import ChannelSet
from ladcast.forecasting.ensemble import EnsembleOptions, forecast_ensemble
from ladcast.forecasting.forecaster import Forecaster
from ladcast.plots.maps import Maps  # and with it all that drawing needs, before a long run begins
from ladcast.recipes.options import ForecastValidation
from ladcast.times import DAY, describe, parse_time
from ladcast.training.logs import Validation
from ladcast.verification import merge_accumulators, score


def validate_forecaster(forecaster: Forecaster, validation: ForecastValidation) -> Validation:
    """Makes real forecasts and scores them: the same rollout and the same scorer as ever, step by step.

    Numbers are the fair CRPS and spread/skill of the headline channels at each whole day, over all starts. Maps are the
    truth and two members at the end of the first forecast.
    """
    truth = validation.store.open()
    options = EnsembleOptions(
        validation.members, forecaster.frames.calls(validation.days), seed=0, batch_size=validation.members
    )
    scores, end = [], None
    for start in validation.starts:
        analysis = read_analysis(truth, parse_time(start), forecaster.channels, forecaster.grid)
        for made in forecast_ensemble(forecaster, analysis, options):
            frames = made.sel(prediction_timedelta=slice(None, validation.days * DAY))  # the last may go beyond
            scores.append(score(frames, truth))
        end = frames.isel(time=0, prediction_timedelta=-1, number=slice(2)) if end is None else end
    metrics = merge_accumulators(scores).metrics().sel(channel=list(validation.variables))
    assert end is not None, "there is nothing to merge without starts"
    numbers = {}
    for days in range(1, validation.days + 1):
        for channel in validation.variables:
            at = metrics.sel(channel=channel, prediction_timedelta=days * DAY)
            numbers[f"{channel}_crps_{days}d"] = float(at["fair_crps"])
            numbers[f"{channel}_spread_skill_{days}d"] = float(at["spread_skill"])
    shown = {"truth": truth.sel(time=end["time"].values + end["prediction_timedelta"].values)}
    shown |= {f"member {number}": end.sel(number=number) for number in end["number"].values}
    title = f"Forecast from {validation.starts[0]}, day {validation.days}"
    return Validation(numbers, maps_of(shown, forecaster.channels, validation.variables), title)


def check_validation(validation: ForecastValidation, channels: ChannelSet, step: np.timedelta64) -> None:
    """Raises ConfigError where a validation would fail: a start, its truth or a channel is missing.

    `step` is the time between two frames; whole days are scored, so it must divide a day.
    """
    if DAY % step:
        raise ConfigError(f"frames.step_hours: a validation scores whole days, which a step of {step} does not divide.")
    if unknown := sorted(set(validation.variables) - set(channels.names)):
        raise ConfigError(f"validation.variables: {', '.join(unknown)} are no channels of the autoencoder.")
    truth = validation.store.open()
    starts = np.array([parse_time(start) for start in validation.starts])
    leads = np.arange(0, validation.days * DAY + step, step)
    needed = np.unique(starts[:, None] + leads)
    if (missing := needed[~np.isin(needed, truth["time"].values)]).size:
        raise ConfigError(
            f"validation.store: {validation.store.path} lacks {describe(missing)}, which the validation starts from or "
            "is scored against. Choose other 'starts', fewer 'days' or another store."
        )


def maps_of(datasets: Mapping[str, xr.Dataset], channels: ChannelSet, names: Iterable[str]) -> Maps:
    """Takes the fields of some channels out of datasets with dimensions [level,] latitude, longitude."""
    chosen = [channel for channel in channels if channel.name in names]
    return {
        channel.name: {
            title: (ds[channel.variable] if channel.level is None else ds[channel.variable].sel(level=channel.level))
            for title, ds in datasets.items()
        }
        for channel in chosen
    }
