"""Forecasts from many initial times, scored block by block while they are made; no fields are stored."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Shaped
from torch import Tensor

from ladcast.checkpoint import checkpoint_name
from ladcast.commands.options import EvaluationRequest, Scoring
from ladcast.commands.scoring import scoring_options
from ladcast.data.analysis import Analysis, read_analysis
from ladcast.data.lazy import guarded, prefetch
from ladcast.data.store import open_store
from ladcast.forecasting.checkpoints import load_forecaster
from ladcast.forecasting.codec import LatentCodec
from ladcast.forecasting.cost import require_memory
from ladcast.forecasting.ensemble import EnsembleOptions, MemberBatch, member_batches, staggered
from ladcast.forecasting.forecaster import Forecaster
from ladcast.forecasting.skill import Chosen, choose_calls, describe_choice
from ladcast.forecasting.stepper import ForecastStep
from ladcast.forecasts.compare import open_climatology
from ladcast.released import ModelFolder
from ladcast.run import show_progress
from ladcast.times import HOUR, Times, describe, parse_time
from ladcast.types import State
from ladcast.verification import (
    Accumulator,
    Climatology,
    ScoreOptions,
    merge_accumulators,
    read_sums,
)
from ladcast.verification.archive import SETTINGS, claim_folder, keep_sums, values_of
from ladcast.verification.bootstrap import FLOOR
from ladcast.verification.score import Block, Members, StateScorer
from ladcast.verification.systems import MEANS_ONLY

READERS = 2
"""Threads that read what belongs to the next steps of a forecast, and to the next start, while one is made."""
READ_BYTES, STATE_BYTES = 2**28, 20
"""What one of them reads at once, unless one step is more; and a value of the truth, with mean and deviation there."""
Starts = Shaped[np.ndarray, " start"]
"""Initial times as datetime64[ns]."""


def make_and_score(
    store: Path, model: ModelFolder, request: EvaluationRequest, scoring: Scoring
) -> dict[str, Accumulator]:
    """Makes and scores the forecasts of this process's share of the starts, beside baselines from the same store.

    With `scoring.sums` the sums of each start are kept, and a run that was stopped goes on after the last one.

    Raises:
        ValueError: the store lacks initial or valid times, which the message lists; the sums that are there are those
            of other options; so many members do not fit the memory.
    """
    chosen = choose(model, request)
    model = ModelFolder(model.path / chosen.stepper)
    forecaster = load_forecaster(model.path, scoring.device).with_settings(**chosen.settings)
    truth = open_store(store, forecaster.channels, forecaster.grid, regular=False)
    path = request.climatology or model.climatology
    climatology = None if path is None else open_climatology(path, forecaster.grid)
    if climatology is not None and not climatology.part("std"):
        print(MEANS_ONLY, file=sys.stderr)
    task = _Evaluation(model.path.name, forecaster, truth, climatology, request, scoring_options(scoring))
    starts = wanted_starts(request, truth["time"].values, task.lead_times)
    part, count = scoring.share
    share: Starts = np.array_split(starts, count)[part]
    if not share.size:
        raise ValueError(f"Part {scoring.part} has no starts: there are {starts.size}.")
    require_memory(forecaster.config, forecaster.grid, request.members, str(forecaster.device), scored=True)
    if scoring.sums is not None:
        used = {"truth": truth, "climatology": None if climatology is None else climatology.dataset}
        used |= {} if request.analyses is None else {"analyses": task.analyses}
        made_of = task.identity(scoring) | evaluation_sources(store, model, request) | values_of(used)
        claim_folder(scoring.sums, task.systems, made_of, starts)
    waiting = [start for start in share if not task.is_kept(start, scoring.sums)]
    parts = range(0, len(task.lead_times), task.leads_at_once)
    places = [(start, first) for start in waiting for first in parts]
    with closing(prefetch(task.read, places, threads=READERS, ahead=2 * READERS)) as read:
        done = [
            task.score(start, read, scoring.sums) if start in waiting else task.kept(start, scoring.sums)
            for start in show_progress(share, len(share), "evaluate")
        ]
    return {name: merge_accumulators(scores[name] for scores in done) for name in done[0]}


def choose(model: ModelFolder, request: EvaluationRequest) -> Chosen:
    """Returns the stepper of a model, and its settings, that a request asks for."""
    return choose_calls(model.path, request.calls, {} if request.steps is None else {"steps": request.steps})


def describe_maker(model: ModelFolder, request: EvaluationRequest) -> dict[str, str]:
    """Says by what weights the forecasts are made, and with which settings: a table of skill is made of it."""
    chosen = choose(model, request)
    settings = describe_choice(model.path, chosen).settings
    return {"model": checkpoint_name(model.path / chosen.stepper), SETTINGS: json.dumps(settings)}


def evaluation_sources(store: Path, model: ModelFolder, request: EvaluationRequest) -> dict[str, str]:
    """Says which stores the model is scored against; a climatology of its own is named by the model's folder."""
    own = f"{model.path.name}/{model.climatology.name}" if model.climatology else "none"
    climatology = str(request.climatology or own)
    analyses = {} if request.analyses is None else {"analyses": str(request.analyses)}
    return {"truth": str(store), "climatology": climatology, **analyses}


def first_states(path: Path) -> xr.Dataset:
    """Opens states to start from: those of a store, or member 0 of forecasts at the lead time 0 h."""
    opened = (
        xr.open_zarr(path, decode_timedelta=True, consolidated=False)
        if path.is_dir()
        else guarded(xr.open_dataset(path, decode_timedelta=True), str(path))
    )
    if "prediction_timedelta" not in opened.dims:
        return opened
    if first := opened["prediction_timedelta"].values[0] / HOUR:
        raise ValueError(f"{path}: expected states, or forecasts that begin at 0 h, got forecasts from {first:g} h on.")
    return opened.isel(prediction_timedelta=0, number=0, drop=True)


def wanted_starts(request: EvaluationRequest, held: Times, leads: Shaped[np.ndarray, " lead"]) -> Starts:
    """Returns the initial times that are asked for; raises ValueError where the store lacks one, or a valid time."""
    first, last = parse_time(request.start), parse_time(request.end)
    starts: Starts = np.arange(first, last + HOUR, request.every * HOUR).astype("datetime64[ns]")
    missing = np.setdiff1d(starts, held)
    if missing.size or not starts.size:
        what = f"lacks the initial times {describe(missing)}" if starts.size else "is asked for no initial time"
        raise ValueError(f"The store {what}; {_span(held)}. Change --start, --end or --every.")
    missing = np.setdiff1d(starts[:, None] + leads, held)
    if missing.size:
        raise ValueError(f"The store lacks the valid times {describe(missing)}; {_span(held)}. Change --end or --days.")
    return starts


def _span(held: Times) -> str:
    return f"it runs from {describe(held[0])} to {describe(held[-1])}"


class Reading(NamedTuple):
    """What is read for steps of a forecast, and for the first ones of a start the analysis and the truth there."""

    block: Block
    analysis: Analysis | None = None
    at_start: Float[Tensor, "lead channel lat lon"] | None = None


class _Evaluation:
    """Scores one start after the other."""

    def __init__(
        self,
        name: str,
        forecaster: Forecaster,
        truth: xr.Dataset,
        climatology: Climatology | None,
        request: EvaluationRequest,
        options: ScoreOptions,
    ) -> None:
        self.name, self.forecaster, self.truth, self.climatology = name, forecaster, truth, climatology
        self.request, self.options = request, options
        self.analyses = truth if request.analyses is None else first_states(request.analyses)
        frames, members = forecaster.frames, request.members
        self.ensemble = EnsembleOptions(members, frames.calls(request.days), request.seed, batch_size=members)
        self.scorer = StateScorer(truth, climatology, options, wide=forecaster.device.type == "cuda")
        scored, own = self.scorer.channels, list(forecaster.channels)
        self.rows, self.own_rows = [own.index(channel) for channel in scored], [scored.index(one) for one in own]

    @property
    def systems(self) -> list[str]:
        """Returns the names of what is scored, in the order of the comparison."""
        climatology = self.climatology is not None and bool(self.climatology.part("std"))
        wanted = {self.name: True, "persistence": True, "climatology": climatology, FLOOR: self.request.floor}
        return [name for name, is_scored in wanted.items() if is_scored]

    @property
    def lead_times(self) -> Shaped[np.ndarray, " lead"]:
        """Returns the lead times of a forecast."""
        return self.forecaster.frames.lead_times(self.ensemble.blocks)

    @property
    def leads_at_once(self) -> int:
        """Returns how many lead times are read at once: those of whole steps."""
        future, state = self.forecaster.frames.future, len(self.rows) * math.prod(self.forecaster.grid.shape)
        return future * max(READ_BYTES // (future * STATE_BYTES * state), 1)

    def identity(self, scoring: Scoring) -> dict[str, str]:
        """Says what the sums of a start depend on, but for the start."""
        request = asdict(self.request)
        chosen = {key: request[key] for key in ("members", "days", "seed", "steps", "floor")}
        chosen |= {"model": self.forecaster.name, SETTINGS: json.dumps(self.forecaster.stepper.settings())}
        chosen |= {} if self.request.calls is None else {"calls": self.request.calls}
        chosen |= {"statistics": scoring.statistics, "regions": scoring.regions, "grid": self.forecaster.grid}
        return {key: str(value) for key, value in chosen.items()}

    def is_kept(self, start: np.datetime64, folder: Path | None) -> bool:
        """Says whether a start was scored before, and its scores are in the folder."""
        return folder is not None and all((folder / name / f"{describe(start)}.nc").is_file() for name in self.systems)

    def kept(self, start: np.datetime64, folder: Path | None) -> dict[str, Accumulator]:
        """Returns the scores of a start that was scored before."""
        assert folder is not None
        return {name: read_sums(folder / name / f"{describe(start)}.nc") for name in self.systems}

    def read(self, place: tuple[np.datetime64, int]) -> Reading:
        """Reads what some lead times of the forecast from a start need, from this one on; with the first, the start."""
        start, first = place
        leads = self.lead_times[first : first + self.leads_at_once]
        block = self.scorer.read(start, leads, self.request.members)
        if first:
            return Reading(block)
        at_start = self.scorer.read(start, 0 * leads[:1], self.request.members).truth
        analysis = read_analysis(self.analyses, start, self.forecaster.channels, self.forecaster.grid)
        return Reading(block, analysis, at_start)

    def score(self, start: np.datetime64, read: Iterator[Reading], folder: Path | None) -> dict[str, Accumulator]:
        """Scores each block of frames when it is made, and the baselines at the same lead times; keeps the sums."""
        first = next(read)
        assert first.analysis is not None
        assert first.at_start is not None
        (batch,) = member_batches(self.forecaster, staggered([first.analysis]), self.ensemble)
        parts: dict[str, list[Accumulator]] = {name: [] for name in self.systems}
        frozen, scorer = first.at_start.to(self.forecaster.device), self.scorer
        # The forecast comes first: it ends before the readings of the next start begin.
        for step, block in zip(batch.forecast(), self._blocks(chain([first], read)), strict=False):
            parts[self.name].append(scorer.score(self._decoded(batch, step), block))
            same = frozen[:, None].expand(len(block.truth), 1, *frozen.shape[1:])
            parts["persistence"].append(scorer.score(same, block, plain=True))
            if "climatology" in parts:
                parts["climatology"].append(scorer.score_climatology(block))
            if FLOOR in parts:
                made = reconstruction(self.forecaster.codec, block.truth[:, self.own_rows])[:, self.rows]
                parts[FLOOR].append(scorer.score(made[:, None], block, plain=True))
        scores = {name: merge_accumulators(some) for name, some in parts.items()}
        if folder is not None:
            keep_sums(scores, folder, describe(start))
        return scores

    def _blocks(self, read: Iterator[Reading]) -> Iterator[Block]:
        """Yields what belongs to each step, on the device."""
        future = self.forecaster.frames.future
        for reading in read:
            block = reading.block.to(self.forecaster.device)
            yield from (block.of_leads(slice(k, k + future)) for k in range(0, len(block.truth), future))

    def _decoded(self, batch: MemberBatch, step: ForecastStep) -> Members:
        latents, ocean = batch.of_members(step).transpose(1, 2), batch.initial.analysis.ocean
        frames = torch.cat(list(batch.forecaster.codec.decode_on_device(latents.flatten(0, 1), ocean)))
        by_member: Tensor = frames.unflatten(0, latents.shape[:2])
        return by_member.transpose(0, 1)[:, :, self.rows]


def reconstruction(codec: LatentCodec, states: State) -> State:
    """Returns what the autoencoder makes of states: no forecast of this model is closer to them, but by chance."""
    made, masked = [], list(codec.normalizer.channels.masked_on_land)
    for part in states.split(codec.decoded_at_once):
        (decoded,) = codec.decode_on_device(codec.encode(part))
        oceans = ~part[:, masked].isnan().any(dim=1)
        made += [codec.normalizer.mask_land(one, ocean) for one, ocean in zip(decoded, oceans, strict=True)]
    return torch.stack(made)
