"""How systems compare: the first with each other one, with intervals where there are initial times enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from ladcast.times import DAY
from ladcast.verification.accumulate import Accumulator
from ladcast.verification.bootstrap import SINGLE, BlockBootstrap, compare
from ladcast.verification.table import ALL, choose_channels, count_of, format_table

FLOOR = "autoencoder floor"
"""What the system is called that encodes and decodes the truth."""
TABLE_DAYS = (1, 2, 3, 4, 5, 7, 10, 15)
COMPARED = ("fair_crps", "rmse")


def competitors(systems: Mapping[str, Accumulator]) -> dict[str, Accumulator]:
    """Returns the systems without the autoencoder's floor, which is no forecast."""
    return {name: scores for name, scores in systems.items() if name != FLOOR}


def why_no_intervals(systems: Mapping[str, Accumulator], bootstrap: BlockBootstrap) -> str:
    """Says why the starts are too few for intervals; empty where they are not."""
    try:
        bootstrap.counts(next(iter(systems.values())).init_times)
    except ValueError as error:
        return str(error)
    return ""


def compare_with_first(
    systems: Mapping[str, Accumulator], bootstrap: BlockBootstrap, region: str | None = None
) -> dict[str, xr.Dataset]:
    """Compares the first system with each other one; where starts are too few, intervals are NaN."""
    first, *others = systems
    if not why_no_intervals(systems, bootstrap):
        return {
            name: compare(systems[first], systems[name], metrics=COMPARED, region=region, bootstrap=bootstrap)
            for name in others
        }
    ours = _values(systems[first], region)
    return {name: _plain_comparison(*xr.align(ours, _values(systems[name], region))) for name in others}


def _values(scores: Accumulator, region: str | None) -> xr.DataArray:
    """Returns the compared metrics, of a single forecast the absolute error for its CRPS."""
    found = scores.metrics(region)
    names = [SINGLE.get(name, name) if scores.members == 1 else name for name in COMPARED]
    axis = xr.DataArray(list(COMPARED), dims="metric", name="metric")
    return xr.concat([found[name].drop_attrs() for name in names], axis)


def _plain_comparison(ours: xr.DataArray, theirs: xr.DataArray) -> xr.Dataset:
    difference = ours - theirs
    unknown = xr.full_like(difference, np.nan)
    fields = {"difference": difference, "relative": difference / theirs, "lower": unknown, "upper": unknown}
    return xr.Dataset(fields)


def score_table(systems: Mapping[str, Accumulator], bootstrap: BlockBootstrap, channels: Sequence[str] = ()) -> str:
    """Formats the metrics for people: whole days and the last lead time, with intervals of differences.

    The floor of the autoencoder has no CRPS: its absolute error does not bound that of an ensemble.
    """
    metrics = {name: scores.metrics() for name, scores in systems.items()}
    if FLOOR in metrics:
        metrics[FLOOR] = metrics[FLOOR].drop_vars("mae")
    note = why_no_intervals(systems, bootstrap)
    differences = {} if note else compare_with_first(competitors(systems), bootstrap)
    scored = next(iter(metrics.values()))
    held = [str(name) for name in scored["channel"].values]
    chosen = choose_channels(held, channels)
    days = (scored["prediction_timedelta"].values / DAY).tolist()
    text = format_table(
        metrics,
        headline=[*chosen, *(name for name in channels if name not in (*held, ALL))],
        leads_days=[day for day in TABLE_DAYS if day in days[:-1]] + days[-1:],
        differences=differences,
    )
    interval = f"{bootstrap.level:.0%} interval, blocks of {bootstrap.days:g} days"
    lines = [text]
    if differences:
        lines.append(f"first - this: difference with the {interval}; * significant")
    if chosen != held:
        lines.append(f"{len(chosen)} of {count_of(len(held), 'channel')} shown; --channels {ALL} shows every one.")
    return "\n".join([*lines, note] if note else lines)
