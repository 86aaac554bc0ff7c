"""What all figures share: ink and sizes, colours of systems, quiet axes, colour bars, and how a figure is written."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure

from ladcast.files import require_figure_name, whole_file

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


def new_figure(size_in: tuple[float, float] = A4_LANDSCAPE_IN) -> Figure:
    """Makes a white figure that needs neither pyplot nor a display."""
    figure = Figure(figsize=size_in, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


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


def save_figure(figure: Figure, path: Path, *, dpi: int = 150) -> Path:
    """Writes a figure as PDF, PNG or SVG (by suffix); readers see the old file or the whole new one."""
    require_figure_name(path)
    with whole_file(path) as temporary:
        figure.savefig(temporary, format=path.suffix.lower()[1:], dpi=dpi)
    return path
