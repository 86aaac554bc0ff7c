"""From an analysis to an ensemble on disk, by one process or by many."""

from __future__ import annotations

import shutil
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ladcast.data.analysis import Analyses, open_analyses
from ladcast.data.sources.files import open_files
from ladcast.device import compiles, has_kernels, peak_memory
from ladcast.forecasting import ForecastRequest
from ladcast.forecasting.checkpoints import load_forecaster
from ladcast.forecasting.cost import fitting_batch, network_costs, require_memory
from ladcast.forecasting.ensemble import InitialCondition, ensemble_options, staggered
from ladcast.forecasting.forecaster import Forecaster
from ladcast.forecasting.plan import Planner
from ladcast.forecasting.skill import Chosen
from ladcast.forecasts.latents import LatentWriter
from ladcast.forecasts.manifest import read_identity
from ladcast.forecasts.write import ForecastWriter, StoreWriter, forecast_identity
from ladcast.released import ModelFolder
from ladcast.resumable import begun_identity, require_same, sole_writer
from ladcast.run import show_progress
from ladcast.times import HOUR, describe, parse_time
from ladcast.training.distributed import Ranks, join_ranks

COMPRESSED_TO = 2
"""Fields and latents take more than a half, and less than all, of their size in memory."""


def make_forecast(request: ForecastRequest, model: ModelFolder) -> Path | None:
    """Makes the forecast and returns the path of its store; a killed forecast goes on where it stopped.

    The processes of a job that `torchrun` or `srun` started share the member batches of all initial times; the first
    returns the path, the others nothing. The source is that of the request, or the model's own start states.

    Raises:
        ValueError: the analysis does not serve the model.
        FileExistsError: the output exists, or an unfinished other forecast does.
        FloatingPointError: a member has left all weather behind.
    """
    source, budget = request.source or model.starts, (request.calls, request.seconds)
    if source is None:
        raise ValueError(f"{model.path} has no start states of its own. Name an analysis with --source.")
    # The other processes of the job write to the same store, but wait for what the first one does.
    with join_ranks(request.device) as job, ExitStack() as held:
        job.only_first(lambda: held.enter_context(sole_writer(request.output)))
        planner = Planner(replace(request, device=str(job.device)), model.path)

        def choose() -> Chosen:
            made = {} if request.overwrite else begun_identity(request.output) or read_identity(request.output)
            return planner.choose(made)

        chosen = Chosen(*job.only_first(choose))  # measured seconds differ between processes
        model = ModelFolder(model.path / chosen.stepper)
        forecaster = load_forecaster(model.path, str(job.device)).with_settings(**chosen.settings)
        analyses = open_analyses(source, forecaster.channels, forecaster.grid)
        conditions = find_conditions(request, analyses, forecaster)
        options = ensemble_options(request, forecaster.frames)
        if not request.batch_size:
            options = replace(options, batch_size=choose_batch(request, forecaster, len(conditions), job))
        keeps_latents = request.keeps_latents(forecaster.frames, len(conditions))
        earlier = replace(options, analysis=False)
        identity = forecast_identity(forecaster, conditions, earlier)
        if note := job.first(without_start(request, identity, LatentWriter if keeps_latents else ForecastWriter)):
            options = earlier
            if job.is_first:
                print(f"{request.output} {note}; --overwrite makes it with it", file=sys.stderr)
        if job.first(is_made(request, forecast_identity(forecaster, conditions, options))):
            return request.output if job.is_first else None
        config, grid, device = forecaster.config, forecaster.grid, str(forecaster.device)
        job.each(lambda: require_memory(config, grid, options.batch_size, device))
        if request.compile and not has_kernels(job.device) and compiles(job.device):
            forecaster.stepper.compile()
        unreal = unreal_weather(model)
        if job.is_first:
            if budget != (None, None):
                calls = forecaster.frames.calls(1) * forecaster.stepper.calls
                print(f"made by {forecaster.name.partition('@')[0]}, {calls} network calls a day", file=sys.stderr)
            for note in notes_on(conditions, request, unreal if source != model.starts else None):
                print(note, file=sys.stderr)
        about: dict[str, Any] = {"unreal": unreal, "overwrite": request.overwrite}
        writer: StoreWriter
        if keeps_latents:
            writer = LatentWriter(request.output, forecaster, conditions, options, folder=model.path, **about)
        else:
            writer = ForecastWriter(request.output, forecaster, conditions, options, **about)
        require_disk(writer)
        fill(writer, job)
    return request.output if job.is_first else None


def notes_on(conditions: Sequence[InitialCondition], request: ForecastRequest, unreal: str | None) -> Iterator[str]:
    """Yields what a user should know of a forecast before it is made: what is made up, and what the model never saw."""
    filled = dict.fromkeys(name for initial in conditions for name in initial.analysis.filled)
    derived = dict.fromkeys(how for initial in conditions for how in initial.analysis.derived)
    if filled:
        yield f"filled ({request.fill}), as {conditions[0].analysis.source} lacks them: {', '.join(filled)}"
    yield from (f"derived: {how}" for how in derived)
    if unreal is not None:
        yield (
            "The model has learned simulated weather alone: from other states, such as those of the real atmosphere, "
            f"what it makes is no forecast. ({unreal.partition(';')[0]})"
        )


def is_made(request: ForecastRequest, identity: Mapping[str, Any]) -> bool:
    """Says whether the output is this very forecast, complete, which a run that was stopped later goes on from.

    Raises:
        FileExistsError: the output is something else.
    """
    if request.overwrite or not request.output.exists():
        return False
    found, remedy = read_identity(request.output), "Choose another output, or add --overwrite."
    require_same(found, identity, str(request.output), remedy=remedy, error=FileExistsError)
    return True


def without_start(request: ForecastRequest, identity: Mapping[str, Any], writer: type[StoreWriter]) -> str:
    """Says whether the output is there, begun or complete, but for lead time 0, as earlier versions made forecasts.

    `identity` is that of the forecast without lead time 0. Empty where it is not wanted, or the output is another.
    """
    if request.overwrite or not request.analysis:
        return ""
    is_complete = request.output.exists()
    found = read_identity(request.output) if is_complete else begun_identity(request.output)
    asked = identity if is_complete else writer.begun(identity)
    try:
        require_same(found, asked, str(request.output), remedy="")
    except ValueError:
        return ""
    return "has no lead time 0, as it was made" if is_complete else "goes on without lead time 0, as it was begun"


def require_disk(writer: StoreWriter) -> None:
    """Raises ValueError where a forecast needs more of the disk than is free, even when its values compress well."""
    folder = next(above for above in writer.unfinished.folder.absolute().parents if above.exists())
    needed, free = writer.bytes // COMPRESSED_TO, shutil.disk_usage(folder).free
    if needed > free and not writer.unfinished.folder.exists():
        raise ValueError(
            f"The forecast takes about {needed / 2**30:.3g} GiB in {folder}, of which {free / 2**30:.3g} GiB are free. "
            "Ask for fewer members, days or times, keep latents (--keep latents), or name another --output."
        )


def unreal_weather(model: ModelFolder) -> str | None:
    """Returns what is unreal about a model's weather, as its own start states say, if they do."""
    return None if model.starts is None else open_files(model.starts).attrs.get("unreal")


def choose_batch(request: ForecastRequest, forecaster: Forecaster, forecasts: int, job: Ranks) -> int:
    """Returns how many members are computed at once: as many as an unfinished run has, or as fit the free memory.

    The number is the same on all processes, and leaves work for each of them; so many `forecasts` are to be made.
    """
    begun = job.first(begun_identity(request.output).get("options", {}).get("batch_size"))
    if begun is not None:
        return int(begun)
    costs = network_costs(forecaster.config, forecaster.grid, str(forecaster.device))
    fits = min(job.each(lambda: fitting_batch(costs, request.members, str(forecaster.device))))
    return min(fits, -(-request.members * forecasts // job.size))


def fill(writer: StoreWriter, job: Ranks) -> None:
    """Writes this process's share of a forecast; the first one makes the store, and completes it when all are done."""
    batches = writer.start() if job.is_first else []
    job.wait()
    mine = job.share(batches if job.is_first else writer.start())
    job.wait()  # nobody writes before everybody has read where the batches stand
    options = writer.options
    remaining = sum(options.blocks - batch.done for batch in mine)
    if (begun := sum(batch.done for batch in mine)) and job.is_first:
        print(f"goes on: {begun} steps of member batches were made before", file=sys.stderr)
    steps = ((batch, step) for batch in mine for step in batch.forecast())
    written = show_progress(writer.write(steps), remaining, f"{options.members} members, {options.blocks} blocks")
    deque(written, maxlen=0)
    print(peak_memory(), file=sys.stderr)
    job.wait()
    if job.is_first:
        writer.finish()
    job.wait()


def find_conditions(request: ForecastRequest, analyses: Analyses, forecaster: Forecaster) -> list[InitialCondition]:
    """Reads the state of each initial time, and those of the hours before where leads between the model's are wanted.

    The initial time is by default the first that there is.
    """
    there, frames = analyses.times, forecaster.frames
    asked = np.unique([parse_time(time) for time in request.times]) if request.times else there[:1]
    groups = asked[:, None] - np.arange(0, frames.step_hours, request.lead_hours(frames)) * HOUR
    missing = np.setdiff1d(groups[:, 1:], there)
    if missing.size:
        raise ValueError(
            f"{analyses.where}: lead times {request.lead_step} h apart start from analyses of "
            f"{describe(groups[0], limit=6)}; missing: {describe(missing)}. Add them, or leave --lead-step out."
        )
    normalizer = forecaster.codec.normalizer
    return [
        initial
        for group in groups
        for initial in staggered([analyses.read(time, fill=request.fill, normalizer=normalizer) for time in group])
    ]
