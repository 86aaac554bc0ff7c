"""What becomes of scores: a table, a scorecard and curves, `scores.nc`, and folders of sums that merge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import xarray as xr

from ladcast.tasks.score_request import FLOOR
from ladcast.times import DAY, describe
from ladcast.verification import Accumulator, Blocks, compare, format_table, intervals
from ladcast.verification import write_scores as write_file
from ladcast.verification.plain import plain_scores
from ladcast.verification.table import HEADLINE

SHOWN_DAYS = (1, 2, 3, 4, 5, 7, 10, 15)
METRICS = ("fair_crps", "rmse")
TITLES = {
    "fair_crps": "Fair CRPS (of a single forecast: its mean absolute error)",
    "rmse": "RMSE of the ensemble mean",
}


def report(
    systems: Mapping[str, Accumulator],
    output: Path,
    scorecard: Path | None,
    *,
    block_days: float,
    about: Mapping[str, str],
    channels: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Prints the table, writes the scores and, where asked for, draws the figures; returns the scores for machines.

    The table and the figures show `channels`, by default those of `HEADLINE`; the file holds all.
    """
    blocks = Blocks(days=block_days)
    shown = shown_channels(systems, channels)
    print(table(systems, blocks, shown))
    compared = {"comparison": " ".join(notes)} if notes else {}
    path = write_scores(systems, output, {**about, **compared})
    print(f"scores {path}")
    if scorecard is not None:
        for figure in draw(systems, blocks, scorecard, shown):
            print(f"figure {figure}")
    return {"scores_file": path, "scores": plain_scores({name: sums.metrics() for name, sums in systems.items()})}


def shown_channels(systems: Mapping[str, Accumulator], asked: Sequence[str] = ()) -> list[str]:
    """Returns the channels to show: those asked for (`all` for all), else the headline channels that there are.

    Raises:
        ValueError: no system was scored on a channel that is asked for.
    """
    held = list(dict.fromkeys(str(name) for sums in systems.values() for name in sums.metrics()["channel"].values))
    if "all" in asked:
        return held
    if unknown := [name for name in asked if name not in held]:
        raise ValueError(f"No scores of {', '.join(unknown)}: there are {', '.join(held)}.")
    return list(asked) or [name for name in HEADLINE if name in held] or held


def comparisons(
    systems: Mapping[str, Accumulator], blocks: Blocks, region: str | None = None
) -> tuple[dict[str, xr.Dataset], list[str]]:
    """Compares the first system with each other one; where starts are too few for intervals, says so instead."""
    first, *others = systems
    try:
        return {
            name: compare(systems[first], systems[name], metrics=METRICS, region=region, blocks=blocks)
            for name in others
        }, []
    except ValueError as error:
        return {}, [str(error)]


def table(systems: Mapping[str, Accumulator], blocks: Blocks, channels: Sequence[str]) -> str:
    """Formats the metrics of some channels for people, at whole days, with intervals of differences.

    The autoencoder's absolute error is no floor for the CRPS of an ensemble, so it is not put beside that.
    """
    metrics = {name: scores.metrics() for name, scores in systems.items()}
    metrics = {name: ds.drop_vars("mae", errors="ignore") if name == FLOOR else ds for name, ds in metrics.items()}
    differences, notes = comparisons(systems, blocks)
    leads = next(iter(metrics.values()))["prediction_timedelta"].values / DAY
    whole = leads[leads == leads.round()]
    days = [day for day in SHOWN_DAYS if day in leads and day < whole.max(initial=0)] + whole[-1:].tolist()
    text = format_table(metrics, headline=channels, leads_days=days, differences=differences)
    legend = (
        f"first - this: difference with the {blocks.level:.0%} interval, blocks of {blocks.days:g} days; * significant"
    )
    return "\n".join([text, *([legend] if differences else []), *notes])


def draw(systems: Mapping[str, Accumulator], blocks: Blocks, path: Path, channels: Sequence[str]) -> list[Path]:
    """Draws a scorecard for each region, and curves by lead time of the first one; returns the files.

    The floor of the autoencoder is no competitor: it is among the curves of the RMSE only. Where there are too few
    starts for intervals, there is no scorecard, and curves have no bands.

    Raises:
        ValueError: there is no other system to compare with.
    """
    from ladcast.plots.scorecards import draw_curves, draw_scorecard, save_figure

    first, *others = (name for name in systems if name != FLOOR)
    if not others:
        raise ValueError("A scorecard compares with another system, and there is none. Add --against or --climatology.")
    regions = systems[first].regions
    files = []
    for region in regions:
        differences, _ = comparisons({name: systems[name] for name in (first, *others)}, blocks, region)
        if not differences:
            break
        title = f"{first}, {region}: fair CRPS, {len(systems[first].starts)} starts"
        place = path if region == regions[0] else path.with_name(f"{path.stem}_{region}{path.suffix}")
        files.append(save_figure(draw_scorecard(differences, channels=channels, title=title), place))
    enough_starts = bool(files)
    for metric in METRICS:
        lines = {
            name: intervals(scores, metrics=METRICS, blocks=blocks) if enough_starts else scores.metrics()
            for name, scores in systems.items()
            if name != FLOOR or metric != "fair_crps"
        }
        held = [name for name in channels if any(name in line["channel"].values for line in lines.values())]
        place = path.with_name(f"{path.stem}_{metric}{path.suffix}")
        files.append(save_figure(draw_curves(lines, metric=metric, channels=held, title=TITLES[metric]), place))
    return files


def write_scores(systems: Mapping[str, Accumulator], output: Path, provenance: Mapping[str, str]) -> Path:
    """Writes all metrics of all systems to one netCDF file, with where they come from."""
    made = datetime.now(UTC).isoformat(timespec="seconds")
    starts = next(iter(systems.values())).starts
    about = {
        "source": f"ladcast {version('ladcast')}",
        "history": f"{made} scored by ladcast {version('ladcast')}, numpy {version('numpy')}, torch {version('torch')}",
        "initial_times": " ".join(describe(start) for start in starts),
    }
    return write_file(systems, output, about | dict(provenance))
