"""What all figures share: ink, sizes, shades and their bounds, quiet axes, colour bars, and how a figure is written."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ladcast.files import require_figure_name, whole_file
from ladcast.plots.quantities import PALETTES, ROUNDING

INK = "#1a1a1a"
SMALL_PT = 7.0
A4_LANDSCAPE_IN = (11.69, 8.27)
MARGIN = 0.05
BLUE, ORANGE, GREEN, PINK, AMBER, SKY, BLACK = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "#000000",
)
"""Okabe and Ito (2008), told apart by all colour vision."""
ENSEMBLE, TRUTH = BLUE, ORANGE
ROUND_STEPS = [1, 2, 2.5, 5, 10]
PROBABILITY_PERCENT = (5.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 95.0)


def unreal_note(attributes: Mapping[Any, Any]) -> str:
    """Returns what a figure says beside its source where the weather is a model's, as the attributes of data tell."""
    return " | model weather, not the real atmosphere" if attributes.get("unreal") else ""


def analysis_note(attributes: Mapping[Any, Any]) -> str:
    """Returns ` of FILE`, the source of the analysis that a forecast of ours starts from; empty for others."""
    try:
        source = Path(json.loads(attributes["history"])["source"]).name
    except (KeyError, TypeError, ValueError):
        return ""
    return f" of {textwrap.shorten(source, 30, placeholder=' ...')}" if source else ""


def new_figure(size_in: tuple[float, float] = A4_LANDSCAPE_IN) -> Figure:
    """Makes a white figure that needs neither pyplot nor a display."""
    figure = Figure(figsize=size_in, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


Edges = Float[np.ndarray, " edge"]


def bands(
    field: xr.DataArray, palette: str, edges: Sequence[float] = (), *, size: float = 0.0
) -> tuple[Edges, Colormap]:
    """Returns the bounds of a map's shades and their colours; spreads and differences have white at zero.

    `palette` is a key of `PALETTES`, `spread`, `difference`, or `probability` in per cent; `edges` are bounds that a
    quantity has of its own; `size` is the magnitude of the values that a spread or a difference is of, of which the
    shades span `ROUNDING` at least.
    """
    name = {"spread": "sequential", "probability": "sequential", "difference": "diverging"}.get(palette, palette)
    colours = LinearSegmentedColormap.from_list(palette, PALETTES[name])
    if palette == "probability" or len(edges):
        return np.array(edges if len(edges) else PROBABILITY_PERCENT), colours
    low, high = (float(value) for value in np.nanquantile(field, [0.005, 0.995]))
    least = max(ROUNDING * size, 1e-9)
    if name == "diverging":
        most = max(abs(low), abs(high), least)
        step = np.diff(MaxNLocator(12, steps=ROUND_STEPS).tick_values(-most, most))[0]
        count = max(1, int(np.ceil(most / step - 0.5)))
        return (np.arange(2 * count) - count + 0.5) * step, colours
    low, high = (0.0, max(high, least)) if name == "sequential" else (low, high)
    bounds = np.asarray(MaxNLocator(14, steps=ROUND_STEPS).tick_values(low, high))
    return bounds[palette == "spread" :], colours  # without 0: what lies below all bounds is white


def sequential_colours() -> Colormap:
    """Builds a map from white over green to blue: lightness falls evenly, so it reads without colour vision.

    It ends before black: contours in ink stay readable on the darkest shade.
    """
    shades = ["#ffffff", "#e8f4e6", "#b9dfd0", "#84c5c8", "#52a3c4", "#3279b3"]
    return LinearSegmentedColormap.from_list("ladcast_sequential", shades)


def round_levels(field: xr.DataArray, *, least: float = 0.0) -> Edges:
    """Returns about ten round steps up to the 99.5th percentile, from zero where values come near it and none below.

    They span `least` at least, for a field that may be zero everywhere.
    """
    low, high = (float(value) for value in np.nanquantile(field, [0.005, 0.995]))
    high = max(high, low + least)
    start = low if float(field.min()) < 0 or low > high / 2 else 0.0
    return np.asarray(MaxNLocator(10, steps=ROUND_STEPS).tick_values(start, high))


def quiet(axes: Axes, *, size_pt: float = SMALL_PT + 1) -> None:
    """Clears the frame of plain axes, and puts a pale grid behind what is drawn."""
    axes.tick_params(labelsize=size_pt, width=0.5, length=3)
    axes.grid(linewidth=0.3, color="0.85")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def style_bar(bar: Colorbar, label: str, *, size_pt: float = SMALL_PT + 1) -> None:
    """Labels a colour bar with quantity and units."""
    bar.set_label(label, fontsize=size_pt, color=INK)
    bar.ax.tick_params(labelsize=SMALL_PT, width=0.4, length=2)
    bar.outline.set_linewidth(0.4)


def write_heading(figure: Figure, title: str, about: str) -> None:
    """Writes above a figure what it shows, and below that when and whose forecast it is."""
    height = figure.get_figheight()
    figure.text(0.02, 1 - 0.25 / height, title, fontsize=12, weight="bold", color=INK, va="center")
    figure.text(0.02, 1 - 0.5 / height, about, fontsize=SMALL_PT + 1, color="0.3", va="center")


def save_figure(figure: Figure, path: Path, *, dpi: int = 150) -> Path:
    """Writes a figure as PDF, PNG or SVG (by suffix); readers see the old file or the whole new one."""
    require_figure_name(path)
    with whole_file(path) as temporary:
        figure.savefig(temporary, format=path.suffix.lower()[1:], dpi=dpi)
    return path
