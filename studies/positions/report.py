"""The tables and the figure of the study of position encodings: each one beside GeoRoPE, with confidence intervals."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

BASELINE = "geo"
CONFIDENCE = 0.95
INK = "#0072b2"
Rows = Sequence[dict[str, Any]]

TABLES = {
    "loss": {
        "train_loss": "training data",
        "test_loss_4f": "test data",
        "test_loss_8f": "8 frames",
        "test_loss_16f": "16 frames",
        "other_grid_loss": "other grid",
    },
    **{
        f"{channel} CRPS, {unit}": {f"{channel}_crps_{day}d_4f": f"{day} d" for day in (1, 5, 10)}
        for channel, unit in (("z500", "m2 s-2"), ("t850", "K"), ("q700", "kg kg-1"))
    },
    "z500 CRPS, 4 d": {f"z500_crps_4d_{frames}f": f"{frames} frames a call" for frames in (4, 8, 16)},
    "z500, places": {
        "z500_crps_5d_4f_seam": "CRPS near 0 E, 5 d",
        "seam_jump": "jump at 0 E",
        "z500_crps_5d_4f_polar": "CRPS poleward of 60, 5 d",
    },
    "cost": {"gib": "peak GiB"},
}
"""Measures by table: the name in the results, and the heading of its column."""
PANELS = (
    "test_loss_4f",
    "z500_crps_1d_4f",
    "z500_crps_5d_4f",
    "z500_crps_5d_4f_seam",
    "z500_crps_5d_4f_polar",
    "test_loss_16f",
    "z500_crps_4d_16f",
    "other_grid_loss",
)


def read_rows(path: Path, digest: str) -> list[dict[str, Any]]:
    """Reads the finished cells of one study."""
    lines = path.read_text().splitlines() if path.is_file() else []
    rows = []
    for line in lines:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            print(f"{path}: left out a line that is not whole: {line[:60]}")
    return [row for row in rows if row["study"] == digest]


def interval(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Returns the mean and the half width of its confidence interval over seeds (Student's t; NaN for one seed)."""
    from scipy.stats import t

    if len(values) < 2:
        return float(values.mean()), np.nan
    spread = values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean()), float(t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * spread)


def by_seed(rows: Rows, encoding: str, column: str) -> dict[int, float]:
    """Returns the values of one encoding, by seed."""
    return {row["seed"]: row[column] for row in rows if row["encoding"] == encoding and column in row}


def difference(rows: Rows, encoding: str, column: str) -> tuple[float, float]:
    """Returns how many percent above the baseline an encoding is, seed by seed, with its interval."""
    ours, theirs = (by_seed(rows, name, column) for name in (encoding, BASELINE))
    common = sorted(ours.keys() & theirs.keys())
    if not common:
        return np.nan, np.nan
    return interval(np.array([100 * (ours[seed] / theirs[seed] - 1) for seed in common]))


def tables(rows: Rows) -> str:
    """Lays out all measures in Markdown: mean over seeds and, in percent of the baseline, difference and interval."""
    encodings = list(dict.fromkeys(row["encoding"] for row in rows))
    parts = []
    for title, columns in TABLES.items():
        known = {column: heading for column, heading in columns.items() if any(column in row for row in rows)}
        if known:
            lines = [f"| {title} | {' | '.join(known.values())} |", f"|---|{'---|' * len(known)}"]
            lines += [
                f"| `{name}` | {' | '.join(_cell(rows, name, column) for column in known)} |" for name in encodings
            ]
            parts.append("\n".join(lines))
    seeds = ", ".join(f"{name} {_seeds(rows, name)}" for name in encodings)
    return "\n\n".join([*parts, f"Seeds: {seeds}.", *_floor(rows)])


def _floor(rows: Rows) -> list[str]:
    errors = [row["z500_decoded"] for row in rows if "z500_decoded" in row]
    return [f"Mean absolute error of the decoded truth in z500: {np.mean(errors):.3g} m2 s-2."] if errors else []


def _seeds(rows: Rows, encoding: str) -> str:
    ours = [row for row in rows if row["encoding"] == encoding]
    failed = sum("failed" in row for row in ours)
    return f"{len(ours)} ({failed} without forecasts)" if failed else str(len(ours))


def _cell(rows: Rows, encoding: str, column: str) -> str:
    values = by_seed(rows, encoding, column)
    if not values:
        return "-"
    mean = f"{np.mean(list(values.values())):.4g}"
    shift, half = difference(rows, encoding, column)
    if encoding == BASELINE or np.isnan(shift):
        return mean
    return f"{mean} ({shift:+.1f} %)" if np.isnan(half) else f"{mean} ({shift:+.1f} ± {half:.1f} %)"


def heading(column: str) -> str:
    """Returns the title of a measure outside its table."""
    title, text = next((title, columns[column]) for title, columns in TABLES.items() if column in columns)
    return f"{title.partition(',')[0]}: {text}"


def draw(rows: Rows, path: Path) -> None:
    """Draws the difference to the baseline with its interval: a panel for each measure, a line for each encoding."""
    from matplotlib.figure import Figure

    encodings = [name for name in dict.fromkeys(row["encoding"] for row in rows) if name != BASELINE]
    panels = [column for column in PANELS if any(column in row for row in rows)]
    figure = Figure(figsize=(11, 1.2 + 0.5 * len(encodings)), layout="constrained")
    grid = figure.subplots(2, -(-len(panels) // 2), sharey=True, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes, column in zip(grid.flat, panels, strict=False):
        centres, halves = np.array([difference(rows, name, column) for name in encodings]).reshape(-1, 2).T
        axes.axvline(0, color="0.6", linewidth=0.8)
        axes.errorbar(centres, range(len(encodings)), xerr=np.nan_to_num(halves), fmt="o", markersize=4, color=INK)
        _cut(axes, centres, halves)
        axes.set_yticks(range(len(encodings)), encodings, fontsize=8)
        axes.set_title(heading(column), fontsize=9)
        axes.tick_params(axis="x", labelsize=8)
        axes.locator_params(axis="x", nbins=5)
    grid[0, 0].invert_yaxis()  # the panels share it
    figure.supxlabel(f"percent above {BASELINE}, {CONFIDENCE:.0%} interval over seeds", fontsize=9)
    figure.savefig(path, dpi=150)


def _cut(axes: Any, centres: npt.NDArray[np.float64], halves: npt.NDArray[np.float64]) -> None:
    """Limits an axis to most values where a few would squeeze them, and writes those at its edge."""
    ends = np.abs(centres) + np.nan_to_num(halves)
    limit = 1.2 * max(np.nanquantile(ends, 0.75), 1e-3) if np.isfinite(ends).any() else np.inf
    if np.nanmax(ends, initial=0) <= 2 * limit:
        return
    axes.set_xlim(-limit, limit)
    for row in np.flatnonzero(np.abs(centres) > limit):
        text, at, side = (
            (f"{centres[row]:+.0f} % →", 0.98, "right")
            if centres[row] > 0
            else (f"← {centres[row]:+.0f} %", 0.02, "left")
        )
        axes.text(at, row, text, transform=axes.get_yaxis_transform(), fontsize=7, va="center", ha=side)


def write_report(rows: Rows, folder: Path) -> str:
    """Writes table.md and figure.png beside the results and returns the tables."""
    if not rows:
        return "No cell is finished yet."
    text = tables(rows)
    (folder / "table.md").write_text(text + "\n")
    draw(rows, folder / "figure.png")
    return text
