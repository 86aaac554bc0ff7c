"""`ladcast forecast`: from an analysis to an ensemble on disk."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ladcast.data.analysis import Analysis, read_analysis
from ladcast.data.sources.files import open_files
from ladcast.data.store import read_times
from ladcast.forecasting.checkpoints import load_forecaster
from ladcast.forecasting.cost import network_costs
from ladcast.forecasting.ensemble import EnsembleOptions, Position, forecast_blocks, forecast_ensemble
from ladcast.forecasting.forecaster import Forecaster, ForecasterConfig
from ladcast.forecasting.options import ForecastRequest
from ladcast.forecasts.latents import LatentWriter
from ladcast.forecasts.partial import begun_identity
from ladcast.forecasts.write import ForecastWriter, StoreWriter
from ladcast.progress import peak_memory, show_progress
from ladcast.released.registry import ModelFolder
from ladcast.times import DAY, HOUR, STEP, describe, parse_time
from ladcast.training.distributed import Ranks, join_ranks

Block = TypeVar("Block")
Stream = Callable[..., Iterator[tuple[Position, Block]]]
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
        forecaster = load_forecaster(model.path, str(job.device))
        starts = find_analyses(request, model, forecaster)
        options = ensemble_options(request, forecaster.config)
        streams = len(starts) * len(starts[0])
        if not request.batch_size:
            options = replace(options, batch_size=choose_batch(request, forecaster, streams, job))
        if request.compile:
            forecaster.compile()
        about: dict[str, Any] = {"unreal": unreal(model), "overwrite": request.overwrite}
        if keeps_latents(request, options, forecaster.config.future_frames * streams):
            latents = LatentWriter(request.output, forecaster, starts, options, folder=model.path, **about)
            fill(latents, forecast_blocks, job)
        else:
            fields = ForecastWriter(request.output, forecaster, starts, options, **about)
            fill(fields, forecast_ensemble, job)
    return request.output if job.is_first else None


def unreal(model: ModelFolder) -> str | None:
    """Returns what is unreal about a model's weather, as its own start states say, if they do."""
    return None if model.starts is None else open_files(model.starts).attrs.get("unreal")


def choose_batch(request: ForecastRequest, forecaster: Forecaster, streams: int, job: Ranks) -> int:
    """Returns how many members are computed at once: as many as an unfinished run has, or as fit the free memory.

    The number is the same on all processes, and leaves work for each of them; `streams` are forecasts to be made.
    """
    from ladcast.commands.plan import fitting_batch

    begun = job.first(begun_identity(request.output).get("options", {}).get("batch_size"))
    if begun is not None:
        return int(begun)
    costs = network_costs(forecaster.config, forecaster.grid, str(forecaster.device))
    fits = job.least(fitting_batch(costs, request.members, str(forecaster.device)))
    return min(fits, -(-request.members * streams // job.size))


def fill(writer: StoreWriter[Block], stream: Stream[Block], job: Ranks) -> None:
    """Writes this process's share of a forecast; the first one makes the store, and completes it when all are done."""
    if job.is_first:
        writer.start()
    job.wait()
    mine = job.share(writer.start())
    job.wait()  # nobody writes before everybody has read where the batches stand
    options = writer.options
    remaining = sum(options.blocks - position.block for position in mine)
    blocks = stream(writer.forecaster, writer.starts, options, mine)
    for following, block in show_progress(blocks, remaining, f"{options.members} members, {options.blocks} blocks"):
        writer.append(block, following)
    print(peak_memory(), file=sys.stderr)
    job.wait()
    if job.is_first:
        writer.finish()
    job.wait()


def keeps_latents(request: ForecastRequest, options: EnsembleOptions, block_frames: int) -> bool:
    """Says whether latents are kept: as asked for, else where there are many frames; a block of a member is so many."""
    if request.keep is not None:
        return request.keep == "latents"
    return options.members * options.blocks * block_frames >= MANY_FRAMES


def find_analyses(request: ForecastRequest, model: ModelFolder, forecaster: Forecaster) -> list[list[Analysis]]:
    """Reads the state of each initial time, and those of the hours before where leads between 6 hours are wanted.

    The source is that of the request, or the model's own start states; the time by default its first.
    """
    source = request.source or model.starts
    if source is None:
        raise ValueError(f"{model.path} has no start states of its own. Name an analysis with --source.")
    there = read_times(source)
    asked = np.unique([parse_time(time) for time in request.times]) if request.times else there[:1]
    groups = asked[:, None] - np.arange(0, STEP // HOUR, request.lead_step) * HOUR
    missing = np.setdiff1d(groups[:, 1:], there)
    if missing.size:
        raise ValueError(
            f"{source}: lead times {request.lead_step} h apart start from analyses of {describe(groups[0], limit=6)}; "
            f"missing: {describe(missing)}. Add them, or use --lead-step 6."
        )

    def read(time: np.datetime64) -> Analysis:
        needs = (forecaster.channels, forecaster.grid)
        return read_analysis(source, time, *needs, fill=request.fill, normalizer=forecaster.codec.normalizer)

    return [[read(time) for time in group] for group in groups]


def ensemble_options(request: ForecastRequest, config: ForecasterConfig) -> EnsembleOptions:
    """Completes the request with the model's own sampling."""
    asked = {"steps": request.steps, "precision": request.precision}
    given = {name: value for name, value in asked.items() if value is not None}
    sampling = replace(config.sampling, **given)  # type: ignore[arg-type]
    sampling.sigmas()  # raises ValueError for a number of steps that there cannot be
    blocks = -(-request.days * DAY // (config.future_frames * STEP))
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
