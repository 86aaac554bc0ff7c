"""Forecasts from many initial times, scored block by block while they are made; no fields are stored."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import xarray as xr
from jaxtyping import Shaped

from ladcast.commands.options import EvaluationRequest, Scoring
from ladcast.commands.scoring import scoring_options
from ladcast.data.analysis import read_analysis
from ladcast.data.lazy import guarded
from ladcast.data.normalization import pack, unpack
from ladcast.data.store import open_store
from ladcast.forecasting.checkpoints import load_forecaster
from ladcast.forecasting.cost import require_memory
from ladcast.forecasting.ensemble import EnsembleOptions, forecast_ensemble
from ladcast.forecasting.forecaster import Forecaster
from ladcast.forecasts.compare import open_climatology
from ladcast.progress import show_progress
from ladcast.released import ModelFolder
from ladcast.times import HOUR, Times, describe, parse_time
from ladcast.verification import (
    Accumulator,
    Climatology,
    ScoreOptions,
    merge_accumulators,
    read_sums,
    score,
)
from ladcast.verification.archive import claim_folder, keep_sums, values_of
from ladcast.verification.bootstrap import FLOOR
from ladcast.verification.systems import MEANS_ONLY, score_baselines

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
    settings = {} if request.steps is None else {"steps": request.steps}
    forecaster = load_forecaster(model.path, scoring.device).with_settings(**settings)
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
    require_memory(forecaster.config, forecaster.grid, request.members, str(forecaster.device))
    if scoring.sums is not None:
        used = {"truth": truth, "climatology": None if climatology is None else climatology.dataset}
        used |= {} if request.analyses is None else {"analyses": task.analyses}
        made_of = task.identity(scoring) | evaluation_sources(store, model, request) | values_of(used)
        claim_folder(scoring.sums, task.systems, made_of, starts)
    done = [task.kept(start, scoring.sums) for start in show_progress(share, len(share), "evaluate")]
    return {name: merge_accumulators(scores[name] for scores in done) for name in done[0]}


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

    def identity(self, scoring: Scoring) -> dict[str, str]:
        """Says what the sums of a start depend on, but for the start."""
        request = asdict(self.request)
        chosen = {key: request[key] for key in ("members", "days", "seed", "steps", "floor")} | {
            "model": self.forecaster.name
        }
        chosen |= {"statistics": scoring.statistics, "regions": scoring.regions, "grid": self.forecaster.grid}
        return {key: str(value) for key, value in chosen.items()}

    def kept(self, start: np.datetime64, folder: Path | None) -> dict[str, Accumulator]:
        """Returns the scores of a start, from the folder where it was scored before."""
        if folder is None:
            return self.score(start)
        label = describe(start)
        if all((folder / name / f"{label}.nc").is_file() for name in self.systems):
            return {name: read_sums(folder / name / f"{label}.nc") for name in self.systems}
        scores = self.score(start)
        keep_sums(scores, folder, label)
        return scores

    def score(self, start: np.datetime64) -> dict[str, Accumulator]:
        """Scores each block of frames when it is made, and the baselines at the same lead times."""
        parts: dict[str, list[Accumulator]] = {}
        analysis = read_analysis(self.analyses, start, self.forecaster.channels, self.forecaster.grid)
        for frames in forecast_ensemble(self.forecaster, analysis, self.ensemble):
            for name, scores in self._score_block(frames):
                parts.setdefault(name, []).append(scores)
        return {name: merge_accumulators(some) for name, some in parts.items()}

    def _score_block(self, frames: xr.Dataset) -> Iterator[tuple[str, Accumulator]]:
        truth, climatology = self.truth, self.climatology
        yield self.name, score(frames, truth, climatology=climatology, options=self.options)
        yield from score_baselines(self.systems, frames, truth, climatology, self.options)
        if FLOOR in self.systems:
            made = reconstruction(self.forecaster, truth, frames)
            yield FLOOR, score(made, truth, climatology=climatology, options=replace(self.options, statistics=None))


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
