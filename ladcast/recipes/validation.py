"""Validation during training: numbers for the log, and maps to look at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr

from ladcast.config import ConfigError
from ladcast.fields import ChannelSet
from ladcast.forecasting.ensemble import EnsembleOptions
from ladcast.forecasting.forecaster import Forecaster
from ladcast.recipes.build import ForecastValidation
from ladcast.recipes.frames import forecast_frames
from ladcast.times import DAY, STEP, describe, parse_time
from ladcast.verification import merge_accumulators, score


@dataclass(frozen=True)
class Validation:
    """Is what a validation finds: numbers by name, and maps (latitude, longitude) by channel and title."""

    numbers: dict[str, float]
    maps: dict[str, dict[str, xr.DataArray]]
    about: str
    """What the maps show."""


def validate_forecaster(forecaster: Forecaster, validation: ForecastValidation) -> Validation:
    """Makes real forecasts and scores them: the same rollout and the same scorer as ever, block by block.

    Numbers are the fair CRPS and spread/skill of the headline channels at each whole day, over all starts. Maps are the
    truth and two members at the end of the first forecast.
    """
    truth = validation.store.open()
    options = EnsembleOptions(
        validation.members,
        forecaster.frames.calls(validation.days),
        seed=0,
        batch_size=validation.members,
    )
    parts, end = [], None
    for start in validation.starts:
        for block in forecast_frames(forecaster, truth, parse_time(start), options):
            frames = block.sel(prediction_timedelta=slice(None, validation.days * DAY))  # the last may go beyond
            parts.append(score(frames, truth))
        end = frames.isel(time=0, prediction_timedelta=-1, number=slice(2)) if end is None else end
    metrics = merge_accumulators(parts).metrics().sel(channel=list(validation.variables))
    assert end is not None, "there is nothing to merge without starts"
    numbers = {}
    for days in range(1, validation.days + 1):
        for channel in validation.variables:
            at = metrics.sel(channel=channel, prediction_timedelta=days * DAY)
            numbers[f"{channel}_crps_{days}d"] = float(at["fair_crps"])
            numbers[f"{channel}_spread_skill_{days}d"] = float(at["spread_skill"])
    shown = {"truth": truth.sel(time=end["time"].values + end["prediction_timedelta"].values)}
    shown |= {f"member {number}": end.sel(number=number) for number in end["number"].values}
    about = f"Forecast from {validation.starts[0]}, day {validation.days}"
    return Validation(numbers, maps_of(shown, forecaster.channels, validation.variables), about)


def check_validation(validation: ForecastValidation, channels: ChannelSet) -> None:
    """Raises ConfigError where a validation would fail: a start, its truth or a channel is missing."""
    if unknown := sorted(set(validation.variables) - set(channels.names)):
        raise ConfigError(f"validation.variables: {', '.join(unknown)} are no channels of the autoencoder.")
    truth = validation.store.open()
    starts = np.array([parse_time(start) for start in validation.starts])
    leads = np.arange(0, validation.days * DAY + STEP, STEP)
    needed = np.unique(starts[:, None] + leads)
    if (missing := needed[~np.isin(needed, truth["time"].values)]).size:
        raise ConfigError(
            f"validation.store: {validation.store.path} lacks {describe(missing)}, which the validation starts from or "
            "is scored against. Choose other 'starts', fewer 'days' or another store."
        )


def maps_of(
    datasets: Mapping[str, xr.Dataset], channels: ChannelSet, names: Iterable[str]
) -> dict[str, dict[str, xr.DataArray]]:
    """Takes the fields of some channels out of datasets with dimensions [level,] latitude, longitude."""
    chosen = [channel for channel in channels if channel.name in names]
    return {
        channel.name: {
            title: (ds[channel.variable] if channel.level is None else ds[channel.variable].sel(level=channel.level))
            for title, ds in datasets.items()
        }
        for channel in chosen
    }
