"""`ladcast forecast`: from an analysis to an ensemble on disk."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ladcast.data.analysis import Analysis, read_analysis
from ladcast.data.sources.files import open_files
from ladcast.data.store import read_times
from ladcast.forecasting.checkpoints import load_forecaster
from ladcast.forecasting.cost import network_costs
from ladcast.forecasting.ensemble import EnsembleOptions, InitialCondition, MemberBatch, staggered
from ladcast.forecasting.forecaster import Forecaster
from ladcast.forecasting.options import ForecastRequest
from ladcast.forecasting.stepper import FrameCounts
from ladcast.forecasts.latents import LatentWriter
from ladcast.forecasts.write import ForecastWriter, StoreWriter
from ladcast.progress import peak_memory, show_progress
from ladcast.released.registry import ModelFolder
from ladcast.resumable import begun_identity, sole_writer
from ladcast.times import HOUR, describe, parse_time
from ladcast.training.distributed import Ranks, join_ranks

MANY_FRAMES = 1000


def forecast(request: ForecastRequest, model: ModelFolder) -> Path | None:
    """Makes the forecast and returns the path of its store; a killed forecast goes on where it stopped.

    The processes of a job that `torchrun` or `srun` started share the member batches of all initial times; the first
    returns the path, the others nothing.

    Raises:
        ValueError: the analysis does not serve the model.
        FileExistsError: the output exists, or an unfinished other forecast does.
        FloatingPointError: a member has left all weather behind.
    """
    with join_ranks(request.device) as job:
        forecaster = load_forecaster(model.path, str(job.device)).with_settings(**stepper_settings(request))
        conditions = find_conditions(request, model, forecaster)
        options = ensemble_options(request, forecaster.frames)
        if not request.batch_size:
            options = replace(options, batch_size=choose_batch(request, forecaster, len(conditions), job))
        if request.compile:
            forecaster.stepper.compile()
        about: dict[str, Any] = {"unreal": unreal(model), "overwrite": request.overwrite}
        writer: StoreWriter
        if keeps_latents(request, options, forecaster.frames.future * len(conditions)):
            writer = LatentWriter(request.output, forecaster, conditions, options, folder=model.path, **about)
        else:
            writer = ForecastWriter(request.output, forecaster, conditions, options, **about)
        with sole_writer(request.output) if job.is_first else nullcontext():
            fill(writer, job)
    return request.output if job.is_first else None


def unreal(model: ModelFolder) -> str | None:
    """Returns what is unreal about a model's weather, as its own start states say, if they do."""
    return None if model.starts is None else open_files(model.starts).attrs.get("unreal")


def choose_batch(request: ForecastRequest, forecaster: Forecaster, forecasts: int, job: Ranks) -> int:
    """Returns how many members are computed at once: as many as an unfinished run has, or as fit the free memory.

    The number is the same on all processes, and leaves work for each of them; so many `forecasts` are to be made.
    """
    from ladcast.commands.plan import fitting_batch

    begun = job.first(begun_identity(request.output).get("options", {}).get("batch_size"))
    if begun is not None:
        return int(begun)
    costs = network_costs(forecaster.config, forecaster.grid, str(forecaster.device))
    fits = job.least(fitting_batch(costs, request.members, str(forecaster.device)))
    return min(fits, -(-request.members * forecasts // job.size))


def fill(writer: StoreWriter, job: Ranks) -> None:
    """Writes this process's share of a forecast; the first one makes the store, and completes it when all are done."""
    if job.is_first:
        writer.start()
    job.wait()
    mine = job.share(writer.start())
    job.wait()  # nobody writes before everybody has read where the batches stand
    options = writer.options
    remaining = sum(options.blocks - batch.done for batch in mine)
    for _ in show_progress(_append(writer, mine), remaining, f"{options.members} members, {options.blocks} blocks"):
        pass
    print(peak_memory(), file=sys.stderr)
    job.wait()
    if job.is_first:
        writer.finish()
    job.wait()


def _append(writer: StoreWriter, batches: Sequence[MemberBatch]) -> Iterator[None]:
    for batch in batches:
        for step in batch.forecast():
            writer.append(batch, step)
            yield


def keeps_latents(request: ForecastRequest, options: EnsembleOptions, block_frames: int) -> bool:
    """Says whether latents are kept: as asked for, else where there are many frames; a block of a member is so many."""
    if request.keep is not None:
        return request.keep == "latents"
    return options.members * options.blocks * block_frames >= MANY_FRAMES


def find_conditions(request: ForecastRequest, model: ModelFolder, forecaster: Forecaster) -> list[InitialCondition]:
    """Reads the state of each initial time, and those of the hours before where leads between 6 hours are wanted.

    The source is that of the request, or the model's own start states; the time by default its first.
    """
    source = request.source or model.starts
    if source is None:
        raise ValueError(f"{model.path} has no start states of its own. Name an analysis with --source.")
    there = read_times(source)
    asked = np.unique([parse_time(time) for time in request.times]) if request.times else there[:1]
    groups = (
        asked[:, None] - np.arange(0, forecaster.frames.step_hours, lead_step_hours(request, forecaster.frames)) * HOUR
    )
    missing = np.setdiff1d(groups[:, 1:], there)
    if missing.size:
        raise ValueError(
            f"{source}: lead times {request.lead_step} h apart start from analyses of {describe(groups[0], limit=6)}; "
            f"missing: {describe(missing)}. Add them, or leave --lead-step out."
        )

    def read(time: np.datetime64) -> Analysis:
        needs = (forecaster.channels, forecaster.grid)
        return read_analysis(source, time, *needs, fill=request.fill, normalizer=forecaster.codec.normalizer)

    return [initial for group in groups for initial in staggered([read(time) for time in group])]


def lead_step_hours(request: ForecastRequest, frames: FrameCounts) -> int:
    """Returns the hours between lead times: those asked for, else those of the model.

    Raises:
        ValueError: they do not divide the hours between the model's frames.
    """
    asked = request.lead_step or frames.step_hours
    if frames.step_hours % asked:
        raise ValueError(f"--lead-step {asked} does not divide the {frames.step_hours} h between the model's frames.")
    return asked


def stepper_settings(request: ForecastRequest) -> dict[str, Any]:
    """Returns the settings of the model's stepper that a request names; the others stay as they are."""
    asked = {"steps": request.steps, "precision": request.precision}
    return {name: value for name, value in asked.items() if value is not None}


def ensemble_options(request: ForecastRequest, frames: FrameCounts) -> EnsembleOptions:
    """Returns the size of the ensemble that a request asks for, of a model with these frames a call."""
    return EnsembleOptions(
        request.members,
        frames.calls(request.days),
        request.seed,
        batch_size=request.batch_size,
        noise_scale=request.noise_scale,
        perturbation=request.perturbation,
        redraws=request.redraws,
    )
