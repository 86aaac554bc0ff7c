"""Maps of the globe or a region: a field as shading, a second one as labelled contours, seamless on any grid."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from cartopy import crs
from cartopy.io.shapereader import BasicReader
from cartopy.mpl.geoaxes import GeoAxes
from jaxtyping import Float
from matplotlib.colors import BoundaryNorm, Colormap, LinearSegmentedColormap
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from scipy.interpolate import RectBivariateSpline, RegularGridInterpolator
from shapely.geometry.base import BaseGeometry

from ladcast.grid import TOLERANCE_DEG, Grid, circles_globe, points_of
from ladcast.plots.style import INK, SMALL_PT, new_figure, style_bar

DRAWN_STEP_DEG = 1.0
HALO = 12
"""A cubic spline feels its end by 2 - sqrt(3) less at each point: 1e-7 after twelve."""
GAP_DEG = 1e-3


def sequential_colours() -> Colormap:
    """Builds a map from white over green to blue: lightness falls evenly, so it reads without colour vision.

    It ends before black: contours in ink stay readable on the darkest shade.
    """
    shades = ["#ffffff", "#e8f4e6", "#b9dfd0", "#84c5c8", "#52a3c4", "#3279b3"]
    return LinearSegmentedColormap.from_list("ladcast_sequential", shades)


def add_map_axes(figure: Figure, cell: SubplotSpec, field: xr.DataArray) -> GeoAxes:
    """Adds a map of what a field covers: of the whole globe, or of the region that its points span."""
    if circles_globe(field["longitude"].values):
        return add_global_axes(figure, cell)
    west, east = (float(field["longitude"][index]) for index in (0, -1))
    south, north = (float(field["latitude"][index]) for index in (0, -1))
    projection = crs.PlateCarree(central_longitude=(west + east) / 2)
    axes: GeoAxes = figure.add_subplot(cell, projection=projection)
    axes.set_extent((west, east, south, north), crs=crs.PlateCarree())
    add_coastlines(axes)
    axes.gridlines(linewidth=0.3, color="0.6", alpha=0.6)
    axes.spines["geo"].set(linewidth=0.6, edgecolor="0.4")
    return axes


def add_global_axes(figure: Figure, cell: SubplotSpec, projection: crs.Projection | None = None) -> GeoAxes:
    """Adds a map of the whole globe with coastlines and a quiet graticule; Robinson unless told otherwise."""
    axes: GeoAxes = figure.add_subplot(cell, projection=projection or crs.Robinson())
    axes.set_global()
    add_coastlines(axes)
    axes.gridlines(xlocs=range(-180, 180, 60), ylocs=range(-60, 61, 30), linewidth=0.3, color="0.6", alpha=0.6)
    axes.spines["geo"].set(linewidth=0.6, edgecolor="0.4")
    return axes


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
    for label in axes.clabel(lines, levels[::2], fontsize=SMALL_PT - 1.5, fmt="%g", inline=False):
        label.set_path_effects(halo)
        if _near_edge(axes, *label.get_position()):
            label.remove()


def _near_edge(axes: GeoAxes, x: float, y: float) -> bool:
    """Says whether a label here, in the map's own coordinates, would be cut off by its outline."""
    if isinstance(axes.projection, crs.PlateCarree):  # of a region, whose outline is that of the page
        return False
    lon, lat = crs.PlateCarree(central_longitude(axes)).transform_point(x, y, axes.projection)
    return bool(abs(lat) > 74 or abs(lon) > 168)


def add_colour_bar(axes: GeoAxes, shading: QuadContourSet, label: str) -> None:
    """Adds a horizontal colour bar below the map, labelled with quantity and units."""
    figure = axes.get_figure()
    bar = figure.colorbar(shading, ax=axes, orientation="horizontal", fraction=0.045, pad=0.04, aspect=45, shrink=0.7)
    style_bar(bar, label)


def round_levels(field: xr.DataArray) -> Float[np.ndarray, " edge"]:
    """Returns about ten round steps up to the 99.5th percentile, from zero where values come near it and none below."""
    low, high = (float(value) for value in np.nanquantile(field, [0.005, 0.995]))
    start = low if float(field.min()) < 0 or low > high / 2 else 0.0
    return np.asarray(MaxNLocator(10, steps=[1, 2, 2.5, 5, 10]).tick_values(start, high))


def central_longitude(axes: GeoAxes) -> float:
    """Returns the longitude in degrees that the map's projection is centred on."""
    terms = axes.projection.proj4_params
    return float(terms.get("lon_0", terms.get("pm", 0.0)))  # a map of plain degrees moves its prime meridian


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
