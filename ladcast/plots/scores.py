"""Figures of a file of scores: a metric by lead time, rank histograms, spectra."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import cycle

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ladcast.plots.scorecards import SYSTEM_COLOURS, draw_curves, heading, title_in
from ladcast.plots.style import BLACK, INK, SMALL_PT, new_figure, quiet, unreal_note
from ladcast.times import DAY, HOUR
from ladcast.verification.archive import metrics_of
from ladcast.verification.statistics import METRICS
from ladcast.verification.table import choose_channels, count_of

SHOWN_DAYS = (1.0, 3.0, 5.0, 10.0)
SPECTRA = {"zonal": "wavenumber", "spherical": "degree"}
"""The axis of each kind of spectrum."""
LINES = {"truth": (BLACK, "-"), "members": (None, "-"), "mean": (None, "--")}
"""Colour (None: that of the system) and style of the spectra of each."""


def draw_scores(scores: xr.Dataset, figure: str = "fair_crps", *, channels: Sequence[str] = ()) -> Figure:
    """Draws scores as `ladcast score` writes them, of the first region and all seasons.

    Args:
        scores: what `scores_dataset` returned, or such a file.
        figure: `ranks`, `spectra`, or a metric by lead time.
        channels: by default the headline ones.

    Raises:
        ValueError: there is no such figure, or the scores lack what it shows.
    """
    curves = [name for name, about in METRICS.items() if not about.axes and name in scores]
    title = f"{scores['region'].values[0]}, {count_of(len(_starts(scores)), 'start')}{unreal_note(scores.attrs)}"
    if figure == "ranks":
        return draw_ranks(scores, channels=channels, title=title)
    if figure == "spectra":
        return draw_spectra(scores, channels=channels, title=title)
    if figure not in curves:
        raise ValueError(f"Expected a figure of scores: ranks, spectra, or one of {', '.join(curves)}; got '{figure}'.")
    return draw_curves(metrics_of(scores), metric=figure, channels=channels, title=f"{heading(figure)}\n{title}")


def _starts(scores: xr.Dataset) -> list[str]:
    return str(scores.attrs.get("initial_times", "")).split()


def draw_ranks(scores: xr.Dataset, *, channels: Sequence[str] = (), title: str = "") -> Figure:
    """Draws how often the truth has each rank among the members: channels in rows, some lead times in columns.

    1 is what a calibrated ensemble has everywhere: more at both ends is too little spread, more in the middle too much,
    a slope a bias. Ranks are shown as the share of the members below the truth, so that ensembles of different sizes
    compare.

    Raises:
        ValueError: no system has ranks (`--statistics ranks`), or none of the channels.
    """
    systems = _holding(scores, "rank_frequency", "--statistics ranks")
    rows = choose_channels((name for ds in systems.values() for name in _known(ds["rank_frequency"])), channels)
    leads = _shown_leads(next(iter(systems.values())))
    figure, panels = _panels(rows, leads, (1.9, 1.35))
    for (row, channel), (column, lead), axes in panels:
        for (name, ds), colour in zip(systems.items(), cycle(SYSTEM_COLOURS), strict=False):
            frequency = ds["rank_frequency"].sel(channel=channel, prediction_timedelta=lead).dropna("rank").values
            edges = np.linspace(0, 1, len(frequency) + 1)
            axes.stairs(frequency, edges, color=colour, linewidth=1.2, label=name)
            axes.stairs(frequency, edges, color=colour, alpha=0.15, fill=True)
        axes.axhline(1, color=INK, linewidth=0.7, linestyle="--", label="calibrated")
        axes.set_xlim(0, 1)
        axes.set_xticks([0, 0.5, 1], ["0", "½", "1"])
        _label(axes, (row, channel), (column, lead))
    _finish(
        figure,
        f"Rank of the truth among the members, over a flat histogram\n{title}",
        "Share of members below",
    )
    return figure


def draw_spectra(scores: xr.Dataset, *, channels: Sequence[str] = (), title: str = "") -> Figure:
    """Draws the power of the truth, of the members and of the ensemble mean at each scale, as `draw_ranks` lays it out.

    Members that lie below the truth at small scales are too smooth; the mean of an ensemble is smooth as it should be
    where the members differ.

    Raises:
        ValueError: no system has spectra (`--statistics zonal_spectra`, `spherical_spectra`), or none of the channels.
    """
    kind = next((kind for kind in SPECTRA if f"{kind}_power_members" in scores), "zonal")
    systems = _holding(scores, f"{kind}_power_members", "--statistics zonal_spectra (or spherical_spectra)")
    axis = SPECTRA[kind]
    rows = choose_channels((name for ds in systems.values() for name in _known(ds[f"{kind}_power_members"])), channels)
    leads = _shown_leads(next(iter(systems.values())))
    figure, panels = _panels(rows, leads, (2.0, 1.6))
    for (row, channel), (column, lead), axes in panels:
        for (name, ds), colour in zip(systems.items(), cycle(SYSTEM_COLOURS), strict=False):
            for source, (own, style) in LINES.items():
                power = ds.get(f"{kind}_power_{source}")
                if power is None or (source == "mean" and float(ds.attrs["members"]) < 2):
                    continue
                at = power.sel(channel=channel, prediction_timedelta=lead)
                at = at.where((at > 0) & (at[axis] > 0), drop=True)
                label = "truth" if own else f"{name}: {source}"
                axes.loglog(at[axis], at.values, style, color=own or colour, linewidth=1.2, label=label)
        _label(axes, (row, channel), (column, lead))
    _finish(figure, f"Power of each {axis}, in squared units of the field\n{title}", axis.capitalize())
    return figure


def _holding(scores: xr.Dataset, metric: str, wanted: str) -> dict[str, xr.Dataset]:
    systems = {name: ds for name, ds in metrics_of(scores).items() if metric in ds}
    if not systems:
        raise ValueError(f"These scores have no '{metric}': score with {wanted}.")
    return systems


def _known(metric: xr.DataArray) -> list[str]:
    others = [dim for dim in metric.dims if dim != "channel"]
    names: list[str] = metric["channel"].values[metric.notnull().any(others)].tolist()
    return names


def _shown_leads(ds: xr.Dataset) -> list[np.timedelta64]:
    """Returns the lead times of 1, 3, 5 and 10 days that there are, else up to four of all, with the last."""
    held = ds["prediction_timedelta"].values
    whole = [lead for lead in held if lead / DAY in SHOWN_DAYS]
    return whole or list(held[::-1][:: -(-len(held) // len(SHOWN_DAYS))][::-1])


def _panels(
    rows: Sequence[str], leads: Sequence[np.timedelta64], size_in: tuple[float, float]
) -> tuple[Figure, Iterator[tuple[tuple[int, str], tuple[int, np.timedelta64], Axes]]]:
    figure = new_figure((max(size_in[0] * len(leads), 4.5) + 0.4, size_in[1] * len(rows) + 1.1))
    figure.set_layout_engine("constrained")
    grid = figure.subplots(len(rows), len(leads), squeeze=False, sharex=True, sharey="row")
    cells = (
        ((row, channel), (column, lead), grid[row, column])
        for row, channel in enumerate(rows)
        for column, lead in enumerate(leads)
    )
    return figure, cells


def _label(axes: Axes, row: tuple[int, str], column: tuple[int, np.timedelta64]) -> None:
    quiet(axes, size_pt=SMALL_PT)
    if row[0] == 0:
        lead = f"{column[1] / DAY:g} d" if column[1] >= DAY else f"{column[1] / HOUR:g} h"
        axes.set_title(lead, fontsize=SMALL_PT + 2, color=INK)
    if column[0] == 0:
        axes.set_ylabel(row[1], fontsize=SMALL_PT + 2, color=INK)


def _finish(figure: Figure, title: str, below: str) -> None:
    """Writes the title, what lies along the horizontal axis, and one legend for all panels."""
    figure.set_figwidth(max(figure.get_figwidth(), title_in(title)))
    figure.suptitle(title, fontsize=SMALL_PT + 3, color=INK)
    for axes in figure.axes:
        axes.set_xlabel(below, fontsize=SMALL_PT + 1, color=INK)
        axes.label_outer()
    handles, labels = figure.axes[0].get_legend_handles_labels()
    named = dict(zip(labels, handles, strict=True))
    figure.legend(
        list(named.values()),
        list(named),
        loc="outside lower center",
        ncols=min(len(named), 4),
        fontsize=SMALL_PT + 1,
        frameon=False,
    )
