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

SHOWN_DAYS = (1, 2, 3, 4, 5, 7, 10, 15)
METRICS = ("fair_crps", "rmse")


def report(
    systems: Mapping[str, Accumulator],
    output: Path,
    scorecard: Path | None,
    *,
    block_days: float,
    about: Mapping[str, str],
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Prints the table, writes the scores and, where asked for, draws the figures; returns the scores for machines."""
    blocks = Blocks(days=block_days)
    print(table(systems, blocks))
    compared = {"comparison": " ".join(notes)} if notes else {}
    path = write_scores(systems, output, {**about, **compared})
    print(f"scores {path}")
    if scorecard is not None:
        for figure in draw(systems, blocks, scorecard):
            print(f"figure {figure}")
    return {"scores_file": path, "scores": plain_scores({name: sums.metrics() for name, sums in systems.items()})}


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


def table(systems: Mapping[str, Accumulator], blocks: Blocks) -> str:
    """Formats the metrics for people: the channels that were scored, at whole days, with intervals of differences."""
    metrics = {name: scores.metrics() for name, scores in systems.items()}
    differences, notes = comparisons(systems, blocks)
    scored = next(iter(metrics.values()))
    leads = scored["prediction_timedelta"].values / DAY
    text = format_table(
        metrics,
        headline=tuple(map(str, scored["channel"].values)),
        leads_days=[days for days in SHOWN_DAYS if days in leads],
        differences=differences,
    )
    legend = (
        f"first - this: difference with the {blocks.level:.0%} interval, blocks of {blocks.days:g} days; * significant"
    )
    return "\n".join([text, *([legend] if differences else []), *notes])


def draw(systems: Mapping[str, Accumulator], blocks: Blocks, path: Path) -> list[Path]:
    """Draws a scorecard for each region, and curves by lead time of the first one; returns the files.

    The floor of the autoencoder is no competitor: it is among the curves only.

    Raises:
        ValueError: there are too few starts for intervals, or no other system to compare with.
    """
    from ladcast.plots.scorecards import draw_curves, draw_scorecard, save_figure

    first, *others = (name for name in systems if name != FLOOR)
    if not others:
        raise ValueError("A scorecard compares with another system, and there is none. Add --against or --climatology.")
    regions = systems[first].regions
    files = []
    for region in regions:
        differences, notes = comparisons({name: systems[name] for name in (first, *others)}, blocks, region)
        if not differences:
            raise ValueError(f"No scorecard: {notes[0]}")
        title = f"{first}, {region}: fair CRPS, {len(systems[first].starts)} starts"
        place = path if region == regions[0] else path.with_name(f"{path.stem}_{region}{path.suffix}")
        files.append(save_figure(draw_scorecard(differences, title=title), place))
    with_bands = {name: intervals(scores, metrics=METRICS, blocks=blocks) for name, scores in systems.items()}
    for metric in METRICS:
        place = path.with_name(f"{path.stem}_{metric}{path.suffix}")
        files.append(save_figure(draw_curves(with_bands, metric=metric), place))
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
