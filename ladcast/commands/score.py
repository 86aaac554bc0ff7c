"""`ladcast score`, `evaluate` and `merge`, of fields; `ladcast track`, of cyclones: what forecasts are worth."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from ladcast.commands.options import EvaluationRequest, Overrides, Results, ScoreRequest, Scoring, flat, score_outputs
from ladcast.files import remove, require_outputs
from ladcast.released import DEFAULT_MODEL, find_model

if TYPE_CHECKING:
    from collections.abc import Mapping

    import xarray as xr

    from ladcast.cyclones.report import TrackReport
    from ladcast.cyclones.tracker import TrackOptions

DEFAULT_REQUEST, DEFAULT_SCORING = ScoreRequest(), Scoring()
WIDER_RULES = "Set wider ones, such as --set detection.radius_deg=20 detection.separation_deg=10."
TRACK_FILES = (".nc", ".csv", ".geojson")
DRAWN_GRID = "720x361"


def score(
    *forecasts: Path,
    request: Annotated[ScoreRequest, flat("What is compared")] = DEFAULT_REQUEST,
    scoring: Annotated[Scoring, flat("How it is scored", 3)] = DEFAULT_SCORING,
) -> Results:
    """Score forecasts against the truth, beside persistence, climatology and other systems on the same dates.

    Args:
        forecasts: forecast stores of one system, each with other starts.
        request: what to compare with.
        scoring: what to compute, where, and which share of it.
    """
    if not forecasts:
        raise ValueError("There is nothing to score: name at least one forecast store.")
    outputs = score_outputs(request.output or forecasts[0].with_suffix(".scores.nc"), request.scorecard, scoring)
    require_outputs(outputs, [*forecasts, *request.inputs], overwrite=request.overwrite)
    from ladcast.commands.scoring import score_forecasts

    _, results = score_forecasts(forecasts, request, scoring)
    return results


def evaluate(
    store: Path,
    *,
    request: Annotated[EvaluationRequest, flat("The forecasts")],
    scoring: Annotated[Scoring, flat("How it is scored", 3)] = DEFAULT_SCORING,
    model: str = DEFAULT_MODEL,
) -> Results:
    """Make forecasts from many starts and score them at once; no fields are stored, and a stopped run goes on.

    Args:
        store: states to start from, which are also the truth.
        request: which forecasts to make.
        scoring: what to compute, where, and which share of it.
        model: name of an embedded model, or a checkpoint folder.
    """
    folder = find_model(model)
    outputs = score_outputs(request.output, request.scorecard, scoring)
    inputs = [store, request.analyses, request.climatology, folder.climatology, *folder.files]
    require_outputs(outputs, inputs, overwrite=request.overwrite)
    from ladcast.commands.evaluation import describe_maker, evaluation_sources, make_and_score
    from ladcast.commands.scoring import report, unreal_truth
    from ladcast.resumable import sole_writer

    # Without a folder that stays, what each start gives is kept until the scores are written.
    unfinished = request.output.with_name(f"{request.output.name}.partial")
    with sole_writer(request.output) if scoring.part is None else nullcontext():
        scores = make_and_score(store, folder, request, replace(scoring, sums=scoring.sums or unfinished))
        if scoring.part is not None:
            print(f"sums {scoring.sums}")
            return {}
        about = {
            **describe_maker(folder, request),
            **evaluation_sources(store, folder, request),
            "members": str(request.members),
        }
        about |= {"seed": str(request.seed), **unreal_truth(store)}
        results = report(scores, request.output, request.scorecard, scoring, about)
        remove(unfinished)
    return results


def merge(
    sums: Path,
    *,
    first: str | None = None,
    output: Path = Path("scores.nc"),
    scorecard: Path | None = None,
    block_days: float = 10.0,
    channels: tuple[str, ...] = (),
    overwrite: bool = False,
) -> Results:
    """Merge the sums that several processes wrote to one folder: to the bit what one process would have found.

    Args:
        sums: folder that `ladcast score --sums` or `ladcast evaluate --sums` wrote.
        first: system that the others are compared with.
        output: netCDF file for all scores.
        scorecard: .png, .pdf or .svg file for a scorecard; curves by lead time are drawn beside it.
        block_days: length of the blocks of the bootstrap.
        channels: what the table and the figures show, such as z500 t2m wind10, or all; by default the headline
            channels. The file of scores holds all.
        overwrite: replace existing outputs.
    """
    inputs, shown = [*sums.glob("*.json"), *sums.glob("*/*.nc")], Scoring(block_days=block_days, channels=channels)
    require_outputs(score_outputs(output, scorecard, shown), inputs, overwrite=overwrite)
    from ladcast.commands.scoring import report, unreal_truth
    from ladcast.verification.archive import merge_sums, read_claims

    scores, notes = merge_sums(sums, first)
    shown = replace(shown, regions=next(iter(scores.values())).regions)  # which have figures of their own
    require_outputs(score_outputs(output, scorecard, shown), inputs, overwrite=overwrite)
    if notes:
        print("\n".join(notes))
    claimed = read_claims(sums)[1]
    about = {"sums": str(sums), **claimed, **unreal_truth(claimed.get("truth", ""))}
    return report(scores, output, scorecard, shown, about, notes=notes)


def track(
    forecast: Path,
    *,
    storm: str | None = None,
    every: Annotated[bool, Parameter(name="--all")] = False,
    best_track: Path | None = None,
    against: tuple[str, ...] = (),
    config: Path | None = None,
    overrides: Overrides = (),
    output: Path | None = None,
    time: tuple[str, ...] = (),
    device: str = "cpu",
    overwrite: bool = False,
) -> Results:
    """Track cyclones in every member; one storm is also verified against its best track and drawn.

    Args:
        forecast: forecast (Zarr, latents, netCDF or GRIB), a series of analyses, or ensemble tracks of ECMWF (BUFR).
        storm: identifier of one storm in the best tracks, such as 2018271N06154; or --all.
        every: track all lows; with best tracks, also say which are observed storms.
        best_track: IBTrACS (.csv or .nc), HURDAT2 or a b-deck.
        against: tracks of other systems as NAME=FILE, in BUFR or as this command writes them (.nc), to compare with.
        config: YAML file with the storm, its start, and the rules of detection and stitching, or the name of one in
            configs/track.
        overrides: settings that win over the file, or over the defaults, such as detection.radius_deg=12.
        output: netCDF file of the tracks; CSV, GeoJSON and the figure lie beside it. By default beside the forecast.
        time: initial times, where the forecast has several; by default all.
        device: cpu or cuda.
        overwrite: replace existing outputs.
    """
    output = output or forecast.with_suffix(".tracks.nc")
    require_outputs(map(output.with_suffix, TRACK_FILES), [forecast, best_track], overwrite=overwrite)
    from ladcast.config import find_config, from_overrides, load_config
    from ladcast.cyclones import read_best_tracks, report, select_storm, write_tracks
    from ladcast.cyclones.tracker import TrackOptions

    config = None if config is None else find_config(config, "track")
    options = load_config(config, TrackOptions, overrides) if config else from_overrides(overrides, TrackOptions)
    options = options.asked(storm=storm, every=every, best_track=best_track, compare=bool(against))
    systems, suffixes = dict(map(_split, against)), TRACK_FILES if options.storm is None else (*TRACK_FILES, ".png")
    inputs = [forecast, options.best_track, config, *systems.values()]
    require_outputs(map(output.with_suffix, suffixes), inputs, overwrite=overwrite)
    if options.storm is not None:
        import ladcast.plots.tracks  # noqa: F401 - a figure that cannot be drawn is no surprise at the end
    best = None if options.best_track is None else read_best_tracks(options.best_track)
    best = best if best is None or options.storm is None else select_storm(best, options.storm)
    tracks = _find_tracks(forecast, options, best, time, device)
    written = [write_tracks(tracks, output.with_suffix(suffix)) for suffix in TRACK_FILES]
    lines = list(report.describe_tracks(tracks, best))
    if best is not None and tracks.sizes["point"]:
        others = {name: _read_system(path, options, best) for name, path in systems.items()}
        reports = {name: report.verify_tracks(table, best) for name, table in {"forecast": tracks, **others}.items()}
        lines += report.describe_errors(reports["forecast"])
        if others:
            reports = report.compare_systems(reports)
            lines += report.describe_comparison(reports)
        if options.storm is not None:
            written.append(_draw_storm(reports, output.with_suffix(".png")))
    print(said := "\n".join([*lines, f"tracks {', '.join(map(str, written))}"]))
    return {"tracks": said}


def _find_tracks(
    path: Path, options: TrackOptions, best: xr.Dataset | None, times: tuple[str, ...], device: str
) -> xr.Dataset:
    """Tracks a forecast or analyses, or reads the tracks of a system that has some."""
    from ladcast.cyclones.detection import CoarseGridError
    from ladcast.cyclones.formats import is_bufr
    from ladcast.cyclones.tracker import find_tracks
    from ladcast.device import find_device
    from ladcast.forecasts.open import open_tracked

    if path.is_file() and is_bufr(path):
        return _read_system(path, options, best)
    try:
        return find_tracks(open_tracked(path, times), options, best, device=str(find_device(device)))
    except CoarseGridError as error:
        raise ValueError(f"{error} {WIDER_RULES}") from None


def _read_system(path: Path, options: TrackOptions, best: xr.Dataset | None) -> xr.Dataset:
    """Reads the tracks of another system, of the storm and the times that are asked for, under the observed names."""
    from ladcast.cyclones import identify, read_tracks, select_storm

    tracks = options.cut_tracks(read_tracks(path))
    tracks = tracks if best is None else identify(tracks, best)
    return tracks if options.storm is None else select_storm(tracks.drop_vars("observed"), options.storm)


def _split(text: str) -> tuple[str, Path]:
    name, _, path = text.partition("=")
    if not path:
        raise ValueError(f"Expected --against NAME=FILE such as ecmwf=tracks.bufr, got '{text}'.")
    return name, Path(path)


def _draw_storm(reports: Mapping[str, TrackReport], output: Path) -> Path:
    """Draws the figure of one storm; of several initial times, the first."""
    import numpy as np

    from ladcast.cyclones import strike_probability
    from ladcast.grid import Grid
    from ladcast.plots.style import save_figure
    from ladcast.plots.tracks import draw_storm

    first = {name: report.first_forecast() for name, report in reports.items()}
    one, best = first["forecast"], first["forecast"].best
    within = (best["time"].values >= one.init_time) & (best["time"].values <= one.tracks["time"].values.max())
    storm = str(best["storm"].values[0])
    name = str(best["name"].values[0]).strip().capitalize() if "name" in best else ""
    verified = {name: report for name, report in first.items() if report.is_verified}
    figure = draw_storm(
        one.tracks,
        strike_probability(one.tracks, Grid.parse(DRAWN_GRID)),
        title=f"{name} ({storm})" if name else storm,
        mean=one.mean,
        best=best.isel(point=np.flatnonzero(within)),
        growth={name: report.growth for name, report in verified.items()},
        spread={name: report.spread for name, report in verified.items()},
    )
    return save_figure(figure, output)
