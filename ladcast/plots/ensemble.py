"""Figures of an ensemble for slides: one map of anything, stamps of all members, spaghetti of one contour.

Fields are in the units of `ladcast.plots.quantities`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr
from cartopy import crs
from cartopy.mpl.geoaxes import GeoAxes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ladcast.grid import circles_globe
from ladcast.plots.maps import add_global_axes, central_longitude, draw_map, refine_field
from ladcast.plots.options import FieldOptions, Region
from ladcast.plots.quantities import PALETTES, Quantity, find_quantity
from ladcast.plots.style import ENSEMBLE, INK, SMALL_PT, TRUTH, new_figure, style_bar
from ladcast.times import DAY

STAMP_IN = (2.4, 1.4)
MAP_IN = (9.0, 5.4)
TOP_IN, FOOT_IN = 0.85, 0.75
PROBABILITY_PERCENT = (5.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 95.0)


@dataclass(frozen=True)
class Shown:
    """One field of one forecast at one lead time, and what its figure says.

    `members` are those of the ensemble, `truth` is the analysis of the time, where there is one.
    """

    quantity: Quantity
    level: int | None
    members: xr.DataArray
    truth: xr.DataArray | None
    source: str
    init_time: np.datetime64
    lead: np.timedelta64

    @property
    def name(self) -> str:
        """Returns the field's title with its level."""
        return f"{self.quantity.title}{'' if self.level is None else f' at {self.level} hPa'}"


def select_shown(forecast: xr.Dataset, field: str, lead: np.timedelta64, truth: xr.Dataset | None = None) -> Shown:
    """Reads one field of a forecast from one initial time at one lead time, in shown units.

    Raises:
        ValueError: there is no such field or lead time, or there are several initial times.
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
    source = str(forecast.attrs.get("source", "Ensemble forecast"))
    unreal = " | model weather, not the real atmosphere" if forecast.attrs.get("unreal") else ""
    return Shown(quantity, level, members, known, source + unreal, init_time, lead)


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
        return _one_map(shown, members.std("number", ddof=1), f"ensemble spread ({units})", "spread", region)
    if kind == "difference":
        if shown.truth is None:
            raise ValueError("There is no analysis of this time to subtract. Name one with --truth.")
        return _one_map(shown, members.mean("number") - shown.truth, f"mean minus analysis ({units})", kind, region)
    if kind == "mean":
        return _one_map(shown, members.mean("number"), f"ensemble mean ({quantity.units})", quantity.palette, region)
    numbers = [str(number) for number in members["number"].values]
    if kind not in numbers:
        known = "page, mean, spread, difference, stamps, spaghetti, probability"
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
    share, region = 100 * answer["probability_ever"].squeeze("time"), _covered(answer)
    figure = new_figure(MAP_IN)
    axes = add_global_axes(figure, _cells(figure, 1, 1)[0, 0], projection=_projection(region))
    shading = draw_map(axes, share, levels=np.array(PROBABILITY_PERCENT), colours=_colours("sequential"))
    _cut(axes, region)
    _add_bar(figure, shading, "share of members in which it holds at any time (%)")
    height, leads = figure.get_figheight(), answer["prediction_timedelta"].values
    start = np.datetime_as_string(answer["time"].values[0], "h")
    about = f"day {leads[0] / DAY:g} to {leads[-1] / DAY:g} from {start} UTC | {answer.attrs.get('source', '')}"
    figure.text(0.02, 1 - 0.25 / height, answer.attrs["question"], fontsize=12, weight="bold", color=INK, va="center")
    figure.text(0.02, 1 - 0.5 / height, about, fontsize=SMALL_PT + 1, color="0.3", va="center")
    return figure


def draw_stamps(shown: Shown, *, region: Region | None = None) -> Figure:
    """Draws every member small, on one scale, behind the mean and the analysis where there is one."""
    members = shown.members
    region = region or _covered(members)
    panels = {"mean": members.mean("number")}
    panels |= {} if shown.truth is None else {"analysis": shown.truth}
    panels |= {str(number): members.sel(number=number) for number in members["number"].values}
    columns = min(len(panels), max(4, round(np.sqrt(1.3 * len(panels)))))
    rows = -(-len(panels) // columns)
    figure = new_figure((STAMP_IN[0] * columns, STAMP_IN[1] * rows + TOP_IN + FOOT_IN))
    cells = _cells(figure, rows, columns)
    levels, colours = _bands(members, shown.quantity.palette, shown.quantity)
    for index, (name, field) in enumerate(panels.items()):
        axes = add_global_axes(figure, cells[divmod(index, columns)], projection=_projection(region))
        shading = draw_map(axes, field, levels=levels, colours=colours)
        _cut(axes, region)
        axes.set_title(name, fontsize=SMALL_PT, color=TRUTH if name == "analysis" else INK, pad=2)
    _add_bar(figure, shading, f"{shown.name} ({shown.quantity.units})")
    count = members.sizes["number"]
    _write_title(figure, shown, f"{shown.name}: {count} member{'s' if count > 1 else ''}")
    return figure


def draw_spaghetti(shown: Shown, value: float, *, region: Region | None = None) -> Figure:
    """Draws where every member has one value, the mean thick, and the analysis where there is one."""
    region = region or _covered(shown.members)
    figure = new_figure(MAP_IN)
    axes = add_global_axes(figure, _cells(figure, 1, 1)[0, 0], projection=_projection(region))
    for number in shown.members["number"].values:
        _contour(axes, shown.members.sel(number=number), value, ENSEMBLE, 0.6)
    _contour(axes, shown.members.mean("number"), value, INK, 2.0)
    if shown.truth is not None:
        _contour(axes, shown.truth, value, TRUTH, 1.6)
    _cut(axes, region)
    lines = {"member": (ENSEMBLE, 0.6), "ensemble mean": (INK, 2.0)}
    lines |= {} if shown.truth is None else {"analysis": (TRUTH, 1.6)}
    handles = [Line2D([], [], color=colour, linewidth=width, label=name) for name, (colour, width) in lines.items()]
    figure.legend(handles=handles, loc="lower center", ncols=3, fontsize=SMALL_PT + 1, frameon=False)
    _write_title(figure, shown, f"{shown.name}: where it is {value:g} {shown.quantity.units}")
    return figure


def _one_map(shown: Shown, field: xr.DataArray, label: str, palette: str, region: Region | None) -> Figure:
    region = region or _covered(shown.members)
    figure = new_figure(MAP_IN)
    axes = add_global_axes(figure, _cells(figure, 1, 1)[0, 0], projection=_projection(region))
    levels, colours = _bands(field, palette, shown.quantity)
    shading = draw_map(axes, field, levels=levels, colours=colours)
    _cut(axes, region)
    _add_bar(figure, shading, label)
    _write_title(figure, shown, shown.name)
    return figure


def _add_bar(figure: Figure, shading: QuadContourSet, label: str) -> None:
    height = figure.get_figheight()
    cell = figure.add_axes((0.2, 0.45 / height, 0.6, 0.12 / height))
    style_bar(figure.colorbar(shading, cax=cell, orientation="horizontal"), label)


def _bands(field: xr.DataArray, palette: str, quantity: Quantity) -> tuple[np.ndarray, LinearSegmentedColormap]:
    """Returns the bounds of the shades and their colours; differences have white around zero."""
    if palette == "probability":
        return np.array(PROBABILITY_PERCENT), _colours("sequential")
    if quantity.edges and palette == quantity.palette:
        return np.array(quantity.edges), _colours("sequential")
    low, high = (float(value) for value in np.nanquantile(field, [0.005, 0.995]))
    if palette in ("difference", "diverging"):
        most = max(abs(low), abs(high), 1e-9)
        step = np.diff(MaxNLocator(12, steps=[1, 2, 2.5, 5, 10]).tick_values(-most, most))[0]
        count = max(1, int(np.ceil(most / step - 0.5)))
        return (np.arange(2 * count) - count + 0.5) * step, _colours("diverging")
    low = 0.0 if palette in ("sequential", "spread") else low
    levels = MaxNLocator(14, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    return np.asarray(levels), _colours("sequential" if palette == "spread" else palette)


def _colours(palette: str) -> LinearSegmentedColormap:
    return LinearSegmentedColormap.from_list(palette, PALETTES[palette])


def _cells(figure: Figure, rows: int, columns: int) -> GridSpec:
    height = figure.get_figheight()
    return figure.add_gridspec(
        rows, columns, left=0.02, right=0.98, top=1 - TOP_IN / height, bottom=FOOT_IN / height, wspace=0.05, hspace=0.16
    )


def _covered(field: xr.DataArray | xr.Dataset) -> Region | None:
    """Returns the region that a field's points span, None for the globe."""
    longitude, latitude = field["longitude"].values, field["latitude"].values
    if circles_globe(longitude):
        return None
    return float(longitude[0]), float(latitude.min()), float(longitude[-1]), float(latitude.max())


def _width(region: Region) -> float:
    """Returns how many degrees a region goes eastward from its west: all around where both edges are one meridian."""
    west, _, east, _ = region
    return (east - west) % 360 or 360.0


def _projection(region: Region | None) -> crs.Projection | None:
    """Returns the projection of a region, None for that of the globe."""
    return None if region is None else crs.PlateCarree(central_longitude=region[0] + _width(region) / 2)


def _cut(axes: GeoAxes, region: Region | None) -> None:
    """Cuts a map to a region, as wide as it is in its middle."""
    if region is None:
        return
    _, south, _, north = region
    half = _width(region) / 2
    # In degrees from the middle: `set_extent` takes a map of all longitudes for one of none.
    axes.set_xlim(-half, half)
    axes.set_ylim(south, north)
    axes.set_aspect(1 / max(np.cos(np.deg2rad((south + north) / 2)), 0.2))


def _contour(axes: GeoAxes, field: xr.DataArray, value: float, colour: str, width_pt: float) -> None:
    fine = refine_field(field, central_longitude(axes))
    longitude, latitude = np.meshgrid(fine["longitude"], fine["latitude"])
    if fine.min() < value < fine.max():
        axes.contour(
            longitude, latitude, fine.values, levels=[value], colors=colour, linewidths=width_pt,
            transform=crs.PlateCarree(), transform_first=True,
        )  # fmt: skip


def _write_title(figure: Figure, shown: Shown, title: str) -> None:
    height = figure.get_figheight()
    valid = (shown.init_time + shown.lead).astype("datetime64[s]").item()
    start = shown.init_time.astype("datetime64[s]").item()
    figure.text(0.02, 1 - 0.25 / height, title, fontsize=12, weight="bold", color=INK, va="center")
    when = f"valid {valid:%a} {valid.day} {valid:%b %Y, %H} UTC | day {shown.lead / DAY:g}"
    about = f"{when} from {start.day} {start:%b, %H} UTC | {shown.source}"
    figure.text(0.02, 1 - 0.5 / height, about, fontsize=SMALL_PT + 1, color="0.3", va="center")
