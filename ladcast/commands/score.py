"""`ladcast score`: forecasts, other systems and baselines on the same starts, levels, lead times and grid."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ladcast.commands.score_options import ScoreRequest, Scoring
from ladcast.commands.systems import Systems, open_systems
from ladcast.device import find_device
from ladcast.verification import (
    Accumulator,
    ScoreOptions,
    climatological_ensemble,
    merge,
    persistence,
    score,
    score_climatology,
)
from ladcast.verification.sums import claim_folder


def score_forecasts(
    forecasts: Sequence[Path], request: ScoreRequest, scoring: Scoring
) -> tuple[dict[str, Accumulator], list[str]]:
    """Scores every system and baseline on its share of the common starts; returns sums, and what to tell people.

    With several workers each opens the stores and scores some starts; the result has the same bits as with one. A
    folder for sums is claimed before anything is computed.

    Raises:
        ValueError: the truth does not cover the forecasts; the message lists the valid times that are missing. Or the
            folder for sums holds those of other stores or options.
    """
    systems = open_systems(forecasts, request)
    part, count = scoring.share
    starts = np.array_split(systems.report.starts, count)[part]
    if not len(starts):
        raise ValueError(f"Part {scoring.part} has no starts: there are {len(systems.report.starts)}.")
    if scoring.sums is not None:
        chosen = {key: str(getattr(request, key)) for key in ("equal_members", "baselines")}
        chosen |= {key: str(getattr(scoring, key)) for key in ("statistics", "regions")}
        chosen["grid"] = str(systems.report.grid)
        names = systems.names(baselines=request.baselines)
        claim_folder(scoring.sums, names, {**provenance(forecasts, request), **chosen})
    return score_shared(forecasts, request, scoring, list(starts)), systems.notes


def provenance(forecasts: Sequence[Path], request: ScoreRequest) -> dict[str, str]:
    """Says which stores are scored against which."""
    stores = {
        "forecast": ", ".join(map(str, forecasts)),
        "truth": str(request.truth),
        "climatology": str(request.climatology or ""),
        "against": ", ".join(request.against),
        "years": str(request.years or ""),
    }
    return {name: store or "none" for name, store in stores.items()}


def score_shared(
    forecasts: Sequence[Path], request: ScoreRequest, scoring: Scoring, starts: Sequence[np.datetime64]
) -> dict[str, Accumulator]:
    """Scores starts in `request.workers` processes, or on the cluster of an active Dask client."""
    if request.workers == 1:
        return score_some(forecasts, request, scoring, starts)
    from dask.base import compute
    from dask.delayed import delayed

    shares = [list(some) for some in np.array_split(np.asarray(starts), request.workers) if len(some)]
    tasks = [delayed(score_some)(list(forecasts), request, scoring, some) for some in shares]
    parts = compute(*tasks, scheduler=_scheduler(), num_workers=request.workers)  # type: ignore[no-untyped-call]
    return {name: merge(part[name] for part in parts) for name in parts[0]}


def _scheduler() -> Callable[..., object] | str:
    """Returns the active Dask client, if there is one, else local processes."""
    from dask.base import get_scheduler

    active: Callable[..., object] | None = get_scheduler()  # type: ignore[no-untyped-call]
    return active or "processes"


def score_some(
    forecasts: Sequence[Path], request: ScoreRequest, scoring: Scoring, starts: Sequence[np.datetime64]
) -> dict[str, Accumulator]:
    """Opens the stores and scores these starts, one by one."""
    systems = open_systems(forecasts, request)
    options = scoring_options(scoring)
    parts: dict[str, list[Accumulator]] = {}
    for start in starts:
        for name, scores in _score_start(systems, start, options, baselines=request.baselines):
            parts.setdefault(name, []).append(scores)
    return {name: merge(some) for name, some in parts.items()}


def _score_start(
    systems: Systems, start: np.datetime64, options: ScoreOptions, *, baselines: bool
) -> Iterator[tuple[str, Accumulator]]:
    """Yields the score of each system and baseline from one start; baselines only with what is always computed."""
    truth, climatology = systems.truth, systems.climatology
    cut = {name: ds.sel(time=[start]) for name, ds in systems.forecasts.items()}
    first = next(iter(cut.values()))
    for name, forecast in cut.items():
        yield name, score(forecast, truth, climatology=climatology, options=options)
    names = systems.names(baselines=baselines)
    if systems.years is not None:
        others = climatological_ensemble(systems.years, first)
        yield "other years", score(others, truth, climatology=climatology, options=options)
    plain = replace(options, statistics=None)
    if "persistence" in names:
        kept = persistence(truth.sel(time=[start]), first)
        yield "persistence", score(kept, truth, climatology=climatology, options=plain)
    if climatology is not None and "climatology" in names:
        yield "climatology", score_climatology(climatology, first, truth, options=plain)


def scoring_options(scoring: Scoring) -> ScoreOptions:
    """Returns the options of the scorer."""
    statistics = tuple(dict.fromkeys(("default", *scoring.statistics)))
    return ScoreOptions(statistics, scoring.regions, str(find_device(scoring.device)))
