"""Opens what is scored, shares the work among processes, and makes of the scores a file, a table and figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import xarray as xr

from ladcast.commands.options import ScoreRequest, Scoring, figure_paths
from ladcast.data.sources.files import open_files
from ladcast.device import find_device
from ladcast.forecasts.compare import open_systems
from ladcast.forecasts.latents import LatentStore
from ladcast.forecasts.manifest import is_latent_store
from ladcast.forecasts.open import parse_system
from ladcast.run import version_of
from ladcast.verification import (
    Accumulator,
    BlockBootstrap,
    ScoreOptions,
    intervals,
    merge_accumulators,
)
from ladcast.verification import write_scores as write_file
from ladcast.verification.archive import VALUES_OF, claim_folder, keep_sums, values_of
from ladcast.verification.bootstrap import (
    COMPARED,
    FLOOR,
    compare_with_first,
    competitors,
    score_table,
    why_no_intervals,
)
from ladcast.verification.systems import Systems
from ladcast.verification.table import count_of, plain_scores


def open_request(forecasts: Sequence[Path], request: ScoreRequest) -> Systems:
    """Opens every store that a request names, and cuts the systems to what they have in common.

    Raises:
        ValueError: two systems have one name, or they have nothing in common.
    """
    stores = _stores(forecasts, request)
    chosen = {name: getattr(request, name) for name in ("climatology", "years", "equal_members", "baselines")}
    return open_systems(stores, request.truth, times=request.time, **chosen)


def _stores(forecasts: Sequence[Path], request: ScoreRequest) -> dict[str, Sequence[Path]]:
    """Returns the stores of each system; raises ValueError where two have one name."""
    others = [parse_system(text) for text in request.against]
    names = [request.name, *(name for name, _ in others)]
    if len(set(names)) < len(names):
        raise ValueError(f"Each system needs a name of its own, got {', '.join(names)}.")
    return {request.name: forecasts, **dict(others)}


def score_forecasts(
    forecasts: Sequence[Path], request: ScoreRequest, scoring: Scoring
) -> tuple[Systems, dict[str, Any]]:
    """Scores forecasts and reports; returns what was opened, and the scores for machines unless they are but a part."""
    systems = open_request(forecasts, request)
    print("\n".join(systems.notes))
    scores = score_systems(systems, forecasts, request, scoring)
    if scoring.part is not None:
        return systems, {}
    output = request.output or forecasts[0].with_suffix(".scores.nc")
    about = score_sources(forecasts, request)
    if unreal := systems.truth.attrs.get("unreal"):
        about["unreal"] = str(unreal)
    return systems, report(scores, output, request.scorecard, scoring, about, notes=systems.notes)


def score_systems(
    systems: Systems, forecasts: Sequence[Path], request: ScoreRequest, scoring: Scoring
) -> dict[str, Accumulator]:
    """Scores every system and baseline on this process's share of the common initial times.

    With several workers each opens the stores and scores some of them, with the same bits as one. A folder for sums is
    claimed before anything is computed, and gets the sums.

    Raises:
        ValueError: the truth does not cover the forecasts; the message lists the valid times that are missing. Or the
            folder for sums holds those of other stores or options.
    """
    part, count = scoring.share
    starts = list(np.array_split(systems.report.init_times, count)[part])
    if not starts:
        raise ValueError(f"Part {scoring.part} has no starts: there are {len(systems.report.init_times)}.")
    if scoring.sums is not None:
        chosen = {key: str(getattr(request, key)) for key in ("equal_members", "baselines")}
        chosen |= {key: str(getattr(scoring, key)) for key in ("statistics", "regions")}
        chosen["grid"] = str(systems.report.grid)
        made_of = {**score_sources(forecasts, request), **chosen, **_values(systems, _stores(forecasts, request))}
        claim_folder(scoring.sums, systems.names, made_of, systems.report.init_times)
    if request.workers == 1:
        scores = systems.score(starts, scoring_options(scoring))
    else:
        scores = _score_in_processes(forecasts, request, scoring, starts)
    if scoring.sums is not None:
        label = f"{request.name}-{(scoring.part or '1/1').replace('/', '-of-')}"
        print(f"sums {keep_sums(scores, scoring.sums, label)}")
    return scores


def _values(systems: Systems, stores: Mapping[str, Sequence[Path]]) -> dict[str, str]:
    """Says what the opened stores hold, see `values_of`; of latents what is stored, as machines decode it unlike."""
    digests = {
        name: " ".join(LatentStore(path).digest() for path in paths if is_latent_store(path))
        for name, paths in stores.items()
    }
    climatology = None if systems.climatology is None else systems.climatology.dataset
    opened: dict[str, xr.Dataset | None] = {name: ds for name, ds in systems.forecasts.items() if not digests[name]}
    opened |= {"truth": systems.truth, "climatology": climatology, "years": systems.years}
    latents = {f"{VALUES_OF}latents of {name}": digest for name, digest in digests.items() if digest}
    return values_of(opened) | latents


def _score_in_processes(
    forecasts: Sequence[Path], request: ScoreRequest, scoring: Scoring, starts: Sequence[np.datetime64]
) -> dict[str, Accumulator]:
    """Shares the initial times among local processes, or on the cluster of an active Dask client."""
    from dask import config as dask_config
    from dask.base import compute, get_scheduler
    from dask.delayed import delayed

    shares = [list(some) for some in np.array_split(np.asarray(starts), request.workers) if len(some)]
    tasks = [delayed(_open_and_score)(list(forecasts), request, scoring, some) for some in shares]
    active: Callable[..., object] | None = get_scheduler()  # type: ignore[no-untyped-call]
    get_context("forkserver").set_forkserver_preload([__name__])  # processes are forks of one that has imported this
    with dask_config.set({"multiprocessing.context": "forkserver"}):
        parts = compute(*tasks, scheduler=active or "processes", num_workers=request.workers)  # type: ignore[no-untyped-call]
    return {name: merge_accumulators(part[name] for part in parts) for name in parts[0]}


def _open_and_score(
    forecasts: Sequence[Path], request: ScoreRequest, scoring: Scoring, starts: Sequence[np.datetime64]
) -> dict[str, Accumulator]:
    return open_request(forecasts, request).score(starts, scoring_options(scoring))


def score_sources(forecasts: Sequence[Path], request: ScoreRequest) -> dict[str, str]:
    """Says which stores are scored against which."""
    stores = {
        "forecast": ", ".join(map(str, forecasts)),
        "truth": str(request.truth or "that of the model"),
        "climatology": str(request.climatology or ""),
        "against": ", ".join(request.against),
        "years": str(request.years or ""),
    }
    return {name: store or "none" for name, store in stores.items()}


def unreal_truth(store: Path | str) -> dict[str, str]:
    """Returns what is unreal about the weather of a store, where it is there and says so, as figures of it do."""
    with suppress(FileNotFoundError, ValueError):
        if unreal := open_files(Path(store)).attrs.get("unreal"):
            return {"unreal": str(unreal)}
    return {}


def scoring_options(scoring: Scoring) -> ScoreOptions:
    """Returns the options of the scorer."""
    statistics = tuple(dict.fromkeys(("default", *scoring.statistics)))
    return ScoreOptions(statistics, scoring.regions, str(find_device(scoring.device)))


def report(
    systems: Mapping[str, Accumulator],
    output: Path,
    scorecard: Path | None,
    scoring: Scoring,
    about: Mapping[str, str],
    *,
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Writes the scores, prints the table and, where asked for, draws the figures; returns the scores for machines.

    `about` says where the forecasts come from, `notes` what was left out. Table and figures show the channels that
    `scoring` names, by default the headline ones; the scores are those of all.
    """
    bootstrap, channels = BlockBootstrap(days=scoring.block_days), scoring.channels
    path = _write_scores(systems, output, {**about, **({"comparison": " ".join(notes)} if notes else {})})
    print(score_table(systems, bootstrap, channels))
    print(f"scores {path}")
    if scorecard is not None:
        for figure in draw(systems, bootstrap, scorecard, channels, about=about):
            print(f"figure {figure}")
    return {"scores_file": path, "scores": plain_scores({name: sums.metrics() for name, sums in systems.items()})}


def draw(
    systems: Mapping[str, Accumulator],
    bootstrap: BlockBootstrap,
    path: Path,
    channels: Sequence[str] = (),
    *,
    about: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Path]:
    """Draws a scorecard for each region, and curves by lead time of the first one; yields the files.

    Titles say where the weather is a model's, as `about` does (`unreal`).

    The floor of the autoencoder is no competitor: it is among the curves only, and not among those of the CRPS.
    Where starts are too few for intervals, there are no dots and no bands.

    Raises:
        ValueError: there is no other system to compare with, or none of the channels.
    """
    from ladcast.plots.scorecards import draw_curves, draw_scorecard, heading
    from ladcast.plots.style import save_figure, unreal_note

    rivals = competitors(systems)
    if len(rivals) < 2:
        raise ValueError("A scorecard compares with another system, and there is none. Add --against or --climatology.")
    first, regions = next(iter(rivals)), next(iter(rivals.values())).regions
    starts = count_of(len(rivals[first].init_times), "start") + unreal_note(about)
    figures = figure_paths(path, regions)
    for region in regions:
        card = draw_scorecard(
            compare_with_first(rivals, bootstrap, region),
            channels=channels,
            title=f"{first}, {region}: fair CRPS, {starts}",
        )
        yield save_figure(card, figures[region], dpi=200)
    for metric in COMPARED:
        drawn = rivals if metric == "fair_crps" else rivals | {name: systems[name] for name in systems if name == FLOOR}
        title = f"{heading(metric)}\n{regions[0]}, {starts}"
        curves = draw_curves(_with_bands(drawn, bootstrap), metric=metric, channels=channels, title=title)
        yield save_figure(curves, figures[metric], dpi=200)


def _with_bands(systems: Mapping[str, Accumulator], bootstrap: BlockBootstrap) -> dict[str, xr.Dataset]:
    if why_no_intervals(systems, bootstrap):
        return {name: scores.metrics() for name, scores in systems.items()}
    return {name: intervals(scores, metrics=COMPARED, bootstrap=bootstrap) for name, scores in systems.items()}


def _write_scores(systems: Mapping[str, Accumulator], output: Path, provenance: Mapping[str, str]) -> Path:
    """Writes all metrics of all systems to one netCDF file, with where they come from."""
    made = datetime.now(UTC).isoformat(timespec="seconds")
    about = {
        "source": version_of("ladcast"),
        "history": f"{made} scored by {', '.join(map(version_of, ('ladcast', 'numpy', 'torch')))}",
    }
    return write_file(systems, output, about | dict(provenance))
