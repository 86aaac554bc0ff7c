"""The summary figure of one forecast: maps of ensemble mean and spread above, plumes at a place below."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import Any

import numpy as np
import xarray as xr
from cartopy import crs
from jaxtyping import Float
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from matplotlib.ticker import FuncFormatter, MaxNLocator

from ladcast.data.lazy import STATES_AT_ONCE, load_together
from ladcast.grid import Box, Place, points_of
from ladcast.plots.maps import add_colour_bar, add_map_axes, draw_map, mark_extremes, require_same_points
from ladcast.plots.quantities import QUANTITIES, ROUNDING, Quantity, held_by, spread_of
from ladcast.plots.style import (
    ENSEMBLE,
    INK,
    MARGIN,
    SMALL_PT,
    TRUTH,
    analysis_note,
    new_figure,
    quiet,
    round_levels,
    unreal_note,
)
from ladcast.times import DAY, describe

SHOWN_DAY = 5
"""The last day whose maps are drawn unless another is asked for."""
CONTOUR_STEPS = {"z": 8.0, "msl": 5.0}
"""Between the lines of the usual maps, in shown units."""
PLUMES = ("t2m", "wind10", "tp6h")


def shown_lead(forecast: xr.Dataset) -> np.timedelta64:
    """Returns the lead time of the maps by default: the last whole day up to the fifth, else the last one.

    Raises:
        ValueError: the forecast has no lead times.
    """
    if "prediction_timedelta" not in forecast.dims:
        raise ValueError("A forecast needs the dimension prediction_timedelta.")
    leads = forecast["prediction_timedelta"].values.astype("timedelta64[ns]")
    days = leads / DAY
    whole = leads[(days % 1 == 0) & (days > 0) & (days <= SHOWN_DAY)]
    return np.timedelta64((whole if whole.size else leads).max())


def draw_forecast(
    forecast: xr.Dataset, *, place: Place, truth: xr.Dataset | None = None, lead: np.timedelta64 | None = None
) -> Figure:
    """Draws the maps of one lead time and the plumes of one place on an A4 sheet.

    Maps show the ensemble mean as contours over the spread (standard deviation of M members, divisor M - 1), or a
    single member; of the globe, or of the region that the forecast covers.
    Plumes show the grid point nearest to the place: temperature, wind, and precipitation as bars. A forecast without
    the usual fields shows what it has.

    Args:
        forecast: WeatherBench 2 names, SI units; dimensions time (one start), prediction_timedelta, number,
            level, latitude, longitude. The attribute `source` names the model, `unreal` says that its
            weather is not that of the real atmosphere.
        place: the point of the plumes.
        truth: the same variables against valid time, on the forecast's grid; its gaps stay blank.
        lead: lead time of the maps; the last one by default.

    Raises:
        ValueError: a dimension is missing, there are several starts, the lead time or truth does not fit the forecast,
            or a field has NaN.
    """
    forecast = one_forecast(forecast)
    shown = _find_lead(forecast, lead)
    known = None if truth is None else align(truth, forecast)
    at_lead = forecast.sel(prediction_timedelta=shown)
    maps = _choose_maps(forecast)
    fields = [whole(one.of(at_lead, level), one.title_at(level)) for one, level in maps]  # before anything is drawn
    figure = new_figure()
    for about, members, cell in zip(maps, fields, _row(figure, 2, top=0.89, bottom=0.505, gap=0.03), strict=False):
        _draw_spread(figure, cell, members, *about, place=place)
    _draw_plumes(figure, forecast, truth=known, place=place, shown=shown)
    _write_heading(figure, forecast, shown)
    return figure


def one_forecast(forecast: xr.Dataset) -> xr.Dataset:
    """Returns a forecast from one initial time without that dimension, with members; ValueError says what it lacks."""
    if "number" not in forecast.dims:
        forecast = forecast.expand_dims("number")
    needed = ("prediction_timedelta", "latitude", "longitude")
    if missing := [name for name in needed if name not in forecast.dims]:
        raise ValueError(f"A forecast needs the dimensions {', '.join(needed)}; missing: {', '.join(missing)}.")
    if "time" not in forecast.coords or forecast["time"].size != 1:
        starts = describe(forecast["time"].values) if "time" in forecast.coords else "none"
        raise ValueError(f"The figure shows one start, got {starts}. Choose one with --time, or as `time`.")
    forecast = forecast.assign_coords(time=forecast["time"].astype("datetime64[ns]"))
    return forecast.isel(time=0) if "time" in forecast.dims else forecast


def _find_lead(forecast: xr.Dataset, lead: np.timedelta64 | None) -> np.timedelta64:
    leads = forecast["prediction_timedelta"].values
    if lead is None:
        return np.timedelta64(leads.max())
    if lead not in leads:
        days = ", ".join(f"{value / DAY:g}" for value in leads)
        raise ValueError(f"Expected a lead time of {days} days, got {lead / DAY:g} days.")
    return lead


def align(truth: xr.Dataset, forecast: xr.Dataset) -> xr.Dataset:
    """Puts truth on the forecast's lead times, less those that it lacks."""
    require_same_points(truth, forecast)
    # Without the start as a coordinate, which would clash with truth's own `time`.
    valid = forecast["time"].drop_vars("time") + forecast["prediction_timedelta"]
    known = valid[np.isin(valid.values, truth["time"].values)]
    if not known.size:
        has = describe(truth["time"].values)
        raise ValueError(f"Truth has none of the valid times {describe(valid.values)}; it has {has}.")
    return truth.sel(time=known)


def _row(figure: Figure, count: int, *, top: float, bottom: float, gap: float) -> list[SubplotSpec]:
    cells = figure.add_gridspec(1, count, left=MARGIN, right=0.975, top=top, bottom=bottom, wspace=gap)
    return [cells[column] for column in range(count)]


def _choose_maps(forecast: xr.Dataset) -> list[tuple[Quantity, int | None]]:
    """Returns height and pressure, or what the forecast has in their place: two fields, or one where there is no other.

    Raises:
        ValueError: there is nothing that a map knows.
    """
    held = list(held_by(forecast))
    if not held:
        known = ", ".join(QUANTITIES)
        raise ValueError(f"The forecast has {', '.join(map(str, forecast)) or 'no variables'}; a page shows {known}.")
    usual = [one for name in ("z", "msl") for one in held if one[0].name == name]
    return [*usual, *(one for one in held if one not in usual)][:2]


def whole(field: xr.DataArray, name: str) -> xr.DataArray:
    """Returns a field that it has read; raises ValueError that counts NaN, other than those of the sea over land."""
    field = field.load()
    if (count := int(field.isnull().sum())) and name != QUANTITIES["sst"].title:
        raise ValueError(f"{name}: {count} of {field.size} values are NaN.")
    return field


def _draw_spread(
    figure: Figure, cell: SubplotSpec, members: xr.DataArray, about: Quantity, level: int | None, *, place: Place
) -> None:
    axes, mean = add_map_axes(figure, cell, members), members.mean("number")
    if members.sizes["number"] > 1:
        shaded, shown, lines = members.reduce(spread_of, "number"), "Ensemble spread", "ensemble mean"
    else:
        shaded, shown, lines = mean, about.title, "one member"
    step = CONTOUR_STEPS.get(about.name) or float(np.diff(round_levels(mean))[0])
    levels = round_levels(shaded, least=ROUNDING * about.size_of(members))
    shading = draw_map(axes, shaded, levels=levels, lines=mean, line_step=step)
    if about.palette == "pressure":
        mark_extremes(axes, mean)
    here = (place.longitude_deg, place.latitude_deg)
    axes.plot(*here, "o", color=TRUTH, markersize=4, markeredgecolor="white", transform=crs.PlateCarree(), zorder=5)
    title = f"{about.title_at(level)}: {lines}, contours every {step:g} {about.units}"
    axes.set_title(title, fontsize=9, color=INK, pad=5)
    add_colour_bar(axes, shading, f"{shown} ({about.difference_units if lines == 'ensemble mean' else about.units})")


def _draw_plumes(
    figure: Figure, forecast: xr.Dataset, *, truth: xr.Dataset | None, place: Place, shown: np.timedelta64
) -> None:
    held = [about for about, level in held_by(forecast) if level is None]
    panels = [about for about in held if about.name in PLUMES] or held[:3]
    if not panels:
        return
    here, known, where = at_place(forecast, truth, place, panels)
    for about, cell in zip(panels, _row(figure, len(panels), top=0.375, bottom=0.115, gap=0.16), strict=True):
        axes = figure.add_subplot(cell)
        members, observed = whole(about.of(here), about.title), value_of(about, known)
        if about.accumulated_hours:
            draw_bars(axes, members, hours=about.accumulated_hours, truth=observed)
        else:
            draw_plume(axes, members, truth=observed)
        axes.set_title(f"{about.title} ({about.units})", fontsize=9, color=INK, loc="left", pad=5)
        axes.axvline(float(shown / DAY), color="0.4", linewidth=0.8, linestyle=":", label="time of the maps")
        style_lead_axis(axes, start_of(forecast), last_day=float(_find_lead(forecast, None) / DAY))
        if about.palette == "sequential":
            axes.set_ylim(bottom=0)
    add_legend(figure)
    figure.text(MARGIN, 0.42, where, fontsize=10, weight="bold", color=INK)


def at_place(
    forecast: xr.Dataset, truth: xr.Dataset | None, place: Place, shown: Iterable[Quantity]
) -> tuple[xr.Dataset, xr.Dataset, str]:
    """Returns the forecast of some quantities, which it reads, and the truth at the grid point nearest to a place.

    And a line that says where that is.

    Raises:
        ValueError: the place lies outside of the forecast's region.
    """
    points = points_of(forecast)
    if isinstance(points, Box) and not points.holds(place):
        raise ValueError(f"{place.name} lies outside of the forecast's region, {points}. Name another --place.")
    row, column = place.nearest(forecast)
    names = dict.fromkeys(name for about in shown for name in about.variables)
    here = forecast[list(names)].isel(latitude=row, longitude=column)
    here = load_together(here, "prediction_timedelta", STATES_AT_ONCE // here.sizes["number"])
    known = xr.Dataset() if truth is None else truth.isel(latitude=row, longitude=column)
    point = _degrees(float(here["latitude"]), float(here["longitude"]))
    return here, known, f"{place.name} {_degrees(place.latitude_deg, place.longitude_deg)}: nearest grid point {point}"


def value_of(about: Quantity, truth: xr.Dataset) -> xr.DataArray | None:
    """Returns a quantity of the truth where the truth has it."""
    return about.of(truth) if set(about.variables) <= set(truth) else None


def add_legend(figure: Figure) -> None:
    """Adds one legend of all panels below a figure."""
    entries: dict[str, Artist] = {}
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
    style: dict[str, Any] = {"loc": "lower center", "ncols": len(entries), "fontsize": SMALL_PT + 1, "frameon": False}
    figure.legend(list(entries.values()), list(entries), **style)


def say_source(forecast: xr.Dataset, longest: int = 90) -> str:
    """Says which model a forecast is of, and where its weather is not that of the real atmosphere."""
    unreal = unreal_note(forecast.attrs)
    source = str(forecast.attrs.get("source", "Ensemble forecast"))
    return textwrap.shorten(source, longest - len(unreal), placeholder=" ...") + unreal


def _write_heading(figure: Figure, forecast: xr.Dataset, shown: np.timedelta64) -> None:
    start = start_of(forecast)
    figure.text(MARGIN, 0.955, f"Forecast for {_say(start + shown)}", fontsize=16, weight="bold", color=INK)
    about = f"start {_say(start)}{analysis_note(forecast.attrs)} | day {shown / DAY:g} | {say_members(forecast)} | "
    figure.text(MARGIN, 0.925, about + say_source(forecast), fontsize=9, color="0.3")


def say_members(forecast: xr.Dataset) -> str:
    """Says how many members there are, or which one it is."""
    if (count := forecast.sizes["number"]) > 1:
        return f"{count} members"
    return f"member {int(forecast['number'][0])}" if "number" in forecast.coords else "one member"


def start_of(forecast: xr.Dataset) -> np.datetime64:
    """Returns the initial time of a forecast from one."""
    return np.datetime64(forecast["time"].item(), "ns")


def _say(time: np.datetime64) -> str:
    moment = time.astype("datetime64[s]").item()
    return f"{moment:%A} {moment.day} {moment:%B %Y, %H:%M} UTC"


def parallel(degrees: float) -> str:
    """Writes a latitude, such as 48.9°N."""
    return f"{abs(degrees):.3g}°{'S' if degrees < 0 else 'N'}"


def meridian(degrees: float) -> str:
    """Writes a longitude, such as 2.3°E."""
    east = (degrees + 180) % 360 - 180
    return f"{abs(east):.4g}°{'W' if east < 0 else 'E'}"


def _degrees(latitude: float, longitude: float) -> str:
    return f"{parallel(round(latitude, 1))} {meridian(round(longitude, 1))}"


BANDS = ((0.1, 0.9, "#d9e9f4"), (0.25, 0.75, "#a6cce5"))
"""Lower quantile, upper quantile, shade."""
FEWEST_IN_BANDS = 5
"""Members from which bands are drawn: quantiles of fewer are little but the members themselves."""


def draw_plume(axes: Axes, members: xr.DataArray, *, truth: xr.DataArray | None = None) -> None:
    """Draws members, their mean, and bands between quantiles of 5 members and more against lead time in days.

    Args:
        axes: plain axes; lines carry labels for a legend.
        members: values with dimensions number and prediction_timedelta.
        truth: values along prediction_timedelta, with gaps left out; drawn dashed.
    """
    members = members.transpose("prediction_timedelta", "number")
    days = lead_days(members)
    for low, high, shade in BANDS if members.sizes["number"] >= FEWEST_IN_BANDS else ():
        edges = members.quantile([low, high], dim="number").transpose("quantile", ...).values
        label = f"{low:.0%} to {high:.0%} of members"
        axes.fill_between(days, *edges, color=shade, linewidth=0, label=label)
    # matplotlib makes one line per column: only the first may enter the legend.
    labels = ["member", *["_nolegend_"] * (members.sizes["number"] - 1)]
    axes.plot(days, members.values, color=ENSEMBLE, alpha=0.45, linewidth=0.5, label=labels)
    if members.sizes["number"] > 1:
        axes.plot(days, members.mean("number").values, color=ENSEMBLE, linewidth=2, label="ensemble mean")
    if truth is not None:
        axes.plot(lead_days(truth), truth.values, color=TRUTH, linewidth=1.6, linestyle=(0, (4, 2)), label="truth")


def draw_bars(axes: Axes, members: xr.DataArray, *, hours: int, truth: xr.DataArray | None = None) -> None:
    """Draws a sum over some hours before each lead time: bars for the mean, lines for the range of most members.

    Args:
        axes: plain axes; what is drawn carries labels for a legend.
        members: values with dimensions number and prediction_timedelta.
        hours: over how many hours the values are summed, the width of a bar; what fell before the start is left out.
        truth: values along prediction_timedelta, with gaps left out; a level line across each bar.
    """
    members, width = without_start(members).transpose("prediction_timedelta", "number"), hours / 24
    middle = lead_days(members) - width / 2
    label = "sum: one member"
    if members.sizes["number"] > 1:
        low, high, _ = BANDS[0] if members.sizes["number"] >= FEWEST_IN_BANDS else (0.0, 1.0, "")
        ends = members.quantile([low, high], dim="number").transpose("quantile", ...).values
        axes.vlines(middle, *ends, color=ENSEMBLE, linewidth=1.0)
        label = f"sum: mean, {low:.0%} to {high:.0%}"
    axes.bar(middle, members.mean("number"), width=0.88 * width, color=BANDS[1][2], label=label)
    if truth is not None:
        truth = without_start(truth)
        days = lead_days(truth)
        axes.hlines(truth.values, days - width, days, color=TRUTH, linewidth=1.6, zorder=3)


def style_lead_axis(axes: Axes, init_time: np.datetime64, *, last_day: float) -> None:
    """Labels whole days of lead time, each with its date, and clears the frame."""

    def name(day: float, _: int | None = None) -> str:
        valid = (init_time + np.timedelta64(round(day * 24), "h")).astype("datetime64[s]").item()
        return f"{day:g}\n{valid.day} {valid:%b}"

    axes.set_xlim(0, last_day)
    axes.set_xlabel("Lead time (days), date", fontsize=SMALL_PT + 1, color=INK)
    quiet(axes)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(name))


def without_start(field: xr.DataArray) -> xr.DataArray:
    """Returns what lies after the start: at 0 h all members are the analysis, and sums are of the hours before."""
    return field.isel(prediction_timedelta=field["prediction_timedelta"].values.astype(int) > 0)


def lead_days(field: xr.DataArray) -> Float[np.ndarray, " lead"]:
    """Returns the lead times in days."""
    return np.asarray(field["prediction_timedelta"].values / DAY, dtype=float)
