"""Scorecards (variables by lead times, better or worse, and whether that is significant) and scores by lead time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle, product
from math import isqrt

import numpy as np
import xarray as xr
from jaxtyping import Shaped
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import FuncFormatter, MaxNLocator

from ladcast.plots.style import (
    AMBER,
    BLACK,
    BLUE,
    GREEN,
    INK,
    ORANGE,
    PINK,
    SKY,
    SMALL_PT,
    new_figure,
    quiet,
    style_bar,
)
from ladcast.times import DAY, HOUR
from ladcast.verification.statistics import METRICS
from ladcast.verification.table import choose_channels, readable_units

SYSTEM_COLOURS = (BLUE, ORANGE, GREEN, PINK, AMBER, SKY, BLACK)
LINE_STYLES = ("-", "--", ":", "-.")
"""For more systems than colours."""
SUPERSCRIPTS = str.maketrans("-123", "\u207b\u00b9\u00b2\u00b3")
"""Units are written as m2 s-2; digits and the minus sign only occur in exponents."""
CELL_IN, LETTER_IN, BAR_IN = 0.27, 0.085, 3.8
LEFT_IN, GAP_IN, TOP_IN, BOTTOM_IN = 0.62, 0.15, 0.56, 1.1
"""Room for the channels, between panels, for the titles, for lead times and the colour bar."""
LIMITS_PERCENT = (10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 80.0, 100.0)
SHARE_WITHIN = 0.9
MOST_COLUMNS = 20
TITLE_PT = SMALL_PT + 3


def better_worse_colours(better: str = "low") -> Colormap:
    """Builds a map from blue (better) over white to orange (worse), told apart by all colour vision."""
    colours = LinearSegmentedColormap.from_list(
        "ladcast_scorecard", ["#0b559f", "#8fbfe0", "#ffffff", "#f6b27a", "#b9430b"]
    )
    return colours if better == "low" else colours.reversed()


def draw_scorecard(
    comparisons: Mapping[str, xr.Dataset],
    *,
    metric: str = "fair_crps",
    channels: Sequence[str] = (),
    title: str = "",
) -> Figure:
    """Draws one panel for each reference (name -> `compare(system, reference)`): channels in rows, leads in columns.

    The shade is the relative difference in per cent, up to the `round_limit` of the panels: blue is
    better, orange worse. A dot marks a difference whose confidence interval leaves out zero; without a dot it may be
    chance. Missing scores are grey. All panels have the same rows: see `choose_channels`. Of more than `MOST_COLUMNS`
    lead times the whole days are shown.

    Raises:
        ValueError: there is no comparison, none holds the metric or a channel, or neither low nor high values of it
            are better.
    """
    if metric in METRICS and METRICS[metric].better == "none":
        able = ", ".join(name for name, about in METRICS.items() if about.better != "none" and not about.axes)
        raise ValueError(f"Neither low nor high values of '{metric}' are better: draw one of {able}.")
    panels = _panels(comparisons, metric, channels)
    rows, columns = next(iter(panels.values()))["relative"].shape
    limit = round_limit([100 * panel["relative"].values for panel in panels.values()])
    norm = Normalize(-limit, limit)
    titles = [f"against {name}" for name in panels]
    size = np.array([max(CELL_IN * columns, *(LETTER_IN * len(text) for text in titles)), CELL_IN * rows])
    text = title or heading(metric)
    needed = LEFT_IN + len(panels) * (size[0] + GAP_IN)
    width, height = max(needed, title_in(text)), TOP_IN + size[1] + BOTTOM_IN
    figure = new_figure((width, height))
    for number, panel in enumerate(panels.values()):
        corner = [(width - needed) / 2 + LEFT_IN + number * (size[0] + GAP_IN), BOTTOM_IN]
        axes = figure.add_axes(_box([*corner, *size], width, height))
        image = _draw_panel(axes, panel, metric, norm)
        axes.set_title(titles[number], fontsize=SMALL_PT + 2, color=INK)
        axes.tick_params(labelleft=number == 0)
    bar = figure.add_axes(_box([width / 2 - BAR_IN / 2, 0.5, BAR_IN, 0.1], width, height))
    _draw_bar(bar, image, limit, _explain(comparisons, metric))
    figure.suptitle(text, fontsize=TITLE_PT, color=INK, y=1 - 0.08 / height, va="top")
    return figure


def round_limit(differences: Sequence[Shaped[np.ndarray, "channel lead"]]) -> float:
    """Returns where the colours end: the first round per cent that nine in ten differences of a panel stay below.

    It is that of the panel in the middle: one reference that is far better or worse does not pale all others.
    """
    known = [abs(percent[np.isfinite(percent)]) for percent in differences]
    most = [float(np.quantile(percent, SHARE_WITHIN)) for percent in known if percent.size]
    middle = sorted(most)[(len(most) - 1) // 2] if most else 0.0
    return next((limit for limit in LIMITS_PERCENT if limit >= middle), LIMITS_PERCENT[-1])


def heading(metric: str) -> str:
    """Returns the long name of a metric; of the CRPS also what stands for it where there is a single forecast."""
    about = METRICS[metric].long_name
    return "Fair CRPS; of a single forecast: its mean absolute error" if metric == "fair_crps" else about


def draw_curves(
    scores: Mapping[str, xr.Dataset], *, metric: str = "fair_crps", channels: Sequence[str] = (), title: str = ""
) -> Figure:
    """Draws a metric against lead time, one panel for each channel (`choose_channels`), one line for each system.

    `scores` maps systems to `Accumulator.metrics()`, or to `intervals(...)`, whose bounds are drawn as bands. Of a
    single forecast the fair CRPS is its absolute error. Precipitation is in mm, humidity in g/kg.

    Raises:
        ValueError: no system has the metric, or none of the channels.
    """
    lines = {name: line for name, ds in scores.items() if (line := _line(ds, metric)) is not None}
    if not lines:
        raise ValueError(f"None of {', '.join(scores)} has the metric '{metric}'. Choose another.")
    shown = choose_channels((channel for line in lines.values() for channel in _drawable(line)), channels)
    columns = min(len(shown), max(3, isqrt(len(shown) // 2)))
    rows = -(-len(shown) // columns)
    size = (max(2.5 * columns + 0.4, title_in(title or heading(metric))), 1.9 * rows + 0.9)
    figure = new_figure(size)
    figure.set_layout_engine("constrained")
    cells = figure.add_gridspec(rows, columns)
    for place, channel in enumerate(shown):
        axes = figure.add_subplot(cells[place // columns, place % columns])
        _draw_lines(axes, lines, channel, metric)
        if place // columns == (len(shown) - 1 - place % columns) // columns:
            axes.set_xlabel("Lead time (days)", fontsize=SMALL_PT + 1, color=INK)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=min(len(labels), 2 * columns),
        fontsize=SMALL_PT + 1,
        frameon=False,
    )
    figure.suptitle(title or heading(metric), fontsize=TITLE_PT, color=INK)
    return figure


def _panels(comparisons: Mapping[str, xr.Dataset], metric: str, channels: Sequence[str]) -> dict[str, xr.Dataset]:
    """Returns the comparisons with the same rows and columns, NaN where one lacks a score."""
    if not comparisons:
        raise ValueError("There is nothing to draw: expected at least one comparison.")
    panels = {name: _panel(ds, metric) for name, ds in comparisons.items()}
    rows = choose_channels((str(row) for ds in panels.values() for row in ds["channel"].values), channels)
    leads = np.unique(np.concatenate([ds["prediction_timedelta"].values for ds in panels.values()]))
    if len(leads) > MOST_COLUMNS:
        whole = leads[leads % DAY == np.timedelta64(0)]
        leads = whole if len(whole) else leads
    return {name: ds.reindex(channel=rows, prediction_timedelta=leads) for name, ds in panels.items()}


def _panel(ds: xr.Dataset, metric: str) -> xr.Dataset:
    """Returns the channels of a comparison that have numbers."""
    if metric not in ds["metric"].values:
        raise ValueError(f"The comparison has no '{metric}', only {', '.join(ds['metric'].values)}.")
    panel = ds.sel(metric=metric).transpose("channel", "prediction_timedelta")
    return panel.isel(channel=np.flatnonzero(panel["difference"].notnull().any("prediction_timedelta")))


def title_in(title: str) -> float:
    """Returns the width in inches that the longest line of a title needs, and no less than a colour bar's."""
    return max(LETTER_IN * max(map(len, title.splitlines())) + 0.2, BAR_IN + 0.7)


def _box(inches: Sequence[float], width: float, height: float) -> tuple[float, float, float, float]:
    """Converts left, bottom, width and height to shares of the figure."""
    left, bottom, across, up = inches
    return left / width, bottom / height, across / width, up / height


def _draw_panel(axes: Axes, panel: xr.Dataset, metric: str, norm: Normalize) -> AxesImage:
    percent = 100 * panel["relative"].values
    colours = better_worse_colours(METRICS[metric].better)
    image = axes.imshow(np.ma.masked_invalid(percent), cmap=colours, norm=norm, aspect="auto")
    axes.set_facecolor("0.85")
    certain = (panel["lower"].values > 0) | (panel["upper"].values < 0)
    row, column = np.nonzero(certain & np.isfinite(percent))
    axes.scatter(column, row, s=9, c=INK, edgecolors="white", linewidths=0.6)  # the ring shows on dark shades
    channels = panel["channel"].values
    axes.set_yticks(range(len(channels)), channels, fontsize=SMALL_PT, color=INK)
    _tick_leads(axes, panel["prediction_timedelta"].values)
    axes.set_xticks(np.arange(-0.5, percent.shape[1]), minor=True)
    axes.set_yticks(np.arange(-0.5, percent.shape[0]), minor=True)
    axes.grid(which="minor", color="white", linewidth=1)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    return image


def _draw_bar(axes: Axes, image: AxesImage, limit: float, label: str) -> None:
    figure = axes.get_figure(root=True)
    assert figure is not None
    bar = figure.colorbar(image, cax=axes, orientation="horizontal", extend="both")
    bar.set_ticks([-limit, -limit / 2, 0, limit / 2, limit])
    style_bar(bar, label, size_pt=SMALL_PT)


def _explain(comparisons: Mapping[str, xr.Dataset], metric: str) -> str:
    word = "lower" if METRICS[metric].better == "low" else "higher"
    level = float(next(iter(comparisons.values())).attrs.get("level", 0.95))
    known = any(ds["lower"].notnull().any() for ds in comparisons.values())
    dots = f"a dot: significant at {level:.0%}" if known else "no dots: too few starts for intervals"
    return f"difference in % of the reference; blue is better ({word})\n{dots}; grey: no score"


def _tick_leads(axes: Axes, leads: Shaped[np.ndarray, " lead"]) -> None:
    """Labels whole days where there are some, at most about ten; else every lead time in hours."""
    days = leads / DAY
    whole = np.flatnonzero(days == np.round(days))
    if len(whole):
        chosen = whole[:: -(-len(whole) // 10)]
        labels, name = [f"{days[index]:g}" for index in chosen], "Lead time (days)"
    else:
        chosen = np.arange(len(leads))
        labels, name = [f"{lead / HOUR:g}" for lead in leads], "Lead time (hours)"
    axes.set_xticks(chosen, labels, fontsize=SMALL_PT, color=INK)
    axes.set_xlabel(name, fontsize=SMALL_PT + 1, color=INK)


def _line(ds: xr.Dataset, metric: str) -> xr.Dataset | None:
    """Returns value and, where there are, bounds; None where the system does not have the metric."""
    if "metric" in ds.dims:
        return ds.sel(metric=metric) if metric in ds["metric"].values else None
    name = "mae" if metric == "fair_crps" and metric not in ds else metric
    return ds[[name]].rename({name: "value"}) if name in ds and ds[name].ndim == 2 else None


def _drawable(line: xr.Dataset) -> list[str]:
    """Returns the channels that have numbers; of a wind vector not every metric does."""
    present = line["value"].notnull().any("prediction_timedelta").values
    names: list[str] = line["channel"].values[present].tolist()
    return names


def _draw_lines(axes: Axes, lines: Mapping[str, xr.Dataset], channel: str, metric: str) -> None:
    looks = product(LINE_STYLES, SYSTEM_COLOURS)
    units, factor = _units(lines, channel, metric)
    for (name, line), (style, colour) in zip(lines.items(), cycle(looks), strict=False):
        if channel not in line["channel"].values:
            axes.plot([], [], style, color=colour, label=name)
            continue
        at = line[[name for name in ("value", "lower", "upper") if name in line]].sel(channel=channel) * factor
        days = at["prediction_timedelta"].values / DAY
        if "lower" in at:
            axes.fill_between(days, at["lower"].values, at["upper"].values, color=colour, alpha=0.2, linewidth=0)
        axes.plot(days, at["value"].values, style, color=colour, linewidth=1.4, label=name)
    axes.set_title(f"{channel} ({units})" if units else channel, fontsize=SMALL_PT + 2, color=INK)
    quiet(axes, size_pt=SMALL_PT)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0) if METRICS[metric].better == "low" else None
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _units(lines: Mapping[str, xr.Dataset], channel: str, metric: str) -> tuple[str, float]:
    """Returns the units that people read, and the factor to them from those of the scores."""
    held = [
        line["channel_units"].sel(channel=channel).item()
        for line in lines.values()
        if "channel_units" in line.coords and channel in line["channel"].values
    ]
    if METRICS[metric].units == "1" or not held:
        return "", 1.0
    units, factor = readable_units(str(held[0]))
    units = units.translate(SUPERSCRIPTS)
    return (f"({units})²", factor**2) if METRICS[metric].units == "field squared" else (units, factor)
