"""Figures of a file of scores: a metric by lead time, rank histograms, spectra; those of a season of cyclones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
import xarray as xr
from cartopy import crs
from cartopy.mpl.geoaxes import GeoAxes
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from ladcast.plots.maps import add_coastlines
from ladcast.plots.scorecards import SYSTEM_COLOURS, draw_curves, heading, title_in
from ladcast.plots.style import BLACK, INK, MARGIN, SMALL_PT, TRUTH, new_figure, quiet, unreal_note
from ladcast.plots.tracks import draw_error_growth, looks, pieces
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


def draw_season(scores: xr.Dataset, best: xr.Dataset) -> Figure:
    """Draws a season on an A4 sheet: its storms, errors and spread, hits, reliability and economic value of strikes.

    `scores` come from `ladcast.cyclones.season.season_scores`, `best` the storms. Probabilities of strikes are those
    of the longest window; bands and bars are intervals.
    """
    figure = new_figure()
    cells = figure.add_gridspec(2, 3, left=0.065, right=0.98, top=0.84, bottom=0.075, wspace=0.26, hspace=0.34)
    globe: GeoAxes = figure.add_subplot(cells[0, 0], projection=crs.Robinson(central_longitude=180))
    globe.set_global()
    add_coastlines(globe)
    _, storm = np.unique(best["storm"].values.astype("U"), return_inverse=True)
    each = [pieces(globe, best.isel(point=np.flatnonzero(storm == number))) for number in range(storm.max() + 1)]
    lines = [line for track in each for line in track]
    globe.add_collection(LineCollection(lines, colors=TRUTH, linewidths=0.9, zorder=3))
    globe.plot(*np.transpose([track[0][0] for track in each]), ".", color=TRUTH, markersize=3, zorder=3)
    systems = {str(name): scores.sel(system=name) for name in scores["system"].values}
    verified = {name: system.sel(lead=scores["cases"] > 0) for name, system in systems.items()}
    errors = figure.add_subplot(cells[0, 1])
    draw_error_growth(errors, verified, spread=verified)
    parts = figure.add_subplot(cells[0, 2])
    _draw_parts(parts, systems, {"along_km": ("along the motion", "-"), "cross_km": ("to the right", "--")})
    parts.axhline(0, color="0.6", linewidth=0.6)
    low = cells[1, 0].subgridspec(2, 1, hspace=0.35, height_ratios=[3, 2])
    hits, others = (figure.add_subplot(low[row]) for row in range(2))
    _draw_parts(hits, systems, {"hit_rate": ("storms of the start", "-"), "genesis_hit_rate": ("later ones", "--")})
    _draw_parts(others, systems, {"other_lows": ("", "-")})
    hits.set_ylim(0, 1.02)
    others.set_ylim(bottom=0)
    hits.tick_params(labelbottom=False)
    reliable, value = (figure.add_subplot(cells[1, column]) for column in (1, 2))
    _draw_strikes(reliable, value, systems)
    titles = {
        globe: "Storms",
        parts: "Mean error of the mean track (km)",
        hits: "Share of members that have the storm",
        others: "Other lows of a member",
        reliable: f"Strikes within {int(scores['window'][-1]) / 24:g} days: frequency by probability",
        value: "Economic value by cost / loss",
    }
    for axes, title in titles.items():
        axes.set_title(title, fontsize=9, color=INK, loc="left")
    errors.set_title("Position error", fontsize=9, color=INK, loc="left", pad=14)
    for axes in (parts, others):
        axes.set_xlabel("Lead time (days)", fontsize=SMALL_PT + 1, color=INK)
    starts = str(scores.attrs["initial_times"]).split()
    figure.text(MARGIN, 0.945, "A season of cyclones", fontsize=16, weight="bold", color=INK)
    members = ", ".join(f"{name} ({int(system['members'])} members)" for name, system in systems.items())
    about = f"{members}  |  {len(starts)} initial times, {starts[0]} to {starts[-1]}{unreal_note(best.attrs)}"
    figure.text(MARGIN, 0.915, about, fontsize=9, color="0.3")
    return figure


def _draw_parts(axes: Axes, systems: Mapping[str, xr.Dataset], shown: Mapping[str, tuple[str, Any]]) -> None:
    """Draws scores of systems against lead time: a colour for each system, a style for each score, with bounds."""
    for name, system, colour, marker in looks(systems):
        days = system["lead"].values / 24
        for what, (label, style) in shown.items():
            values = system[what].sel(bound="score") if "bound" in system[what].dims else system[what]
            line = {"color": colour, "linewidth": 1.5, "linestyle": style, "marker": marker, "markersize": 3}
            axes.plot(days, values, label=f"{name}: {label}", **line)
            if "bound" in system[what].dims:
                low, high = (system[what].sel(bound=bound) for bound in ("low", "high"))
                axes.fill_between(days, low, high, color=colour, alpha=0.13, linewidth=0)
    axes.set_xlim(left=0)
    quiet(axes)
    if any(label for label, _ in shown.values()):
        axes.legend(fontsize=SMALL_PT, frameon=False, ncols=1 if len(systems) < 5 else 2)


def _draw_strikes(reliable: Axes, value: Axes, systems: Mapping[str, xr.Dataset]) -> None:
    """Draws how often strikes come where so many members say so, and what that is worth."""
    for name, system, colour, marker in looks(systems):
        last = system.isel(window=-1)
        frequency, low, high = (last["observed_frequency"].sel(bound=bound) for bound in ("score", "low", "high"))
        said = last["forecast_probability"].sel(bound="score")
        there = np.isfinite(said.values)
        reliable.plot(
            said[there], frequency[there], color=colour, marker=marker or ".", markersize=5, linewidth=1.2, label=name
        )
        reliable.vlines(said, low, high, color=colour, linewidth=1, alpha=0.6)
        worth, low, high = (last["economic_value"].sel(bound=bound) for bound in ("score", "low", "high"))
        value.plot(last["cost_loss"], worth, color=colour, marker=marker, markersize=3, linewidth=1.5, label=name)
        value.fill_between(last["cost_loss"], low, high, color=colour, alpha=0.13, linewidth=0)
    rate = float(next(iter(systems.values())).isel(window=-1)["base_rate"].sel(bound="score"))
    reliable.plot([0, 1], [0, 1], color="0.6", linewidth=0.7)
    reliable.axhline(rate, color="0.6", linewidth=0.7, linestyle="--")
    reliable.annotate("climatology", (1, rate), (0, 2), textcoords="offset points", ha="right", fontsize=SMALL_PT)
    value.set_xscale("log")
    for axes, label in ((reliable, "Forecast probability"), (value, "Cost of acting / loss avoided")):
        axes.set_ylim(0, 1.02)
        axes.set_xlabel(label, fontsize=SMALL_PT + 1, color=INK)
        quiet(axes)
        axes.legend(fontsize=SMALL_PT, frameon=False, loc="upper left" if axes is reliable else "upper right")


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
