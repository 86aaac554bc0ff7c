"""The summary figure of one forecast: maps of ensemble mean and spread above, plumes at a place below."""

from __future__ import annotations

import textwrap

import numpy as np
import xarray as xr
from cartopy import crs
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec

from ladcast.grid import Grid, Place
from ladcast.plots.maps import add_colour_bar, add_global_axes, draw_map
from ladcast.plots.plumes import draw_plume, style_lead_axis
from ladcast.plots.quantities import MAPS, TEMPERATURE, WHERE_PRESENT, Quantity
from ladcast.plots.style import INK, MARGIN, SMALL_PT, TRUTH, new_figure
from ladcast.times import DAY, describe


def draw_forecast(
    forecast: xr.Dataset, *, place: Place, truth: xr.Dataset | None = None, lead: np.timedelta64 | None = None
) -> Figure:
    """Draws the maps of one lead time and the plumes of one place on an A4 sheet.

    Maps show the ensemble mean as contours over the spread (standard deviation of M members, divisor M - 1).
    Plumes show the grid point nearest to the place: temperature, and wind and precipitation where present.

    Args:
        forecast: WeatherBench 2 names, SI units; dimensions time (one start), prediction_timedelta, number
            (2 or more), level, latitude, longitude. The attribute `source` names the model, `unreal` says that its
            weather is not that of the real atmosphere.
        place: the point of the plumes.
        truth: the same variables against valid time, on the forecast's grid; its gaps stay blank.
        lead: lead time of the maps; the last one by default.

    Raises:
        ValueError: a variable, level or dimension is missing, there are several starts, the lead time or
            truth does not fit the forecast, or a field has NaN.
    """
    forecast = _one_forecast(forecast)
    shown = _find_lead(forecast, lead)
    known = None if truth is None else _align(truth, forecast)
    at_lead = forecast.sel(prediction_timedelta=shown)
    for quantity in (*MAPS, TEMPERATURE):
        quantity.of(at_lead)  # what is missing is said before anything is drawn
    figure = new_figure()
    for quantity, cell in zip(MAPS, _row(figure, len(MAPS), top=0.89, bottom=0.505, gap=0.03), strict=True):
        _draw_spread(figure, cell, quantity.of(at_lead), about=quantity, place=place)
    _draw_plumes(figure, forecast, truth=known, place=place, shown=shown)
    _write_heading(figure, forecast, shown)
    return figure


def _one_forecast(forecast: xr.Dataset) -> xr.Dataset:
    needed = ("prediction_timedelta", "number", "latitude", "longitude")
    if missing := [name for name in needed if name not in forecast.dims]:
        raise ValueError(f"A forecast needs the dimensions {', '.join(needed)}; missing: {', '.join(missing)}.")
    if "time" not in forecast.coords or forecast["time"].size != 1:
        starts = describe(forecast["time"].values) if "time" in forecast.coords else "none"
        raise ValueError(f"The figure shows one start, got {starts}. Select one: forecast.sel(time=[...]).")
    if forecast.sizes["number"] < 2:
        raise ValueError("The figure shows the spread between members: expected 2 or more, got 1.")
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


def _align(truth: xr.Dataset, forecast: xr.Dataset) -> xr.Dataset:
    """Puts truth on the forecast's lead times, less those that it lacks."""
    theirs, ours = (Grid(tuple(d["latitude"].values), tuple(d["longitude"].values)) for d in (truth, forecast))
    if not theirs.matches(ours):
        raise ValueError(f"Truth lies on {theirs}, the forecast on {ours}: bring truth to the forecast's grid first.")
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


def _draw_spread(figure: Figure, cell: SubplotSpec, members: xr.DataArray, *, about: Quantity, place: Place) -> None:
    axes = add_global_axes(figure, cell)
    shading = draw_map(axes, members.std("number", ddof=1), lines=members.mean("number"), line_step=about.step)
    here = (place.longitude_deg, place.latitude_deg)
    axes.plot(*here, "o", color=TRUTH, markersize=4, markeredgecolor="white", transform=crs.PlateCarree(), zorder=5)
    axes.set_title(
        f"{about.title}: ensemble mean, contours every {about.step:g} {about.units}", fontsize=9, color=INK, pad=5
    )
    add_colour_bar(axes, shading, f"Ensemble spread ({about.units})")


def _draw_plumes(
    figure: Figure, forecast: xr.Dataset, *, truth: xr.Dataset | None, place: Place, shown: np.timedelta64
) -> None:
    at_row, at_column = place.nearest(forecast)
    here = forecast.isel(latitude=at_row, longitude=at_column)
    truth_here = xr.Dataset() if truth is None else truth.isel(latitude=at_row, longitude=at_column)
    quantities = [TEMPERATURE, *(quantity for quantity in WHERE_PRESENT if not quantity.missing(forecast))]
    cells = _row(figure, len(quantities), top=0.375, bottom=0.115, gap=0.16)
    for quantity, cell in zip(quantities, cells, strict=True):
        axes = figure.add_subplot(cell)
        draw_plume(axes, quantity.of(here), truth=None if quantity.missing(truth_here) else quantity.of(truth_here))
        axes.set_title(f"{quantity.title} ({quantity.units})", fontsize=9, color=INK, loc="left", pad=5)
        axes.axvline(float(shown / DAY), color="0.4", linewidth=0.8, linestyle=":", label="time of the maps")
        style_lead_axis(axes, _start(forecast), last_day=float(_find_lead(forecast, None) / DAY))
        axes.set_ylim(bottom=quantity.floor)
    _add_legend(figure)
    where = f"{place.name} {_degrees(place.latitude_deg, place.longitude_deg)}"
    point = _degrees(float(here["latitude"]), float(here["longitude"]))
    figure.text(MARGIN, 0.42, f"{where}: nearest grid point {point}", fontsize=10, weight="bold", color=INK)


def _add_legend(figure: Figure) -> None:
    handles, labels = figure.axes[-1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=len(labels), fontsize=SMALL_PT + 1, frameon=False)


def _write_heading(figure: Figure, forecast: xr.Dataset, shown: np.timedelta64) -> None:
    start = _start(forecast)
    unreal = "  |  model weather, not the real atmosphere" if forecast.attrs.get("unreal") else ""
    source = str(forecast.attrs.get("source", "Ensemble forecast"))
    model = textwrap.shorten(source, 90 - len(unreal), placeholder=" ...")
    figure.text(MARGIN, 0.955, f"Forecast for {_say(start + shown)}", fontsize=16, weight="bold", color=INK)
    figure.text(
        MARGIN,
        0.925,
        f"{model}  |  start {_say(start)}  |  day {shown / DAY:g}  |  {forecast.sizes['number']} members{unreal}",
        fontsize=9,
        color="0.3",
    )


def _start(forecast: xr.Dataset) -> np.datetime64:
    return np.datetime64(forecast["time"].item(), "ns")


def _say(time: np.datetime64) -> str:
    moment = time.astype("datetime64[s]").item()
    return f"{moment:%A} {moment.day} {moment:%B %Y, %H:%M} UTC"


def _degrees(latitude: float, longitude: float) -> str:
    east = (longitude + 180) % 360 - 180
    return f"{abs(latitude):.1f}°{'S' if latitude < 0 else 'N'} {abs(east):.1f}°{'W' if east < 0 else 'E'}"
