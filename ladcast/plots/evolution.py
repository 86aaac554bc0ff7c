"""Figures of how a forecast goes on: the meteogram of a place, Hovmoller diagrams, maps that move.

Fields are in the units of `ladcast.plots.quantities`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.animation import FFMpegWriter, FuncAnimation, PillowWriter
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from ladcast.files import require_figure_name, whole_file
from ladcast.grid import Place, row_weights
from ladcast.plots import FieldOptions
from ladcast.plots.ensemble import MAP_IN, add_bar, map_cells, select_shown, write_title
from ladcast.plots.forecast import (
    add_legend,
    align,
    at_place,
    draw_bars,
    lead_days,
    meridian,
    one_forecast,
    parallel,
    say_members,
    say_source,
    start_of,
    style_lead_axis,
    value_of,
    whole,
    without_start,
)
from ladcast.plots.maps import add_map_axes, draw_map, mark_extremes
from ladcast.plots.quantities import FEWEST_IN_BOXES, METEOGRAM, QUANTITIES, find_quantity
from ladcast.plots.style import ENSEMBLE, INK, SMALL_PT, TRUTH, bands, new_figure, write_heading

PANEL_IN = (9.0, 1.55)
MIDDLE_LATITUDES = (-180.0, 35.0, 180.0, 60.0)
"""The region of a Hovmoller diagram unless another is asked for: where waves of the northern hemisphere travel."""
FRAMES_PER_SECOND = 6


def draw_meteogram(forecast: xr.Dataset, place: Place, *, truth: xr.Dataset | None = None) -> Figure:
    """Draws what all members say at the grid point nearest to a place: temperature, wind, precipitation, pressure.

    Boxes hold the middle half of the members, whiskers all; fewer than five are drawn one by one. Precipitation is
    drawn as bars (`draw_bars`).

    Raises:
        ValueError: there are several initial times, none of these fields, or the place lies outside.
    """
    forecast = one_forecast(forecast)
    held = [QUANTITIES[name] for name in METEOGRAM if set(QUANTITIES[name].variables) <= set(forecast)]
    if not held:
        raise ValueError(f"A meteogram shows {', '.join(METEOGRAM)}; the forecast has {', '.join(map(str, forecast))}.")
    here, known, where = at_place(forecast, None if truth is None else align(truth, forecast), place, held)
    figure = new_figure((PANEL_IN[0], PANEL_IN[1] * len(held) + 1.3))
    height = figure.get_figheight()
    cells = figure.add_gridspec(
        len(held), 1, left=0.07, right=0.98, top=1 - 0.8 / height, bottom=0.8 / height, hspace=0.35
    )
    for row, about in enumerate(held):
        axes = figure.add_subplot(cells[row])
        members, observed = whole(about.of(here), about.title), value_of(about, known)
        if about.accumulated_hours:
            draw_bars(axes, members, hours=about.accumulated_hours, truth=observed)
        else:
            draw_boxes(axes, members, truth=observed)
        axes.set_title(f"{about.title} ({about.units})", fontsize=SMALL_PT + 2, color=INK, loc="left", pad=3)
        style_lead_axis(axes, start_of(forecast), last_day=float(lead_days(members).max()))
        axes.set_xlim(0, lead_days(members).max() + box_days(members) / 2)
        if about.palette == "sequential":
            axes.set_ylim(bottom=0)
        if row + 1 < len(held):
            axes.set_xlabel("")
            axes.tick_params(labelbottom=False)
    add_legend(figure)
    write_heading(figure, where, _run(forecast))
    return figure


def _run(forecast: xr.Dataset) -> str:
    start = start_of(forecast).astype("datetime64[s]").item()
    return f"from {start:%a} {start.day} {start:%b %Y, %H} UTC | {say_members(forecast)} | {say_source(forecast)}"


def draw_boxes(axes: Axes, members: xr.DataArray, *, truth: xr.DataArray | None = None) -> None:
    """Draws a box for each lead time after 0: the middle half of the members, their median, whiskers over all.

    Args:
        axes: plain axes; what is drawn carries labels for a legend.
        members: values with dimensions number and prediction_timedelta; fewer than five are drawn one by one.
        truth: values along prediction_timedelta, with gaps left out.
    """
    members = members.transpose("prediction_timedelta", "number")
    if members.sizes["number"] < FEWEST_IN_BOXES:
        labels = ["member", *["_nolegend_"] * (members.sizes["number"] - 1)]
        axes.plot(lead_days(members), members.values, ".-", color=ENSEMBLE, linewidth=0.7, markersize=3, label=labels)
    else:
        members = without_start(members)
        days, width = lead_days(members), box_days(members)
        low, first, middle, third, high = np.quantile(members.values, [0, 0.25, 0.5, 0.75, 1], axis=1)
        axes.vlines(days, low, high, color=ENSEMBLE, linewidth=0.9, label="all members")
        box: dict[str, Any] = {"width": width, "color": "#a6cce5", "edgecolor": ENSEMBLE, "linewidth": 0.7}
        axes.bar(days, third - first, bottom=first, label="middle half", zorder=2, **box)
        axes.hlines(middle, days - width / 2, days + width / 2, color=INK, linewidth=1.4, zorder=3, label="median")
    if truth is not None:
        axes.plot(
            lead_days(truth), truth.values, ".-", color=TRUTH, linewidth=1.1, markersize=4, zorder=4, label="truth"
        )


def box_days(members: xr.DataArray) -> float:
    """Returns the width of a box in days: two thirds of the time between two lead times."""
    days = lead_days(members)
    return 2 / 3 * float(np.diff(days).min()) if days.size > 1 else 0.25


def draw_hovmoller(forecast: xr.Dataset, of: FieldOptions, *, truth: xr.Dataset | None = None) -> Figure:
    """Draws longitude against lead time: the mean of the members, and of the truth, over the latitudes of a region.

    Without a region it is 35 to 60 degrees north, or what the forecast covers.

    Raises:
        ValueError: there is no such field, there are several initial times, or no point lies within the region.
    """
    quantity, level = find_quantity(of.field)
    forecast = one_forecast(forecast)
    region = of.bounds or MIDDLE_LATITUDES
    panels = {"ensemble mean": _along(quantity.of(forecast, level).mean("number"), region, fallback=of.bounds is None)}
    if truth is not None and set(quantity.variables) <= set(truth):
        known = align(truth, forecast)
        panels["analysis"] = _along(quantity.of(known, level), region, fallback=of.bounds is None)
    figure = new_figure((4.6 * len(panels) + 0.8, 6.4))
    cells = figure.add_gridspec(
        1, len(panels), left=0.09, right=0.98, top=1 - 0.95 / 6.4, bottom=1.2 / 6.4, wspace=0.12
    )
    first = panels["ensemble mean"]
    levels, colours = bands(first, quantity.palette, quantity.edges)
    for number, (name, field) in enumerate(panels.items()):
        axes = figure.add_subplot(cells[number])
        shading = axes.contourf(
            field["longitude"], lead_days(field), field.values, levels=levels, cmap=colours, extend="both"
        )
        axes.set_title(name, fontsize=SMALL_PT + 2, color=TRUTH if name == "analysis" else INK)
        axes.set_ylim(lead_days(first).max(), lead_days(first).min())
        axes.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 1.5, 3, 4.5, 6, 9]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda degrees, _: meridian(degrees)))
        axes.tick_params(labelsize=SMALL_PT + 1, labelleft=number == 0)
    figure.axes[0].set_ylabel("Lead time (days)", fontsize=SMALL_PT + 1, color=INK)
    add_bar(figure, shading, f"{quantity.title_at(level)} ({quantity.units})")
    south, north = (parallel(float(first.attrs[name])) for name in ("south", "north"))
    write_heading(figure, f"{quantity.title_at(level)}, mean from {south} to {north}", _run(forecast))
    return figure


def _along(field: xr.DataArray, region: tuple[float, float, float, float], *, fallback: bool) -> xr.DataArray:
    """Averages a field over the latitudes of a region, weighted by area; its longitudes go eastward from the west."""
    west, south, east, north = region
    latitude = field["latitude"].values
    rows = np.flatnonzero((latitude >= south) & (latitude <= north))
    rows = np.arange(len(latitude)) if fallback and not rows.size else rows
    width = (east - west) % 360 or 360.0
    eastward = (field["longitude"].values - west) % 360
    columns = np.flatnonzero(eastward <= width)
    columns = columns[np.argsort(eastward[columns])]
    longitude = west + eastward[columns]
    if width == 360:  # the western edge is the eastern one, too
        columns, longitude = np.append(columns, columns[0]), np.append(longitude, longitude[0] + 360)
    if not rows.size or not columns.size:
        raise ValueError(f"The region {west:g},{south:g},{east:g},{north:g} holds no point of the forecast. Widen it.")
    part = field.isel(latitude=rows, longitude=columns)
    mean = part.weighted(row_weights(field).isel(latitude=rows)).mean("latitude")
    mean = mean.assign_coords(longitude=longitude).transpose("prediction_timedelta", "longitude")
    return mean.load().assign_attrs(south=latitude[rows].min(), north=latitude[rows].max())


def draw_animation(forecast: xr.Dataset, of: FieldOptions) -> FuncAnimation:
    """Draws the ensemble mean of one field at all lead times as a map that moves, on one scale.

    `save_animation` writes it; in a notebook `HTML(animation.to_jshtml())` plays it.

    Raises:
        ValueError: there is no such field, or there are several initial times.
    """
    leads = forecast["prediction_timedelta"].values.astype("timedelta64[ns]")
    moments = [select_shown(forecast, of.field, lead) for lead in leads]
    means = xr.concat([one.members.mean("number") for one in moments], "lead")
    quantity = moments[0].quantity
    figure = new_figure(MAP_IN)
    levels, colours = bands(means, quantity.palette, quantity.edges)
    axes = add_map_axes(figure, map_cells(figure)[0, 0], means[0], of.bounds)
    label = f"{moments[0].name}: ensemble mean ({quantity.units})"
    shading = draw_map(axes, means[0], levels=levels, colours=colours)
    add_bar(figure, shading, label)
    drawn: list[Artist] = [shading]

    def draw(number: int) -> list[Artist]:
        while drawn or figure.texts:
            (drawn.pop() if drawn else figure.texts[0]).remove()
        drawn.append(draw_map(axes, means[number], levels=levels, colours=colours))
        if quantity.palette == "pressure":
            drawn.extend(mark_extremes(axes, means[number]))
        write_title(figure, moments[number], moments[number].name)
        return drawn

    return FuncAnimation(figure, draw, frames=len(moments), interval=1000 / FRAMES_PER_SECOND, init_func=lambda: drawn)


def save_animation(animation: FuncAnimation, path: Path, *, dpi: int = 100) -> Path:
    """Writes an animation as MP4 or GIF, by suffix; readers see the old file or the whole new one.

    Raises:
        ValueError: the suffix is neither, or there is no ffmpeg for MP4.
    """
    require_figure_name(path, moving=True)
    make = FFMpegWriter if path.suffix.lower() == ".mp4" else PillowWriter
    with whole_file(path) as temporary:
        animation.save(temporary, writer=make(fps=FRAMES_PER_SECOND), dpi=dpi)
    return path
