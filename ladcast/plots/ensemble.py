"""Figures of an ensemble for slides: one map of anything, stamps of all members, spaghetti of one contour.

Fields are in the units of `ladcast.plots.quantities`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr
from cartopy import crs
from cartopy.mpl.geoaxes import GeoAxes
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.lines import Line2D

from ladcast.cf import QUINTILES_OF
from ladcast.grid import Region
from ladcast.plots import FIGURE_KINDS, FieldOptions
from ladcast.plots.forecast import say_source
from ladcast.plots.maps import (
    add_map_axes,
    central_longitude,
    draw_map,
    mark_extremes,
    refine_field,
    require_same_points,
)
from ladcast.plots.quantities import Quantity, find_quantity, spread_of
from ladcast.plots.style import ENSEMBLE, INK, SMALL_PT, TRUTH, bands, new_figure, style_bar, write_heading
from ladcast.times import DAY

STAMP_IN = (2.4, 1.4)
MAP_IN = (9.0, 5.4)
PANEL_IN = (4.2, 2.4)
LIKELY_PERCENT = (30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0)
"""Bounds of shades of what the climatology gives 20 %: below the lowest is white."""
TOP_IN, FOOT_IN = 0.85, 0.75


@dataclass(frozen=True)
class Shown:
    """One field of one forecast at one lead time, and what its figure says.

    `members` are those of the ensemble, `truth` is the analysis of the time on the same points, where there is one.

    Raises:
        ValueError: truth lies on other points.
    """

    quantity: Quantity
    level: int | None
    members: xr.DataArray
    truth: xr.DataArray | None
    source: str
    init_time: np.datetime64
    lead: np.timedelta64

    def __post_init__(self) -> None:
        if self.truth is not None:
            require_same_points(self.truth, self.members)

    @property
    def name(self) -> str:
        """Returns the field's title with its level."""
        return self.quantity.title_at(self.level)


def select_shown(forecast: xr.Dataset, field: str, lead: np.timedelta64, truth: xr.Dataset | None = None) -> Shown:
    """Reads one field of a forecast from one initial time at one lead time, in shown units.

    Raises:
        ValueError: there is no such field or lead time, there are several initial times, or truth lies on other points.
    """
    quantity, level = find_quantity(field)
    if forecast["time"].size != 1:
        raise ValueError(f"The figure shows one initial time, got {forecast['time'].size}. Choose one of them.")
    leads = forecast["prediction_timedelta"].values
    if lead not in leads:
        there = ", ".join(f"{value / DAY:g}" for value in leads)
        raise ValueError(f"Expected a lead time of {there} days, got {lead / DAY:g} days.")
    init_time = np.datetime64(forecast["time"].values.flat[0], "ns")
    at_lead = forecast.sel(prediction_timedelta=lead).squeeze("time") if "time" in forecast.dims else forecast
    known = None
    if truth is not None and init_time + lead in truth["time"].values and _has(truth, quantity, level):
        known = quantity.of(truth.sel(time=init_time + lead), level).load()
    members = quantity.of(at_lead, level).load()
    if "number" not in members.dims:  # one deterministic forecast, or one member of many
        members = members.assign_coords(number=members.coords.get("number", 0)).expand_dims("number")
    return Shown(quantity, level, members, known, say_source(forecast), init_time, lead)


def _has(truth: xr.Dataset, quantity: Quantity, level: int | None) -> bool:
    """Says whether a dataset holds a quantity, at its level."""
    if not set(quantity.variables) <= set(truth):
        return False
    return level is None or ("level" in truth and level in truth["level"].values)


def draw_figure(
    forecast: xr.Dataset, figure: str, of: FieldOptions, *, lead: np.timedelta64, truth: xr.Dataset | None = None
) -> Figure:
    """Draws one field of a forecast from one initial time at one lead time.

    Args:
        forecast: WeatherBench 2 names, SI units; one initial time.
        figure: `stamps`, `spaghetti`, `probability`, or what `draw_field` knows.
        of: the field, and where.
        lead: the lead time.
        truth: the same variables against valid time.

    Raises:
        ValueError: there is no such field, figure or lead time, or a value is missing.
    """
    shown = select_shown(forecast, of.field, lead, truth)
    if figure == "stamps":
        return draw_stamps(shown, region=of.bounds)
    if figure not in ("spaghetti", "probability"):
        return draw_field(shown, figure, region=of.bounds)
    if of.value is None:
        raise ValueError(f"A figure of {figure} needs --value, in {shown.quantity.units}.")
    if figure == "spaghetti":
        return draw_spaghetti(shown, of.value, region=of.bounds)
    return draw_probability(shown, of.value, below=of.below, region=of.bounds)


def draw_field(shown: Shown, kind: str = "mean", *, region: Region | None = None) -> Figure:
    """Draws one map: `mean`, `spread`, `difference` (mean minus analysis), or the number of a member.

    Raises:
        ValueError: the ensemble has no such member or only one, or there is no analysis.
    """
    members, quantity, units = shown.members, shown.quantity, shown.quantity.difference_units
    if kind == "spread":
        if members.sizes["number"] < 2:
            raise ValueError("The spread needs 2 members or more, the forecast has 1: draw its mean.")
        return _one_map(shown, members.reduce(spread_of, "number"), f"ensemble spread ({units})", "spread", region)
    if kind == "difference":
        if shown.truth is None:
            raise ValueError("There is no analysis of this time to subtract. Name one with --truth.")
        return _one_map(shown, members.mean("number") - shown.truth, f"mean minus analysis ({units})", kind, region)
    if kind == "mean":
        return _one_map(shown, members.mean("number"), f"ensemble mean ({quantity.units})", quantity.palette, region)
    numbers = [str(number) for number in members["number"].values]
    if kind not in numbers:
        known = ", ".join(FIGURE_KINDS)
        raise ValueError(f"Expected a figure of {known}, or of member {', '.join(numbers)}, got '{kind}'.")
    one = members.isel(number=numbers.index(kind))
    return _one_map(shown, one, f"member {kind} ({quantity.units})", quantity.palette, region)


def draw_probability(shown: Shown, threshold: float, *, below: bool = False, region: Region | None = None) -> Figure:
    """Draws the share of members above (or `below`) a threshold in shown units."""
    happens = shown.members < threshold if below else shown.members > threshold
    share = 100 * happens.where(shown.members.notnull()).mean("number", skipna=False)
    event = f"{'below' if below else 'above'} {threshold:g} {shown.quantity.units}"
    return _one_map(shown, share, f"share of members {event} (%)", "probability", region)


def draw_answer(answer: xr.Dataset) -> Figure:
    """Draws the share of members in which what was asked holds at any lead time, of one initial time.

    Raises:
        ValueError: there are several initial times.
    """
    if answer["time"].size != 1:
        raise ValueError(f"The map shows one initial time, got {answer['time'].size}. Choose one of them.")
    share = 100 * answer["probability_ever"].squeeze("time")
    figure = new_figure(MAP_IN)
    axes = add_map_axes(figure, map_cells(figure)[0, 0], share)
    levels, colours = bands(share, "probability")
    shading = draw_map(axes, share, levels=levels, colours=colours)
    add_bar(figure, shading, "share of members in which it holds at any time (%)")
    leads, start = answer["prediction_timedelta"].values, np.datetime_as_string(answer["time"].values[0], "h")
    about = f"day {leads[0] / DAY:g} to {leads[-1] / DAY:g} from {start} UTC | {answer.attrs.get('source', '')}"
    write_heading(figure, answer.attrs["question"], about)
    return figure


def draw_quintiles(quintiles: xr.Dataset) -> Figure:
    """Draws how likely the lowest and the highest fifth of the climatology are: a row for each field and week.

    Args:
        quintiles: what `ladcast.forecasts.weekly.quintile_probabilities` returns, of one initial time.

    Raises:
        ValueError: there are several initial times.
    """
    if quintiles["time"].size != 1:
        raise ValueError(f"The maps show one initial time, got {quintiles['time'].size}. Choose one with --times.")
    stacked = [
        (title, field.isel(prediction_timedelta=week))
        for name in quintiles.data_vars
        for title, field in _by_level(100 * quintiles[name].squeeze("time"), str(name).removesuffix(QUINTILES_OF))
        for week in range(field.sizes["prediction_timedelta"])
    ]
    figure = new_figure((2 * PANEL_IN[0], PANEL_IN[1] * len(stacked) + TOP_IN + FOOT_IN))
    cells = map_cells(figure, len(stacked), 2)
    for row, (title, field) in enumerate(stacked):
        end = int(field["prediction_timedelta"].values / DAY)
        for column, (name, fifth) in enumerate({"lowest": 0, "highest": -1}.items()):
            share = field.isel(quintile=fifth)
            axes = add_map_axes(figure, cells[row, column], share)
            levels, colours = bands(share, "probability", LIKELY_PERCENT)
            shading = draw_map(axes, share, levels=levels, colours=colours)
            axes.set_title(f"{title}, days {end - 6}-{end}: {name} fifth", fontsize=SMALL_PT + 1, color=INK, pad=3)
    add_bar(figure, shading, "share of members (%); of the climatology 20")
    start = np.datetime_as_string(quintiles["time"].values[0], "h")
    write_heading(figure, "Weekly means", f"from {start} UTC | {say_source(quintiles)}")
    return figure


def _by_level(field: xr.DataArray, name: str) -> list[tuple[str, xr.DataArray]]:
    title = name.replace("_", " ").capitalize()
    if "level" not in field.dims:
        return [(title, field)]
    return [(f"{title} {level} hPa", field.sel(level=level)) for level in field["level"].values.tolist()]


def draw_stamps(shown: Shown, *, region: Region | None = None) -> Figure:
    """Draws every member small, on one scale, behind the mean and the analysis where there is one."""
    members = shown.members
    panels = {"mean": members.mean("number")}
    panels |= {} if shown.truth is None else {"analysis": shown.truth}
    panels |= {str(number): members.sel(number=number) for number in members["number"].values}
    columns = min(len(panels), max(4, round(np.sqrt(1.3 * len(panels)))))
    rows = -(-len(panels) // columns)
    figure = new_figure((STAMP_IN[0] * columns, STAMP_IN[1] * rows + TOP_IN + FOOT_IN))
    cells = map_cells(figure, rows, columns)
    levels, colours = bands(members, shown.quantity.palette, shown.quantity.edges)
    for index, (name, field) in enumerate(panels.items()):
        axes = add_map_axes(figure, cells[divmod(index, columns)], field, region)
        shading = draw_map(axes, field, levels=levels, colours=colours)
        axes.set_title(name, fontsize=SMALL_PT, color=TRUTH if name == "analysis" else INK, pad=2)
    add_bar(figure, shading, f"{shown.name} ({shown.quantity.units})")
    count = members.sizes["number"]
    write_title(figure, shown, f"{shown.name}: {count} member{'s' if count > 1 else ''}")
    return figure


def draw_spaghetti(shown: Shown, value: float, *, region: Region | None = None) -> Figure:
    """Draws where every member has one value, the mean thick, and the analysis where there is one."""
    figure = new_figure(MAP_IN)
    axes = add_map_axes(figure, map_cells(figure)[0, 0], shown.members, region)
    for number in shown.members["number"].values:
        _contour(axes, shown.members.sel(number=number), value, ENSEMBLE, 0.6)
    _contour(axes, shown.members.mean("number"), value, INK, 2.0)
    if shown.truth is not None:
        _contour(axes, shown.truth, value, TRUTH, 1.6)
    lines = {"member": (ENSEMBLE, 0.6), "ensemble mean": (INK, 2.0)}
    lines |= {} if shown.truth is None else {"analysis": (TRUTH, 1.6)}
    handles = [Line2D([], [], color=colour, linewidth=width, label=name) for name, (colour, width) in lines.items()]
    figure.legend(handles=handles, loc="lower center", ncols=3, fontsize=SMALL_PT + 1, frameon=False)
    write_title(figure, shown, f"{shown.name}: where it is {value:g} {shown.quantity.units}")
    return figure


def _one_map(shown: Shown, field: xr.DataArray, label: str, palette: str, region: Region | None) -> Figure:
    figure = new_figure(MAP_IN)
    axes = add_map_axes(figure, map_cells(figure)[0, 0], field, region)
    edges = shown.quantity.edges if palette == shown.quantity.palette else ()
    levels, colours = bands(field, palette, edges, size=shown.quantity.size_of(shown.members))
    add_bar(figure, draw_map(axes, field, levels=levels, colours=colours), label)
    if palette == "pressure":
        mark_extremes(axes, field)
    write_title(figure, shown, shown.name)
    return figure


def add_bar(figure: Figure, shading: QuadContourSet, label: str) -> None:
    """Adds the colour bar of a figure below its maps."""
    height = figure.get_figheight()
    cell = figure.add_axes((0.2, 0.45 / height, 0.6, 0.12 / height))
    style_bar(figure.colorbar(shading, cax=cell, orientation="horizontal"), label)


def map_cells(figure: Figure, rows: int = 1, columns: int = 1) -> GridSpec:
    """Divides a figure below its title and above its colour bar."""
    height = figure.get_figheight()
    return figure.add_gridspec(
        rows, columns, left=0.02, right=0.98, top=1 - TOP_IN / height, bottom=FOOT_IN / height, wspace=0.05, hspace=0.16
    )


def _contour(axes: GeoAxes, field: xr.DataArray, value: float, colour: str, width_pt: float) -> None:
    fine = refine_field(field, central_longitude(axes))
    longitude, latitude = np.meshgrid(fine["longitude"], fine["latitude"])
    if fine.min() < value < fine.max():
        axes.contour(
            longitude, latitude, fine.values, levels=[value], colors=colour, linewidths=width_pt,
            transform=crs.PlateCarree(), transform_first=True,
        )  # fmt: skip


def write_title(figure: Figure, shown: Shown, title: str) -> None:
    """Writes above a figure what it shows, when, and whose forecast it is."""
    valid = (shown.init_time + shown.lead).astype("datetime64[s]").item()
    start = shown.init_time.astype("datetime64[s]").item()
    when = f"valid {valid:%a} {valid.day} {valid:%b %Y, %H} UTC | day {shown.lead / DAY:g}"
    write_heading(figure, title, f"{when} from {start.day} {start:%b, %H} UTC | {shown.source}")
