"""`ladcast forecast`: from an analysis to an ensemble on disk."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from ladcast.data.analysis import Analysis, read_analysis
from ladcast.data.store import read_times
from ladcast.forecasting.checkpoints import load_forecaster
from ladcast.forecasting.ensemble import EnsembleOptions, forecast_ensemble
from ladcast.forecasting.forecaster import Forecaster
from ladcast.forecasting.writer import ForecastWriter, remove_forecast
from ladcast.tasks.installed import ModelFolder
from ladcast.tasks.report import peak_memory, track
from ladcast.tasks.request import ForecastRequest
from ladcast.times import DAY, HOUR, STEP, describe, parse_time


def forecast(request: ForecastRequest, model: ModelFolder) -> Path:
    """Makes the forecast and returns the path of its store; a killed forecast goes on where it stopped.

    Raises:
        ValueError: the analysis does not serve the model.
        FileExistsError: the output exists, or an unfinished other forecast does.
    """
    forecaster = load_forecaster(model.path, request.device)
    analyses = find_analyses(request, model, forecaster)
    options = ensemble_options(request, forecaster)
    if request.overwrite:  # only now, when nothing in the request can fail any more
        remove_forecast(request.output)
    if request.compile:
        forecaster.compile()
    writer = ForecastWriter(request.output, forecaster, analyses, options)
    position = writer.start()
    remaining = (len(analyses) * options.batches - position.batch) * options.blocks - position.block
    frames = forecast_ensemble(forecaster, analyses, options, position)
    for following, block in track(frames, remaining, f"{options.members} members, {options.blocks} blocks"):
        writer.append(block, following)
    print(peak_memory(), file=sys.stderr)
    return writer.finish()


def find_analyses(request: ForecastRequest, model: ModelFolder, forecaster: Forecaster) -> list[Analysis]:
    """Reads the state to start from, and those of the hours before it where leads between 6 hours are wanted.

    The source is that of the request, or the model's own start states; the time by default its first.
    """
    source = request.source or model.starts
    if source is None:
        raise ValueError(f"{model.path} has no start states of its own. Name an analysis with --source.")
    there = read_times(source)
    time = parse_time(request.time) if request.time else there[0]
    times = time - np.arange(0, STEP // HOUR, request.lead_step) * HOUR
    missing = np.setdiff1d(times[1:], there)
    if missing.size:
        raise ValueError(
            f"{source}: lead times {request.lead_step} h apart start from the analyses of {describe(times, limit=6)}; "
            f"missing: {describe(missing)}. Add them, or use --lead-step 6."
        )
    return [
        read_analysis(
            source,
            start,
            forecaster.channels,
            forecaster.grid,
            fill=request.fill,
            normalizer=forecaster.codec.normalizer,
        )
        for start in times
    ]


def ensemble_options(request: ForecastRequest, forecaster: Forecaster) -> EnsembleOptions:
    """Completes the request with the model's own sampling."""
    asked = {"steps": request.steps, "precision": request.precision}
    given = {name: value for name, value in asked.items() if value is not None}
    sampling = replace(forecaster.config.sampling, **given)  # type: ignore[arg-type]
    blocks = -(-request.days * DAY // (forecaster.config.future_frames * STEP))
    return EnsembleOptions(
        request.members,
        int(blocks),
        request.seed,
        sampling,
        batch_size=request.batch_size,
        noise_scale=request.noise_scale,
        perturbation=request.perturbation,
        redraws=request.redraws,
    )
