"""Maps of the same fields side by side, such as truth and what a model makes of it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ladcast.plots.maps import add_global_axes, draw_map
from ladcast.plots.style import INK, new_figure, style_bar

Maps = Mapping[str, Mapping[str, xr.DataArray]]
"""Fields (latitude, longitude) by row and by column title; rows are named by channel."""
PANEL_IN = (3.6, 2.0)


def draw_comparison(maps: Maps, title: str) -> Figure:
    """Draws a row of maps for each channel, all of a row on the scale of its first field.

    Fields carry `units`. NaN stays blank.
    """
    columns = max(len(row) for row in maps.values())
    figure = new_figure((PANEL_IN[0] * columns + 0.8, PANEL_IN[1] * len(maps) + 0.6))
    top = 1 - 0.55 / figure.get_figheight()
    cells = figure.add_gridspec(
        len(maps),
        columns + 1,
        left=0.01,
        right=0.93,
        top=top,
        bottom=0.02,
        wspace=0.03,
        width_ratios=[1] * columns + [0.03],
    )
    figure.text(0.01, 1 - 0.2 / figure.get_figheight(), title, fontsize=12, weight="bold", color=INK, va="center")
    for number, (channel, fields) in enumerate(maps.items()):
        first = next(iter(fields.values()))
        low, high = (float(value) for value in np.nanquantile(first, [0.0, 0.995]))
        levels = MaxNLocator(10, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
        for column, (name, field) in enumerate(fields.items()):
            axes = add_global_axes(figure, cells[number, column])
            shading = draw_map(axes, field, levels=levels)
            axes.set_title(f"{channel}: {name}", fontsize=9, color=INK, pad=4)
        bar = figure.colorbar(shading, cax=figure.add_subplot(cells[number, columns]))
        style_bar(bar, first.attrs.get("units", ""))
    return figure
