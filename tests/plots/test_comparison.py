"""Maps side by side: a panel for each field, one scale a row."""

import numpy as np
import xarray as xr
from cartopy.mpl.geoaxes import GeoAxes
from matplotlib.contour import QuadContourSet

from ladcast.grid import Grid
from ladcast.plots.comparison import draw_comparison

GRID = Grid.parse("24x13")


def field(scale: float) -> xr.DataArray:
    lat, lon = np.meshgrid(np.deg2rad(GRID.latitude), np.deg2rad(GRID.longitude), indexing="ij")
    coords = {"latitude": list(GRID.latitude), "longitude": list(GRID.longitude)}
    return xr.DataArray(
        scale * (10 + np.cos(lat) * np.sin(lon)), coords, ("latitude", "longitude"), attrs={"units": "K"}
    )


def test_a_row_for_each_channel_and_one_scale_in_it():
    gap = field(3.0).where(field(3.0) > 28)
    figure = draw_comparison(
        {"t850": {"truth": field(1.0), "member 0": field(1.1)}, "sst": {"truth": gap, "member 0": gap}}, "Title"
    )
    maps = [axes for axes in figure.axes if isinstance(axes, GeoAxes)]
    bars = [axes for axes in figure.axes if not isinstance(axes, GeoAxes)]
    assert [axes.get_title() for axes in maps] == ["t850: truth", "t850: member 0", "sst: truth", "sst: member 0"]
    assert [bar.get_ylabel() for bar in bars] == ["K", "K"]
    shades = [next(item for item in axes.collections if isinstance(item, QuadContourSet)) for axes in maps]
    np.testing.assert_array_equal(shades[0].levels, shades[1].levels)
    assert shades[2].levels[0] <= 28 < 33 <= shades[2].levels[-1]
