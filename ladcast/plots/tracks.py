"""Figures of cyclone tracks: members with the best track, strike probability, growth of errors with lead time.

Tables of tracks have a row per storm, member and time along `point`, as `ladcast.cyclones` makes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import cycle, product
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from cartopy import crs
from cartopy.mpl.geoaxes import GeoAxes
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from matplotlib.patheffects import withStroke
from matplotlib.ticker import PercentFormatter

from ladcast.plots.maps import add_coastlines, crowds
from ladcast.plots.style import (
    AMBER,
    ENSEMBLE,
    GREEN,
    INK,
    MARGIN,
    PINK,
    SKY,
    SMALL_PT,
    TRUTH,
    new_figure,
    quiet,
    sequential_colours,
    style_bar,
    unreal_note,
)
from ladcast.times import DAY, HOUR

MARGIN_KM, LEAST_KM = 400.0, 1600.0
ASPECT = 1.32
"""Width of a map over its height."""
STRIKE_LEVELS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
LONGEST_LINE = DAY
TRACK_COLOURS = (ENSEMBLE, AMBER, GREEN, PINK, SKY)
TRACK_MARKERS = ("", "o", "s", "^")


def looks(systems: Mapping[str, xr.Dataset]) -> Iterator[tuple[str, xr.Dataset, str, str]]:
    """Yields systems with a colour and a marker: of more systems than colours, lines with a marker begin anew."""
    looks = cycle(product(TRACK_MARKERS, TRACK_COLOURS))
    for (name, system), (marker, colour) in zip(systems.items(), looks, strict=False):
        yield name, system, colour, marker


def add_track_axes(figure: Figure, cell: SubplotSpec, *tables: xr.Dataset) -> GeoAxes:
    """Adds a map that holds all positions of some tables: equal-area and centred on them, so also on a pole."""
    latitude = np.concatenate([table["latitude"].values for table in tables])
    longitude = np.concatenate([table["longitude"].values for table in tables])
    centre = _middle(latitude, longitude)
    projection = crs.LambertAzimuthalEqualArea(central_longitude=centre[1], central_latitude=centre[0])
    axes: GeoAxes = figure.add_subplot(cell, projection=projection)
    x, y = _project(axes, latitude, longitude)
    middle = (x.min() + x.max()) / 2, (y.min() + y.max()) / 2
    margin, least = MARGIN_KM * 1e3, LEAST_KM * 1e3
    height = max(np.ptp(y) + 2 * margin, (np.ptp(x) + 2 * margin) / ASPECT, least)
    axes.set_xlim(middle[0] - height * ASPECT / 2, middle[0] + height * ASPECT / 2)
    axes.set_ylim(middle[1] - height / 2, middle[1] + height / 2)
    add_coastlines(axes)
    _add_graticule(axes, height)
    return axes


def draw_spaghetti(
    axes: GeoAxes, tracks: xr.Dataset, *, best: xr.Dataset | None = None, mean: xr.Dataset | None = None
) -> None:
    """Draws each member's track, the track of the ensemble mean, and the best track with a dot and the date each day.

    The mean ends where too few members have the storm for the first time: where some have it again, it would jump.
    All tables hold one storm; `tracks` has the column `number`.
    """
    members = (np.flatnonzero(tracks["number"].values == number) for number in np.unique(tracks["number"].values))
    lines = [line for member in members for line in _lines(axes, tracks.isel(point=member))]
    axes.add_collection(LineCollection(lines, colors=ENSEMBLE, linewidths=0.6, alpha=0.45, label="member", zorder=3))
    ends = [line[-1] for line in lines]
    axes.plot(*np.transpose(ends), ".", color=ENSEMBLE, markersize=3, zorder=3, label="last position")
    if mean is not None:
        _draw_line(axes, _first_part(mean), ENSEMBLE, "-", "ensemble mean")
    if best is not None:
        _draw_line(axes, best, TRUTH, (0, (4, 2)), "best track")
        _name_days(axes, best)
    axes.legend(loc="best", fontsize=SMALL_PT, framealpha=0.9, edgecolor="0.8", borderpad=0.5)


def draw_strike_probability(
    axes: GeoAxes, probability: xr.DataArray, *, best: xr.Dataset | None = None
) -> QuadContourSet:
    """Shades the share of members that pass within the strike radius (dims latitude, longitude), from 5 % on.

    Returns:
        the shading, for a colour bar.
    """
    centre = axes.projection.proj4_params["lon_0"]
    east = (probability["longitude"].values - centre + 180) % 360 - 180
    near = probability.assign_coords(longitude=east + centre).sortby("longitude")
    longitude, latitude = np.meshgrid(near["longitude"], near["latitude"])
    x, y = _project(axes, latitude, longitude)
    # The far side of the globe is stretched without limit: only what the map shows is contoured.
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    wide = right - left
    shown = (abs(x - (left + right) / 2) < wide) & (abs(y - (top + bottom) / 2) < wide)
    rows, columns = np.flatnonzero(shown.any(1)), np.flatnonzero(shown.any(0))
    part = np.ix_(np.arange(rows[0], rows[-1] + 1), np.arange(columns[0], columns[-1] + 1))
    values = near.transpose("latitude", "longitude").values
    colours = sequential_colours()
    shading: QuadContourSet = axes.contourf(
        x[part], y[part], values[part], levels=STRIKE_LEVELS, cmap=colours, zorder=1
    )
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    if best is not None:
        _draw_line(axes, best, TRUTH, (0, (4, 2)), "best track")
        _name_days(axes, best)
    return shading


def draw_error_growth(
    axes: Axes, growth: Mapping[str, xr.Dataset], *, spread: Mapping[str, xr.Dataset] | None = None
) -> None:
    """Draws the mean position error of each system against lead time, with its 90 % interval, and the spread dashed.

    `growth` comes from `error_growth` (distance_km with dims bound, lead; cases), `spread` from `spread_skill`.
    """
    for name, errors, colour, marker in looks(growth):
        days, (mean, low, high) = errors["lead"].values / 24, errors["distance_km"].values
        axes.fill_between(days, low, high, color=colour, alpha=0.18, linewidth=0)
        axes.plot(
            days,
            mean,
            color=colour,
            linewidth=1.8,
            marker=marker,
            markersize=3,
            label=f"{name}: error of the mean track",
        )
        if spread is not None and name in spread:
            wide = spread[name]
            line: dict[str, Any] = {"color": colour, "linewidth": 1.2, "linestyle": (0, (4, 2))}
            axes.plot(
                wide["lead"] / 24,
                wide["spread_km"],
                marker=marker,
                markersize=3,
                label=f"{name}: spread of members",
                **line,
            )
    _name_cases(axes, next(iter(growth.values())))
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("Lead time (days)", fontsize=SMALL_PT + 1, color=INK)
    axes.set_ylabel("Great-circle distance (km)", fontsize=SMALL_PT + 1, color=INK)
    quiet(axes)
    axes.legend(fontsize=SMALL_PT, frameon=False, loc="upper left")


def draw_alive(axes: Axes, tracks: xr.Dataset) -> None:
    """Draws the share of members that still have the storm, against lead time."""
    hours, alive = np.unique((tracks["time"].values - tracks["start"].values) / HOUR, return_counts=True)
    axes.step(hours / 24, alive / int(tracks.attrs["members"]) * 100, where="mid", color=ENSEMBLE, linewidth=1.4)
    axes.set_ylim(0, 105)
    axes.set_xlim(left=0)
    axes.set_xlabel("Lead time (days)", fontsize=SMALL_PT + 1, color=INK)
    axes.set_ylabel("Members that have the storm (%)", fontsize=SMALL_PT + 1, color=INK)
    quiet(axes)


def draw_storm(
    tracks: xr.Dataset,
    probability: xr.DataArray,
    *,
    title: str,
    mean: xr.Dataset,
    best: xr.Dataset | None = None,
    growth: Mapping[str, xr.Dataset] | None = None,
    spread: Mapping[str, xr.Dataset] | None = None,
) -> Figure:
    """Draws one storm of one forecast on an A4 sheet: spaghetti, strike probability, members alive, errors if known."""
    figure = new_figure()
    shown = [tracks] if best is None else [tracks, best]
    ratios = {"width_ratios": [1, 1, 0.025], "wspace": 0.12}
    top = figure.add_gridspec(1, 3, left=MARGIN, right=0.925, top=0.875, bottom=0.42, **ratios)
    left, right = (add_track_axes(figure, top[column], *shown) for column in range(2))
    draw_spaghetti(left, tracks, best=best, mean=mean)
    left.set_title("Tracks of the members", fontsize=9, color=INK, loc="left")
    shading = draw_strike_probability(right, probability, best=best)
    right.set_title("Strike probability", fontsize=9, color=INK, loc="left")
    place, percent = figure.add_subplot(top[2]), PercentFormatter(1, 0)
    bar = figure.colorbar(shading, cax=place, ticks=STRIKE_LEVELS, format=percent)
    style_bar(bar, str(probability.attrs.get("long_name", "share of members")).capitalize())
    low = figure.add_gridspec(
        1, 2, left=MARGIN + 0.02, right=0.975, top=0.33, bottom=0.08, wspace=0.14, width_ratios=[1, 2]
    )
    draw_alive(figure.add_subplot(low[0] if growth else low[:]), tracks)
    if growth:
        draw_error_growth(figure.add_subplot(low[1]), growth, spread=spread)
    start = np.datetime64(tracks["start"].values[0], "s").item()
    figure.text(MARGIN, 0.945, title, fontsize=16, weight="bold", color=INK)
    source, members = tracks.attrs.get("source", "forecast"), tracks.attrs["members"]
    count = f"{members} member{'s' if members > 1 else ''}{unreal_note(tracks.attrs)}"
    about = f"{source}  |  start {start.day} {start:%B %Y, %H} UTC  |  {count}"
    figure.text(MARGIN, 0.915, about, fontsize=9, color="0.3")
    return figure


def pieces(axes: GeoAxes, track: xr.Dataset) -> list[npt.NDArray[Any]]:
    """Projects a track on a map of the globe, cut also where it leaves on one side and comes in on the other."""
    wide = abs(np.subtract(*axes.get_xlim())) / 2
    lines = _lines(axes, track)
    return [part for line in lines for part in np.split(line, np.flatnonzero(abs(np.diff(line[:, 0])) > wide) + 1)]


def _lines(axes: GeoAxes, track: xr.Dataset) -> list[npt.NDArray[Any]]:
    """Projects a track, cut where nothing is known for more than a day."""
    points = np.column_stack(_project(axes, track["latitude"].values, track["longitude"].values))
    return np.split(points, np.flatnonzero(np.diff(track["time"].values) > LONGEST_LINE) + 1)


def _first_part(track: xr.Dataset) -> xr.Dataset:
    """Returns a track up to its first gap."""
    steps = np.diff(track["time"].values)
    gaps = np.flatnonzero(steps > steps.min()) if steps.size else steps
    return track.isel(point=slice(int(gaps[0]) + 1)) if gaps.size else track


def _draw_line(axes: GeoAxes, track: xr.Dataset, colour: str, style: Any, label: str) -> None:
    halo = [withStroke(linewidth=3.2, foreground="white")]
    for line in _lines(axes, track):
        axes.plot(*line.T, color=colour, linewidth=1.8, linestyle=style, label=label, zorder=4, path_effects=halo)
        label = "_nolegend_"


def _name_days(axes: GeoAxes, track: xr.Dataset) -> None:
    days = track.isel(point=np.flatnonzero(track["time"].values == track["time"].values.astype("datetime64[D]")))
    x, y = _project(axes, days["latitude"].values, days["longitude"].values)
    axes.plot(x, y, "o", color=TRUTH, markersize=3.5, markeredgecolor="white", markeredgewidth=0.6, zorder=5)
    named: list[tuple[float, float]] = []
    for here_x, here_y, time in zip(x, y, days["time"].values.astype("datetime64[s]"), strict=True):
        if crowds(axes, (here_x, here_y), named):
            continue
        named.append((here_x, here_y))
        style: dict[str, Any] = {"textcoords": "offset points", "annotation_clip": True}
        day = f"{time.item().day}"
        label = axes.annotate(day, (here_x, here_y), (4, 3), fontsize=SMALL_PT, color=INK, zorder=6, **style)
        label.set_path_effects([withStroke(linewidth=1.8, foreground="white")])


def _name_cases(axes: Axes, errors: xr.Dataset) -> None:
    days, cases = errors["lead"].values / 24, errors["cases"].values
    if cases.max() == 1:
        return
    whole = np.flatnonzero(days == np.round(days))
    style: dict[str, Any] = {"fontsize": SMALL_PT, "color": "0.45", "va": "bottom"}
    for index in whole[:: max(1, len(whole) // 10)]:
        above = (days[index], 1.01)
        axes.annotate(f"{cases[index]}", above, xycoords=axes.get_xaxis_transform(), ha="center", **style)
    axes.annotate("cases ", (-0.02, 1.01), xycoords="axes fraction", ha="right", **style)


def _add_graticule(axes: GeoAxes, height_m: float) -> None:
    step = 5 if height_m < 3e6 else 10 if height_m < 6e6 else 20
    # Meridians draw nearer to each other towards a pole: their labels would run together.
    latitude = crs.PlateCarree().transform_point(*np.mean([axes.get_xlim(), axes.get_ylim()], axis=1), axes.projection)[
        1
    ]
    apart = step / max(np.cos(np.deg2rad(latitude)), 0.05)
    meridians = next((degrees for degrees in (5, 10, 20, 30, 45) if degrees >= apart), 60)
    # Around a pole meridians end on the bottom in no order that helps.
    labels = {"left": "y"} if _shows_a_pole(axes) else {"left": "y", "bottom": "x"}
    lines = axes.gridlines(
        xlocs=np.arange(-180, 180, meridians),
        ylocs=np.arange(-90, 91, step),
        linewidth=0.3,
        color="0.6",
        alpha=0.7,
        draw_labels=labels,
        x_inline=False,
        y_inline=False,
        rotate_labels=False,
    )
    lines.xlabel_style = lines.ylabel_style = {"size": SMALL_PT, "color": INK}
    axes.spines["geo"].set(linewidth=0.6, edgecolor="0.4")


def _shows_a_pole(axes: GeoAxes) -> bool:
    x, y = _project(axes, [-90.0, 90.0], [0.0, 0.0])
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    return bool(((left < x) & (x < right) & (bottom < y) & (y < top)).any())


def _project(
    axes: GeoAxes, latitude: npt.ArrayLike, longitude: npt.ArrayLike
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    points = axes.projection.transform_points(crs.PlateCarree(), np.asarray(longitude), np.asarray(latitude))
    return points[..., 0], points[..., 1]


def _middle(latitude: npt.NDArray[Any], longitude: npt.NDArray[Any]) -> tuple[float, float]:
    lat, lon = np.deg2rad(latitude), np.deg2rad(longitude)
    x, y, z = (np.cos(lat) * np.cos(lon)).mean(), (np.cos(lat) * np.sin(lon)).mean(), np.sin(lat).mean()
    return float(np.rad2deg(np.arctan2(z, np.hypot(x, y)))), float(np.rad2deg(np.arctan2(y, x)))
