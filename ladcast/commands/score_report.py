"""What becomes of scores: a table, a scorecard and curves, `scores.nc`, and folders of sums that merge."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ladcast.commands.score_options import FLOOR
from ladcast.times import DAY, describe
from ladcast.verification import Accumulator, Blocks, compare, format_table, intervals
from ladcast.verification import write_scores as write_file
from ladcast.verification.bootstrap import SINGLE
from ladcast.verification.plain import plain_scores
from ladcast.verification.table import ALL, choose_channels, count_of

SHOWN_DAYS = (1, 2, 3, 4, 5, 7, 10, 15)
METRICS = ("fair_crps", "rmse")


def report(
    systems: Mapping[str, Accumulator],
    output: Path,
    scorecard: Path | None,
    *,
    block_days: float,
    about: Mapping[str, str],
    channels: Sequence[str] = (),
) -> dict[str, Any]:
    """Writes the scores, prints the table and, where asked for, draws the figures; returns the scores for machines.

    Table and figures show `channels`, by default the headline ones; the scores are those of all.
    """
    blocks = Blocks(days=block_days)
    path = write_scores(systems, output, about)
    print(table(systems, blocks, channels))
    print(f"scores {path}")
    if scorecard is not None:
        for figure in draw(systems, blocks, scorecard, channels):
            print(f"figure {figure}")
    return {"scores_file": path, "scores": plain_scores({name: sums.metrics() for name, sums in systems.items()})}


def compared(notes: Sequence[str]) -> dict[str, str]:
    """Returns what was left out of a comparison as an attribute of the scores."""
    return {"comparison": " ".join(notes)} if notes else {}


def competitors(systems: Mapping[str, Accumulator]) -> dict[str, Accumulator]:
    """Returns the systems without the autoencoder's floor, which is no forecast."""
    return {name: scores for name, scores in systems.items() if name != FLOOR}


def why_no_intervals(systems: Mapping[str, Accumulator], blocks: Blocks) -> str:
    """Says why the starts are too few for intervals; empty where they are not."""
    try:
        blocks.counts(next(iter(systems.values())).starts)
    except ValueError as error:
        return str(error)
    return ""


def comparisons(systems: Mapping[str, Accumulator], blocks: Blocks, region: str | None = None) -> dict[str, xr.Dataset]:
    """Compares the first system with each other one; where starts are too few, intervals are NaN."""
    first, *others = systems
    if not why_no_intervals(systems, blocks):
        return {
            name: compare(systems[first], systems[name], metrics=METRICS, region=region, blocks=blocks)
            for name in others
        }
    ours = _values(systems[first], region)
    return {name: _plain_comparison(*xr.align(ours, _values(systems[name], region))) for name in others}


def _values(scores: Accumulator, region: str | None) -> xr.DataArray:
    """Returns the compared metrics, of a single forecast the absolute error for its CRPS."""
    found = scores.metrics(region)
    names = [SINGLE.get(name, name) if scores.members == 1 else name for name in METRICS]
    axis = xr.DataArray(list(METRICS), dims="metric", name="metric")
    return xr.concat([found[name].drop_attrs() for name in names], axis)


def _plain_comparison(ours: xr.DataArray, theirs: xr.DataArray) -> xr.Dataset:
    difference = ours - theirs
    unknown = xr.full_like(difference, np.nan)
    fields = {"difference": difference, "relative": difference / theirs, "lower": unknown, "upper": unknown}
    return xr.Dataset(fields)


def table(systems: Mapping[str, Accumulator], blocks: Blocks, channels: Sequence[str] = ()) -> str:
    """Formats the metrics for people: whole days and the last lead time, with intervals of differences.

    The floor of the autoencoder has no CRPS: its absolute error does not bound that of an ensemble.
    """
    metrics = {name: scores.metrics() for name, scores in systems.items()}
    if FLOOR in metrics:
        metrics[FLOOR] = metrics[FLOOR].drop_vars("mae")
    note = why_no_intervals(systems, blocks)
    differences = {} if note else comparisons(competitors(systems), blocks)
    scored = next(iter(metrics.values()))
    held = [str(name) for name in scored["channel"].values]
    chosen = choose_channels(held, channels)
    days = (scored["prediction_timedelta"].values / DAY).tolist()
    text = format_table(
        metrics,
        headline=[*chosen, *(name for name in channels if name not in (*held, ALL))],
        leads_days=[day for day in SHOWN_DAYS if day in days[:-1]] + days[-1:],
        differences=differences,
    )
    legend = (
        f"first - this: difference with the {blocks.level:.0%} interval, blocks of {blocks.days:g} days; * significant"
    )
    some = f"{len(chosen)} of {count_of(len(held), 'channel')} shown; --channels {ALL} shows every one."
    return "\n".join([text, *([legend] * bool(differences)), *([some] * (chosen != held)), *([note] * bool(note))])


def draw(
    systems: Mapping[str, Accumulator], blocks: Blocks, path: Path, channels: Sequence[str] = ()
) -> Iterator[Path]:
    """Draws a scorecard for each region, and curves by lead time of the first one; yields the files.

    The floor of the autoencoder is no competitor: it is among the curves only, and not among those of the CRPS.
    Where starts are too few for intervals, there are no dots and no bands.

    Raises:
        ValueError: there is no other system to compare with, or none of the channels.
    """
    from ladcast.plots.scorecards import draw_curves, draw_scorecard, heading
    from ladcast.plots.style import save_figure

    rivals = competitors(systems)
    if len(rivals) < 2:
        raise ValueError("A scorecard compares with another system, and there is none. Add --against or --climatology.")
    first, regions = next(iter(rivals)), next(iter(rivals.values())).regions
    starts = count_of(len(rivals[first].starts), "start")
    for region in regions:
        card = draw_scorecard(
            comparisons(rivals, blocks, region), channels=channels, title=f"{first}, {region}: fair CRPS, {starts}"
        )
        place = path if region == regions[0] else path.with_name(f"{path.stem}_{region}{path.suffix}")
        yield save_figure(card, place, dpi=200)
    for metric in METRICS:
        drawn = rivals if metric == "fair_crps" else rivals | {name: systems[name] for name in systems if name == FLOOR}
        title = f"{heading(metric)}\n{regions[0]}, {starts}"
        curves = draw_curves(_with_bands(drawn, blocks), metric=metric, channels=channels, title=title)
        yield save_figure(curves, path.with_name(f"{path.stem}_{metric}{path.suffix}"), dpi=200)


def _with_bands(systems: Mapping[str, Accumulator], blocks: Blocks) -> dict[str, xr.Dataset]:
    if why_no_intervals(systems, blocks):
        return {name: scores.metrics() for name, scores in systems.items()}
    return {name: intervals(scores, metrics=METRICS, blocks=blocks) for name, scores in systems.items()}


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
