"""Maps of the globe or a region: a field as shading, a second one as labelled contours, seamless on any grid."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from cartopy import crs
from cartopy.io.shapereader import BasicReader
from cartopy.mpl.geoaxes import GeoAxes
from matplotlib.collections import LineCollection
from matplotlib.colors import BoundaryNorm, Colormap
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation, Text
from scipy.interpolate import RectBivariateSpline, RegularGridInterpolator
from scipy.ndimage import maximum_filter
from shapely.geometry.base import BaseGeometry

from ladcast.grid import TOLERANCE_DEG, Grid, Region, circles_globe, points_of
from ladcast.plots.style import (
    BLUE,
    INK,
    ORANGE,
    SMALL_PT,
    Edges,
    bands,
    new_figure,
    round_levels,
    sequential_colours,
    style_bar,
)
from ladcast.units import MEAN_EARTH_RADIUS_KM

DRAWN_STEP_DEG = 1.0
HALO = 12
"""A cubic spline feels its end by 2 - sqrt(3) less at each point: 1e-7 after twelve."""
GAP_DEG = 1e-3
LABEL_GAP = 0.035
"""Between two labels of a map, as a share of its larger side."""
MARKED_HPA, MARK_REACH_KM = 3.0, 1500.0


def add_map_axes(figure: Figure, cell: SubplotSpec, field: xr.DataArray, region: Region | None = None) -> GeoAxes:
    """Adds a map of a region, by default of what a field covers: of the whole globe, or of what its points span."""
    region = region or covered_region(field)
    if region is None:
        return add_global_axes(figure, cell)
    west, south, east, north = region
    half = ((east - west) % 360 or 360.0) / 2  # all around where both edges are one meridian
    axes = add_global_axes(figure, cell, projection=crs.PlateCarree(central_longitude=west + half))
    # In degrees from the middle: `set_extent` takes a map of all longitudes for one of none.
    axes.set_xlim(-half, half)
    axes.set_ylim(south, north)
    axes.set_aspect(1 / max(np.cos(np.deg2rad((south + north) / 2)), 0.2))  # as wide as it is in its middle
    return axes


def covered_region(field: xr.DataArray) -> Region | None:
    """Returns the region that a field's points span, None for the globe."""
    longitude, latitude = field["longitude"].values, field["latitude"].values
    if circles_globe(longitude):
        return None
    return float(longitude[0]), float(latitude.min()), float(longitude[-1]), float(latitude.max())


def add_global_axes(figure: Figure, cell: SubplotSpec, projection: crs.Projection | None = None) -> GeoAxes:
    """Adds a map of the whole globe with coastlines and a quiet graticule; Robinson unless told otherwise."""
    axes: GeoAxes = figure.add_subplot(cell, projection=projection or crs.Robinson())
    axes.set_global()
    add_coastlines(axes)
    _add_graticule(axes)
    axes.spines["geo"].set(linewidth=0.6, edgecolor="0.4")
    return axes


def _add_graticule(axes: GeoAxes) -> None:
    """Draws a meridian every 60 degrees and a parallel every 30.

    Their points are projected at once: cartopy looks for the seam along each of its grid lines, which takes twice as
    long as all else that a map shows.
    """
    north, east = np.linspace(-90, 90, 91), central_longitude(axes) + np.linspace(-179.999, 179.999, 181)
    lines = [np.broadcast_arrays(meridian, north) for meridian in range(-180, 180, 60)]
    lines += [np.broadcast_arrays(east, parallel) for parallel in range(-60, 61, 30)]
    drawn = [axes.projection.transform_points(crs.PlateCarree(), *line)[:, :2] for line in lines]
    axes.add_collection(LineCollection(drawn, linewidths=0.3, colors="0.6", alpha=0.6, zorder=2), autolim=False)


def draw_map(
    axes: GeoAxes,
    field: xr.DataArray,
    *,
    levels: npt.ArrayLike | None = None,
    colours: Colormap | None = None,
    lines: xr.DataArray | None = None,
    line_step: float | None = None,
) -> QuadContourSet:
    """Shades a field and draws `lines` as contours every `line_step` (same units as `lines`).

    Both fields have the dimensions latitude and longitude on a `Grid` or a `Box`; NaN stays blank. `levels` bound the
    shades: by default `round_levels`. `colours` also have a shade below the lowest level.

    Returns:
        the shading, for a colour bar.

    Raises:
        ValueError: a field has other dimensions or no even grid, or `line_step` comes without `lines`.
    """
    if (lines is None) != (line_step is None):
        given = "`lines`" if line_step is None else "`line_step`"
        raise ValueError(f"`lines` and `line_step` go together, got only {given}.")
    shown = round_levels(field) if levels is None else np.asarray(levels, dtype=float)
    style = {"levels": shown, "cmap": sequential_colours(), "extend": "max"}
    if colours is not None:  # evenly from band to band, also where their bounds are not even
        style = {
            "levels": shown,
            "cmap": colours,
            "extend": "both",
            "norm": BoundaryNorm(shown, colours.N, extend="both"),
        }
    shading: QuadContourSet = axes.contourf(*_points(axes, field), **style, **_place_points_first())
    if lines is not None and line_step is not None:
        _draw_lines(axes, lines, line_step)
    return shading


def _draw_lines(axes: GeoAxes, field: xr.DataArray, step: float) -> None:
    levels = np.arange(float(field.min()) // step, float(field.max()) // step + 2) * step
    lines = axes.contour(*_points(axes, field), levels=levels, colors=INK, linewidths=0.7, **_place_points_first())
    halo = [withStroke(linewidth=1.5, foreground="white")]
    kept: list[tuple[float, float]] = []
    for label in axes.clabel(lines, levels[::2], fontsize=SMALL_PT - 1.5, fmt="%g", inline=False):
        label.set_path_effects(halo)
        if _near_edge(axes, *label.get_position()) or crowds(axes, label.get_position(), kept):
            label.remove()
        else:
            kept.append(label.get_position())


def _near_edge(axes: GeoAxes, x: float, y: float) -> bool:
    """Says whether a label here, in the map's own coordinates, would be cut off by its outline."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    if isinstance(axes.projection, crs.PlateCarree):  # of a region
        margin_x, margin_y = 0.03 * (right - left), 0.03 * (top - bottom)
        return not (left + margin_x < x < right - margin_x and bottom + margin_y < y < top - margin_y)
    lon, lat = crs.PlateCarree(central_longitude(axes)).transform_point(x, y, axes.projection)
    return bool(abs(lat) > 74 or abs(lon) > 168)


def crowds(axes: GeoAxes, here: tuple[float, float], others: Iterable[tuple[float, float]]) -> bool:
    """Says whether a label is nearer to another than `LABEL_GAP` of the map, as where meridians meet."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    aspect = 1.0 if axes.get_aspect() in ("auto", "equal") else float(axes.get_aspect())
    gap = LABEL_GAP * max(right - left, aspect * (top - bottom))
    return any(np.hypot(here[0] - x, aspect * (here[1] - y)) < gap for x, y in others)


def mark_extremes(axes: GeoAxes, pressure_hpa: xr.DataArray) -> list[Text]:
    """Marks highs and lows with H, L and their value, and takes away the contour labels that they would cover.

    A low is the lowest point within a reach of itself, and deeper by `MARKED_HPA` than the mean of that rim; the reach
    is 1500 km on maps of the globe, less on a small region, so that marks never crowd.

    Returns:
        what was written.
    """
    fine = refine_field(pressure_hpa, central_longitude(axes))
    fine = fine.isel(longitude=fine.notnull().any("latitude").values)  # the gaps on either side of a region
    (bottom, top), reach_km = axes.get_ylim(), MARK_REACH_KM
    if isinstance(axes.projection, crs.PlateCarree):
        reach_km = min(reach_km, np.deg2rad(top - bottom) * MEAN_EARTH_RADIUS_KM / 6)
    edge = "wrap" if circles_globe(pressure_hpa["longitude"].values) else "nearest"
    marks = []
    for sign, letter, colour in ((1, "H", BLUE), (-1, "L", ORANGE)):
        for row, column in _extremes(sign * fine, reach_km, edge):
            at = axes.projection.transform_point(*_lon_lat(fine, row, column), crs.PlateCarree())
            if not _near_edge(axes, *at):
                marks.append((at, letter, f"{float(fine[row, column]):.0f}", colour))
    for label in [text for text in axes.texts if not isinstance(text, Annotation)]:
        if crowds(axes, label.get_position(), [at for at, *_ in marks]):
            label.remove()
    halo: dict[str, Any] = {"path_effects": [withStroke(linewidth=1.8, foreground="white")], "clip_on": True}
    written = []
    for (x, y), letter, value, colour in marks:
        style: dict[str, Any] = {"ha": "center", "color": colour, **halo}
        written.append(axes.text(x, y, letter, va="center", weight="bold", fontsize=SMALL_PT + 2, **style))
        below: dict[str, Any] = {"textcoords": "offset points", "va": "top", "annotation_clip": True}
        written.append(axes.annotate(value, (x, y), (0, -4), fontsize=SMALL_PT - 2, **below, **style))
    return written


def _extremes(field: xr.DataArray, reach_km: float, edge: str) -> list[tuple[int, int]]:
    """Returns rows and columns of the maxima of a fine field that stand out of all that is within reach."""
    values = field.values
    # The edges of a map of the globe are one meridian, which would else have each of its maxima twice.
    seen = values[:, :-1] if edge == "wrap" else values
    peaks = seen == maximum_filter(seen, 5, mode=("nearest", edge))
    lat, lon = np.deg2rad(field["latitude"].values), np.deg2rad(field["longitude"].values[: seen.shape[1]])
    east, north = np.meshgrid(lon, lat)
    points = np.stack([np.cos(north) * np.cos(east), np.cos(north) * np.sin(east), np.sin(north)], axis=-1)
    weight, found = np.cos(north), list[tuple[int, int]]()
    for row, column in np.argwhere(peaks):
        beside = points @ points[row, column]  # the cosine of the distance
        near = beside > np.cos(reach_km / MEAN_EARTH_RADIUS_KM)
        rim = near & (beside < np.cos(0.8 * reach_km / MEAN_EARTH_RADIUS_KM))
        height = values[row, column]
        stands_out = height == seen[near].max() and height - np.average(seen[rim], weights=weight[rim]) >= MARKED_HPA
        if stands_out and not any(near[at] for at in found):
            found.append((int(row), int(column)))
    return found


def _lon_lat(field: xr.DataArray, row: int, column: int) -> tuple[float, float]:
    return float(field["longitude"][column]), float(field["latitude"][row])


def add_colour_bar(axes: GeoAxes, shading: QuadContourSet, label: str) -> None:
    """Adds a horizontal colour bar below the map, labelled with quantity and units."""
    figure = axes.get_figure()
    bar = figure.colorbar(shading, ax=axes, orientation="horizontal", fraction=0.045, pad=0.04, aspect=45, shrink=0.7)
    style_bar(bar, label)


def central_longitude(axes: GeoAxes) -> float:
    """Returns the longitude in degrees that the map's projection is centred on."""
    terms = axes.projection.proj4_params
    return float(terms.get("lon_0", terms.get("pm", 0.0)))  # a map of plain degrees moves its prime meridian


def require_same_points(truth: xr.Dataset | xr.DataArray, forecast: xr.Dataset | xr.DataArray) -> None:
    """Raises ValueError where truth lies on other points than the forecast, which could only be compared by chance."""
    theirs, ours = points_of(truth), points_of(forecast)
    if not theirs.matches(ours):
        raise ValueError(
            f"Truth lies on {theirs}, the forecast on {ours}: bring truth to the forecast's grid first, as "
            "`ladcast-data regrid` does."
        )


def refine_field(field: xr.DataArray, centre_deg: float = 0.0) -> xr.DataArray:
    """Interpolates a scalar field to a fine grid from pole to pole and from edge to edge of a map.

    A bicubic spline through the points makes the contours of a coarse grid smooth. It sees the sphere:
    columns repeat after 360 degrees, and rows go on beyond a pole on the opposite meridian. Values stay
    within the field's range. A field with NaN is taken from the nearest point: a spline would spread the gap.

    Returns:
        the field (latitude longitude); longitudes run from one edge of the map to the other, also below 0.
    """
    if not circles_globe(field["longitude"].values):
        return _refine_box(field)
    lat, lon, values = _wrap(field)
    # A hair inside the edges: the projection puts +-180 degrees on either side, as rounding falls.
    edge = 180 - 1e-6
    longitude = centre_deg + np.linspace(-edge, edge, round(360 / DRAWN_STEP_DEG) + 1)
    latitude = np.linspace(-90, 90, round(180 / DRAWN_STEP_DEG) + 1)
    points = np.meshgrid(latitude, longitude % 360, indexing="ij")
    if np.isnan(values).any():
        fine = RegularGridInterpolator((lat, lon), values, method="nearest")(tuple(points))
    else:
        fine = RectBivariateSpline(lat, lon, values).ev(*points).clip(values.min(), values.max())
    return xr.DataArray(fine, {"latitude": latitude, "longitude": longitude}, ("latitude", "longitude"))


def _refine_box(field: xr.DataArray) -> xr.DataArray:
    """Interpolates the field of a region as `refine_field` does, within its points; columns of NaN end it."""
    field = _by_rows(field)
    box = points_of(field.to_dataset(name="field"))
    latitude, longitude = (
        np.linspace(points[0], points[-1], max(round((points[-1] - points[0]) / DRAWN_STEP_DEG), 1) + 1)
        for points in (box.latitude, box.longitude)
    )
    method = "linear" if min(field.shape) < 4 or field.isnull().any() else "cubic"
    fine = RegularGridInterpolator((box.latitude, box.longitude), field.values, method=method)
    values = fine(tuple(np.meshgrid(latitude, longitude, indexing="ij")))
    values = values.clip(float(field.min()), float(field.max()))
    # A gap on either side: cartopy sorts columns from west to east of a map, whose edge the box may cross.
    values = np.pad(values, ((0, 0), (1, 1)), constant_values=np.nan)
    longitude = np.concatenate([longitude[:1] - GAP_DEG, longitude, longitude[-1:] + GAP_DEG])
    return xr.DataArray(values, {"latitude": latitude, "longitude": longitude}, ("latitude", "longitude"))


def _by_rows(field: xr.DataArray) -> xr.DataArray:
    if set(field.dims) != {"latitude", "longitude"}:
        raise ValueError(
            f"Expected a field with dimensions latitude and longitude, got {field.dims}. Select the others."
        )
    return field.sortby("latitude").transpose("latitude", "longitude").astype(float)


def _wrap(field: xr.DataArray) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """Adds rows beyond each pole and columns on both sides: enough for a spline to forget its ends."""
    field = _by_rows(field)
    grid = Grid(tuple(field.latitude.values.tolist()), tuple(field.longitude.values.tolist()))
    lat, lon, values = np.asarray(grid.latitude), np.asarray(grid.longitude), field.values
    halo = min(HALO, lon.size)
    # Rows go on beyond a pole; a row on the pole itself has no mirror image.
    inner = np.flatnonzero(abs(lat) < 90 - TOLERANCE_DEG)
    south, north = inner[:halo][::-1], inner[-halo:][::-1]
    rows = [_opposite(values[south], lon), values, _opposite(values[north], lon)]
    padded = np.pad(np.concatenate(rows), ((0, 0), (halo, halo)), mode="wrap")
    beyond = np.concatenate([-180 - lat[south], lat, 180 - lat[north]])
    return beyond, np.concatenate([lon[-halo:] - 360, lon, lon[:halo] + 360]), padded


def _opposite(rows: npt.NDArray[Any], lon: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.stack([np.interp(lon + 180, lon, row, period=360) for row in rows])


def _points(axes: GeoAxes, field: xr.DataArray) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    fine = refine_field(field, central_longitude(axes))
    longitude, latitude = np.meshgrid(fine["longitude"], fine["latitude"])
    return longitude, latitude, fine.values


def _place_points_first() -> dict[str, Any]:
    """Projects points before contouring: fast, and exact here since `refine_field` ends at the map's edges."""
    return {"transform": crs.PlateCarree(), "transform_first": True}


SHAPEFILE = Path(__file__).parent / "natural_earth" / "ne_110m_coastline.shp"


@lru_cache(maxsize=1)  # cartopy projects a geometry once for all maps, if it is the same object
def read_coastlines(shapefile: Path = SHAPEFILE) -> tuple[BaseGeometry, ...]:
    """Reads coastlines as lines in degrees of longitude and latitude (WGS 84), from this package alone."""
    if not shapefile.is_file():
        raise FileNotFoundError(
            f"No coastlines at {shapefile}: the package data of ladcast.plots is incomplete; reinstall."
        )
    # Not cartopy's `Reader`: that becomes another class with other needs wherever fiona is installed.
    reader = BasicReader(str(shapefile))
    try:
        return tuple(reader.geometries())
    finally:
        reader.close()


def add_coastlines(axes: GeoAxes) -> None:
    """Draws coastlines on a map of any projection, above shading and below labels."""
    axes.add_geometries(
        read_coastlines(), crs.PlateCarree(), facecolor="none", edgecolor="0.35", linewidth=0.5, zorder=1.5
    )


Maps = Mapping[str, Mapping[str, xr.DataArray]]
"""Fields (latitude, longitude) by row and by column title; rows are named by channel."""
PANEL_IN = (3.6, 2.0)


def draw_comparison(maps: Maps, title: str) -> Figure:
    """Draws a row of maps for each channel on the scale of its first field, and the second minus the first on its own.

    Fields carry `units`. NaN stays blank.
    """
    columns = max(len(row) for row in maps.values())
    figure = new_figure((PANEL_IN[0] * (columns + 1) + 1.6, PANEL_IN[1] * len(maps) + 0.6))
    height = figure.get_figheight()
    # A narrow column for each bar, and a wide one for its numbers.
    widths = [*[1.0] * columns, 0.03, 0.16, 1.0, 0.03]
    layout: dict[str, Any] = {"left": 0.01, "right": 0.95, "wspace": 0.03, "width_ratios": widths}
    cells = figure.add_gridspec(len(maps), len(widths), top=1 - 0.55 / height, bottom=0.02, **layout)
    figure.text(0.01, 1 - 0.2 / height, title, fontsize=12, weight="bold", color=INK, va="center")

    for row, (channel, fields) in enumerate(maps.items()):
        (reference, first), *others = fields.items()
        units = first.attrs.get("units", "")
        for column, (name, field) in enumerate(fields.items()):
            drawn = _draw_panel(figure, cells[row, column], f"{channel}: {name}", field, round_levels(first))
        style_bar(figure.colorbar(drawn, cax=figure.add_subplot(cells[row, columns])), units)
        for name, field in others[:1]:
            difference, about = field - first, f"{channel}: {name} minus {reference}"
            shades = bands(difference, "difference", size=float(abs(first).max()))
            drawn = _draw_panel(figure, cells[row, columns + 2], about, difference, *shades)
            style_bar(figure.colorbar(drawn, cax=figure.add_subplot(cells[row, columns + 3])), units)
    return figure


def _draw_panel(
    figure: Figure, cell: SubplotSpec, title: str, field: xr.DataArray, levels: Edges, colours: Colormap | None = None
) -> QuadContourSet:
    axes = add_global_axes(figure, cell)
    axes.set_title(title, fontsize=9, color=INK, pad=4)
    return draw_map(axes, field, levels=levels, colours=colours)
