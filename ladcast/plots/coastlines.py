"""Coastlines from the files beside this module: no network, no cartopy configuration."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from cartopy import crs
from cartopy.io.shapereader import BasicReader
from cartopy.mpl.geoaxes import GeoAxes
from shapely.geometry.base import BaseGeometry

SHAPEFILE = Path(__file__).parent / "natural_earth" / "ne_110m_coastline.shp"


@lru_cache(maxsize=1)  # cartopy projects a geometry once for all maps, if it is the same object
def read_coastlines(shapefile: Path = SHAPEFILE) -> tuple[BaseGeometry, ...]:
    """Reads coastlines as lines in degrees of longitude and latitude (WGS 84)."""
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


def add_coastlines(axes: GeoAxes, *, colour: str = "0.35", width_pt: float = 0.5) -> None:
    """Draws coastlines on a map of any projection, above shading and below labels."""
    axes.add_geometries(
        read_coastlines(), crs.PlateCarree(), facecolor="none", edgecolor=colour, linewidth=width_pt, zorder=1.5
    )
