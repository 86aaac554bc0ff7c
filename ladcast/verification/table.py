"""Scores as one compact text table for people, and as plain numbers for JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from ladcast.fields import TABLE_CHANNELS
from ladcast.times import DAY, HOUR, describe
from ladcast.verification.statistics import METRICS

ALL = "all"
"""Stands for every channel."""
READ_AS = {"m": ("mm", 1e3), "kg kg-1": ("g kg-1", 1e3)}
"""Units in files -> what people read, and the factor to it; of those in metres only precipitation is a channel."""
LEADS_DAYS = (1.0, 3.0, 5.0, 7.0, 10.0, 15.0)
MOST_LEADS = 8


def choose_channels(held: Iterable[str], wanted: Sequence[str] = ()) -> list[str]:
    """Returns which of the channels to show: those wanted, `all`, or by default the headline ones.

    Wanted ones that nothing holds are left out. Where there is no headline channel, all stand for them.

    Raises:
        ValueError: none of the wanted channels is there.
    """
    present = list(dict.fromkeys(held))
    if ALL in wanted:
        return present
    chosen = [name for name in dict.fromkeys(wanted or TABLE_CHANNELS) if name in present]
    if wanted and not chosen:
        raise ValueError(f"No system has {', '.join(wanted)}. There are: {', '.join(present)}.")
    return chosen or present


def readable_units(units: str) -> tuple[str, float]:
    """Returns the units that people read, such as mm for m of precipitation, and the factor to them."""
    return READ_AS.get(units, (units, 1.0))


def count_of(number: int, thing: str) -> str:
    """Returns a count with its noun, such as `1 start` or `31 starts`."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def format_table(
    scores: Mapping[str, xr.Dataset],
    headline: Sequence[str] = TABLE_CHANNELS,
    leads_days: Sequence[int | float] = LEADS_DAYS,
    *,
    differences: Mapping[str, xr.Dataset] | None = None,
) -> str:
    """Lays out systems (name -> `Accumulator.metrics()`) in rows under each channel, lead days in columns.

    `differences` maps a system to `compare(first system, that one)`: the row below it says by how many per cent the
    first system differs, with half the width of the confidence interval, and a star where that leaves out zero.
    A lead time or channel that no system has is left out and named in the last line; where there are none of the lead
    times, up to `MOST_LEADS` of those that there are stand for them. Precipitation is in mm, humidity in g/kg.

    Raises:
        ValueError: there is no system, or the systems were scored on different starts.
    """
    if not scores:
        raise ValueError("There are no scores to print: expected at least one system.")
    _require_same_starts(scores)
    held = np.unique(np.concatenate([ds["prediction_timedelta"].values for ds in scores.values()]))
    # evenly spread, with the last
    some = (held / DAY)[::-1][:: -(-len(held) // MOST_LEADS)][::-1].tolist()
    leads = [days for days in leads_days if _lead(days) in held] or some
    channels = [name for name in headline if any(name in ds["channel"].values for ds in scores.values())]
    starts = np.sort(next(iter(scores.values()))["start"].values)
    span = f": {describe(starts)}" if len(starts) == 1 else f" from {describe(starts[0])} to {describe(starts[-1])}"
    sizes = [f"{system}: {_members(ds.attrs['members'])}" for system, ds in scores.items()]
    lines = [f"{count_of(len(starts), 'start')}{span}.\n{', '.join(sizes)}."]
    for title in dict.fromkeys(metric.section for metric in METRICS.values() if metric.section):
        metrics = [name for name, metric in METRICS.items() if metric.section == title]
        rows = list(_rows(scores, channels, leads, metrics=metrics, differences=differences or {}))
        if rows:
            lines += ["", title, _row("", "", "system", [f"{days:g} d" for days in leads]), *rows]
    left_out = [name for name in headline if name not in channels] + [f"{d:g} d" for d in leads_days if d not in leads]
    return "\n".join([*lines, *([f"\nNot scored: {', '.join(left_out)}"] if left_out else [])])


def _rows(
    scores: Mapping[str, xr.Dataset],
    channels: Sequence[str],
    leads: Sequence[int | float],
    *,
    metrics: Sequence[str],
    differences: Mapping[str, xr.Dataset],
) -> Iterator[str]:
    with_units = METRICS[metrics[0]].units != "1"
    for channel in channels:
        label = channel
        for system, ds in scores.items():
            metric = next((name for name in metrics if name in ds), None)
            if metric is None or channel not in ds["channel"].values:
                continue
            units, factor = readable_units(str(ds["channel_units"].sel(channel=channel).item()))
            units, factor = (units, factor) if with_units else ("", 1.0)
            at = factor * ds[metric].sel(channel=channel)
            known = dict(zip(at["prediction_timedelta"].values, at.values.tolist(), strict=True))
            cells = [_number(known.get(_lead(days), np.nan)) for days in leads]
            if set(cells) == {"-"}:
                continue
            yield _row(label, units if label else "", system, cells)
            label = ""
            if system in differences and metrics[0] in differences[system]["metric"].values:
                change = differences[system].sel(metric=metrics[0])
                if channel in change["channel"].values:
                    yield _row("", "", "  first - this", [_change(change, channel, days) for days in leads])


def _row(channel: str, units: str, system: str, cells: Sequence[str]) -> str:
    return f"{channel:<9}{units:<9}{system:<18}" + "".join(f" {cell:>9}" for cell in cells)


def _number(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.4g}"


def _change(change: xr.Dataset, channel: str, days: int | float) -> str:
    """Writes a difference in per cent with half its interval, and a star where it is significant."""
    if _lead(days) not in change["prediction_timedelta"].values:
        return "-"
    at = change.sel(channel=channel, prediction_timedelta=_lead(days))
    difference, lower, upper = (float(at[name]) for name in ("difference", "lower", "upper"))
    if not np.isfinite(at["relative"]):  # no score, or a reference without error, as of an SST that is kept
        return "-"
    percent = 100 * float(at["relative"]) / difference if difference else 0.0
    star = "*" if lower > 0 or upper < 0 else " "
    return f"{percent * difference:+.0f}±{abs(percent) * (upper - lower) / 2:.0f}%{star}"


def _lead(days: int | float) -> np.timedelta64:
    return np.timedelta64(round(days * 86_400_000_000_000), "ns")


def _require_same_starts(scores: Mapping[str, xr.Dataset]) -> None:
    first, *others = scores
    for other in others:
        if not np.array_equal(scores[first]["start"].values, scores[other]["start"].values):
            raise ValueError(
                f"'{first}' was scored on {describe(scores[first]['start'].values)}, '{other}' on "
                f"{describe(scores[other]['start'].values)}. Score all systems on the same starts."
            )


def _members(count: int | float) -> str:
    if np.isinf(count):
        return "normal distribution"
    return "single forecast" if count == 1 else count_of(int(count), "member")


def plain_scores(metrics: Mapping[str, xr.Dataset]) -> dict[str, Any]:
    """Returns `system -> channel -> metric -> one number for each of "lead_hours"`, and those lead times.

    These are the lead times of all systems together; a number is NaN (in JSON null) where a system lacks one.
    """
    leads = np.unique(np.concatenate([scores["prediction_timedelta"].values for scores in metrics.values()]))
    systems = {system: _by_channel(scores.reindex(prediction_timedelta=leads)) for system, scores in metrics.items()}
    return {"lead_hours": (leads / HOUR).tolist(), **systems}


def _by_channel(scores: xr.Dataset) -> dict[str, dict[str, list[float]]]:
    by_lead = scores[[name for name, metric in scores.data_vars.items() if "prediction_timedelta" in metric.dims]]
    values = {str(name): metric.transpose("channel", ...).values.tolist() for name, metric in by_lead.data_vars.items()}
    return {
        str(channel): {name: rows[index] for name, rows in values.items()}
        for index, channel in enumerate(scores["channel"].values)
    }
