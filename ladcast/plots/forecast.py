"""The summary figure of one forecast: maps of ensemble mean and spread above, plumes at a place below."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import xarray as xr
from cartopy import crs
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from matplotlib.ticker import FuncFormatter, MaxNLocator

from ladcast.grid import Box, Place, points_of
from ladcast.plots.maps import add_colour_bar, add_map_axes, draw_map
from ladcast.plots.style import ENSEMBLE, INK, MARGIN, SMALL_PT, TRUTH, new_figure, quiet
from ladcast.times import DAY, describe
from ladcast.units import GRAVITY, ZERO_CELSIUS_K

SHOWN_DAY = 5
"""The last day whose maps are drawn unless another is asked for."""


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
    Plumes show the grid point nearest to the place: temperature, and wind and precipitation where present.

    Args:
        forecast: WeatherBench 2 names, SI units; dimensions time (one start), prediction_timedelta, number,
            level, latitude, longitude. The attribute `source` names the model, `unreal` says that its
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
    for panel in (*MAPS, TEMPERATURE):
        panel.of(at_lead)  # what is missing is said before anything is drawn
    figure = new_figure()
    for panel, cell in zip(MAPS, _row(figure, len(MAPS), top=0.89, bottom=0.505, gap=0.03), strict=True):
        _draw_spread(figure, cell, panel.of(at_lead), about=panel, place=place)
    _draw_plumes(figure, forecast, truth=known, place=place, shown=shown)
    _write_heading(figure, forecast, shown)
    return figure


def _one_forecast(forecast: xr.Dataset) -> xr.Dataset:
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


def _align(truth: xr.Dataset, forecast: xr.Dataset) -> xr.Dataset:
    """Puts truth on the forecast's lead times, less those that it lacks."""
    theirs, ours = points_of(truth), points_of(forecast)
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


def _draw_spread(figure: Figure, cell: SubplotSpec, members: xr.DataArray, *, about: Panel, place: Place) -> None:
    axes, mean = add_map_axes(figure, cell, members), members.mean("number")
    if members.sizes["number"] > 1:
        shaded, shown, lines = members.std("number", ddof=1), "Ensemble spread", "ensemble mean"
    else:
        shaded, shown, lines = mean, about.title, "one member"
    shading = draw_map(axes, shaded, lines=mean, line_step=about.step)
    here = (place.longitude_deg, place.latitude_deg)
    axes.plot(*here, "o", color=TRUTH, markersize=4, markeredgecolor="white", transform=crs.PlateCarree(), zorder=5)
    title = f"{about.title}: {lines}, contours every {about.step:g} {about.units}"
    axes.set_title(title, fontsize=9, color=INK, pad=5)
    add_colour_bar(axes, shading, f"{shown} ({about.units})")


def _draw_plumes(
    figure: Figure, forecast: xr.Dataset, *, truth: xr.Dataset | None, place: Place, shown: np.timedelta64
) -> None:
    points = points_of(forecast)
    if isinstance(points, Box) and not points.holds(place):
        raise ValueError(f"{place.name} lies outside of the forecast's region, {points}. Name another --place.")
    at_row, at_column = place.nearest(forecast)
    here = forecast.isel(latitude=at_row, longitude=at_column)
    truth_here = xr.Dataset() if truth is None else truth.isel(latitude=at_row, longitude=at_column)
    panels = [TEMPERATURE, *(panel for panel in WHERE_PRESENT if not panel.missing(forecast))]
    cells = _row(figure, len(panels), top=0.375, bottom=0.115, gap=0.16)
    for panel, cell in zip(panels, cells, strict=True):
        axes = figure.add_subplot(cell)
        draw_plume(axes, panel.of(here), truth=None if panel.missing(truth_here) else panel.of(truth_here))
        axes.set_title(f"{panel.title} ({panel.units})", fontsize=9, color=INK, loc="left", pad=5)
        axes.axvline(float(shown / DAY), color="0.4", linewidth=0.8, linestyle=":", label="time of the maps")
        style_lead_axis(axes, _start(forecast), last_day=float(_find_lead(forecast, None) / DAY))
        axes.set_ylim(bottom=panel.floor)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=len(labels), fontsize=SMALL_PT + 1, frameon=False)
    where = f"{place.name} {_degrees(place.latitude_deg, place.longitude_deg)}"
    point = _degrees(float(here["latitude"]), float(here["longitude"]))
    figure.text(MARGIN, 0.42, f"{where}: nearest grid point {point}", fontsize=10, weight="bold", color=INK)


def _write_heading(figure: Figure, forecast: xr.Dataset, shown: np.timedelta64) -> None:
    start = _start(forecast)
    unreal = "  |  model weather, not the real atmosphere" if forecast.attrs.get("unreal") else ""
    source = str(forecast.attrs.get("source", "Ensemble forecast"))
    model = textwrap.shorten(source, 90 - len(unreal), placeholder=" ...")
    figure.text(MARGIN, 0.955, f"Forecast for {_say(start + shown)}", fontsize=16, weight="bold", color=INK)
    figure.text(
        MARGIN,
        0.925,
        f"{model}  |  start {_say(start)}  |  day {shown / DAY:g}  |  {_members(forecast)}{unreal}",
        fontsize=9,
        color="0.3",
    )


def _members(forecast: xr.Dataset) -> str:
    """Says how many members there are, or which one it is."""
    if (count := forecast.sizes["number"]) > 1:
        return f"{count} members"
    return f"member {int(forecast['number'][0])}" if "number" in forecast.coords else "one member"


def _start(forecast: xr.Dataset) -> np.datetime64:
    return np.datetime64(forecast["time"].item(), "ns")


def _say(time: np.datetime64) -> str:
    moment = time.astype("datetime64[s]").item()
    return f"{moment:%A} {moment.day} {moment:%B %Y, %H:%M} UTC"


def _degrees(latitude: float, longitude: float) -> str:
    east = (longitude + 180) % 360 - 180
    return f"{abs(latitude):.1f}°{'S' if latitude < 0 else 'N'} {abs(east):.1f}°{'W' if east < 0 else 'E'}"


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


def lead_days(field: xr.DataArray) -> Float[np.ndarray, " lead"]:
    """Returns the lead times in days."""
    return np.asarray(field["prediction_timedelta"].values / DAY, dtype=float)


@dataclass(frozen=True)
class Panel:
    """What a panel shows, in the units people read, and how to get there from WeatherBench 2 fields.

    `step` is the distance between contours on a map, `floor` the lowest value that a plume's axis must show.
    """

    title: str
    units: str
    needs: tuple[str, ...]
    convert: Callable[..., xr.DataArray]
    step: float | None = None
    floor: float | None = None

    def missing(self, dataset: xr.Dataset) -> list[str]:
        """Returns the names of variables that the dataset lacks."""
        return [name for name in self.needs if name not in dataset]

    def of(self, dataset: xr.Dataset) -> xr.DataArray:
        """Converts SI fields; raises ValueError that names a missing variable or level, or counts NaN."""
        if missing := self.missing(dataset):
            has = ", ".join(map(str, dataset))
            raise ValueError(f"{self.title} needs {', '.join(missing)}, missing here; the dataset has {has}.")
        field = self.convert(*(dataset[name] for name in self.needs))
        if count := int(field.isnull().sum()):
            raise ValueError(f"{self.title}: {count} of {field.size} values are NaN ({', '.join(self.needs)}).")
        return field


def _height_500(geopotential: xr.DataArray) -> xr.DataArray:
    if "level" not in geopotential.dims or 500 not in geopotential["level"]:
        levels = geopotential["level"].values.tolist() if "level" in geopotential.coords else "no levels"
        raise ValueError(f"The map of 500 hPa needs geopotential at level 500, got {levels}.")
    return geopotential.sel(level=500) / GRAVITY / 10


MAPS = (
    Panel("500 hPa height", "dam", ("geopotential",), _height_500, step=8.0),
    Panel("Mean sea level pressure", "hPa", ("mean_sea_level_pressure",), lambda pressure: pressure / 100, step=5.0),
)
TEMPERATURE = Panel("2 m temperature", "°C", ("2m_temperature",), lambda kelvin: kelvin - ZERO_CELSIUS_K)
WHERE_PRESENT = (
    Panel("10 m wind speed", "m/s", ("10m_u_component_of_wind", "10m_v_component_of_wind"), np.hypot, floor=0.0),
    Panel("Precipitation in 6 h", "mm", ("total_precipitation_6hr",), lambda metres: metres * 1000, floor=0.0),
)
