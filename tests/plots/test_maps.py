"""Maps: interpolation respects the sphere, and shading has no seam."""

import socket
from pathlib import Path

import cartopy
import numpy as np
import pytest
import xarray as xr
from cartopy import crs
from cartopy.mpl.geoaxes import GeoAxes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure
from shapely import union_all
from shapely.geometry import Point

from ladcast.grid import Grid
from ladcast.plots.maps import (
    SHAPEFILE,
    add_coastlines,
    add_colour_bar,
    add_global_axes,
    draw_comparison,
    draw_map,
    mark_extremes,
    read_coastlines,
    refine_field,
)
from ladcast.plots.style import round_levels, sequential_colours

GRIDS = ("64x33", "64x32", "72x37", "72x37-south", "45x23")


def on_grid(text: str, value: float = 0.0) -> xr.DataArray:
    grid = Grid.parse(text)
    coords = {"latitude": list(grid.latitude), "longitude": list(grid.longitude)}
    return xr.DataArray(np.full(grid.shape, value), coords, ("latitude", "longitude"))


def noise_on(text: str) -> xr.DataArray:
    flat = on_grid(text)
    return flat + np.random.default_rng(0).random(flat.shape)


def tilted_wave(field: xr.DataArray) -> xr.DataArray:
    """Samples x + x y z (Cartesian, unit sphere): smooth everywhere, with a slope across both poles."""
    lat, lon = np.deg2rad(field.latitude), np.deg2rad(field.longitude)
    x, y, z = np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)
    return (x + x * y * z).transpose("latitude", "longitude")


@pytest.mark.slow
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("centre_deg", [0.0, 180.0, -77.0])
def test_refine_finds_a_smooth_field_everywhere_also_over_the_poles(grid: str, centre_deg: float) -> None:
    fine = refine_field(tilted_wave(on_grid(grid)), centre_deg)
    assert fine.latitude.values[[0, -1]].tolist() == [-90, 90]
    assert abs(fine - tilted_wave(fine)).max() < 5e-3


@pytest.mark.parametrize("grid", GRIDS)
def test_refine_meets_itself_at_the_seam_and_keeps_the_range(grid: str) -> None:
    noise = noise_on(grid)
    fine = refine_field(noise)
    np.testing.assert_allclose(fine.isel(longitude=0), fine.isel(longitude=-1), atol=1e-5)
    assert noise.min() <= fine.min()
    assert fine.max() <= noise.max()


def test_refine_passes_through_the_points() -> None:
    noise = noise_on("72x37")
    at_points = refine_field(noise, 180.0).sel(latitude=noise.latitude, longitude=noise.longitude[1:], method="nearest")
    np.testing.assert_allclose(at_points, noise[:, 1:], atol=1e-5)


def test_turning_the_field_turns_the_refined_field() -> None:
    noise = noise_on("72x37")
    turned = refine_field(noise.copy(data=np.roll(noise, 7, axis=1)))
    np.testing.assert_allclose(turned[:, 35:], refine_field(noise)[:, :-35], atol=1e-5)


def test_order_of_rows_and_dimensions_does_not_matter() -> None:
    field = tilted_wave(on_grid("64x32"))
    xr.testing.assert_identical(refine_field(field), refine_field(field[::-1].T))


def test_a_gap_stays_where_it_is() -> None:
    field = on_grid("72x37", 1.0)
    field.loc[{"latitude": 40, "longitude": 20}] = np.nan
    gap = refine_field(field).isnull()
    assert int(gap.sum()) == 25
    assert abs(gap.latitude[gap.any("longitude")] - 40).max() < 2.5
    assert abs(gap.longitude[gap.any("latitude")] - 20).max() < 2.5


@pytest.mark.parametrize("centre_deg", [0, 180, 77])
def test_a_constant_field_shades_the_whole_globe_in_one_colour(centre_deg: int) -> None:
    figure = Figure(figsize=(4, 2), dpi=100)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1), projection=crs.Robinson(central_longitude=centre_deg))
    axes.set_global()
    axes.axis("off")
    draw_map(axes, on_grid("64x32", 5.0), levels=[4.0, 6.0, 8.0])
    canvas.draw()
    equator = np.asarray(canvas.buffer_rgba())[100, 6:-6, :3]
    assert (equator == equator[0]).all()
    assert (equator[0] != 255).any()


def test_contours_and_colour_bar_carry_their_numbers() -> None:
    figure = Figure(figsize=(6, 4))
    axes = add_global_axes(figure, figure.add_gridspec(1, 1)[0])
    wave = tilted_wave(on_grid("64x32"))
    shading = draw_map(axes, abs(wave), lines=1000 + 20 * wave, line_step=5.0)
    add_colour_bar(axes, shading, "Spread (hPa)")
    labels = {float(text.get_text()) for text in axes.texts}
    assert labels
    assert labels <= set(range(975, 1030, 5))
    assert figure.axes[-1].get_xlabel() == "Spread (hPa)"


def test_levels_are_round_start_at_zero_and_survive_a_flat_field() -> None:
    np.testing.assert_allclose(round_levels(noise_on("64x32") * 9.3), np.arange(0, 11))
    assert round_levels(noise_on("64x32") - 0.5)[0] < 0
    assert (np.diff(round_levels(on_grid("64x32"))) > 0).all()
    np.testing.assert_allclose(round_levels(0 * noise_on("64x32"), least=0.01), np.arange(11) / 1000)


def test_sequential_colours_darken_steadily_and_stop_before_black() -> None:
    luminance = sequential_colours()(np.linspace(0, 1, 21))[:, :3] @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luminance) < 0).all()
    assert luminance[-1] > 0.35


def test_errors_name_what_is_wrong() -> None:
    figure = Figure()
    axes = add_global_axes(figure, figure.add_gridspec(1, 1)[0])
    with pytest.raises(ValueError, match=r"latitude and longitude, got.*level"):
        draw_map(axes, on_grid("64x32").expand_dims(level=[500]))
    with pytest.raises(ValueError, match="only `line_step`"):
        draw_map(axes, on_grid("64x32"), line_step=5.0)
    with pytest.raises(ValueError, match="increase evenly"):
        draw_map(axes, on_grid("64x32").isel(longitude=[0, 1, 3]))


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("plots must not open a network connection")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)


@pytest.mark.parametrize(
    ("cape", "longitude", "latitude"), [("Agulhas", 20.0, -34.8), ("Horn", -67.3, -56.0), ("Finisterre", -9.3, 42.9)]
)
def test_capes_lie_on_the_coast_and_the_pacific_does_not(cape: str, longitude: float, latitude: float) -> None:
    coast = union_all(read_coastlines())
    assert coast.distance(Point(longitude, latitude)) < 0.7, cape
    assert coast.distance(Point(-130.0, 20.0)) > 5


def test_draws_offline_and_leaves_cartopy_as_it_was(offline: None) -> None:
    before = dict(cartopy.config)
    figure = Figure()
    axes = figure.add_subplot(projection=crs.Robinson())
    bare = len(axes.get_children())
    add_coastlines(axes)
    figure.canvas.draw()
    assert len(axes.get_children()) == bare + 1
    assert cartopy.config == before


def test_vendored_files_are_small_and_complete() -> None:
    files = sorted(SHAPEFILE.parent.glob("ne_110m_coastline.*"))
    assert [file.suffix for file in files] == [".dbf", ".shp", ".shx"]
    assert sum(file.stat().st_size for file in files) < 150_000
    assert "public domain" in (SHAPEFILE.parent / "README.md").read_text()


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"coast\.shp.*reinstall"):
        read_coastlines(tmp_path / "coast.shp")


GRID = Grid.parse("24x13")


def field(scale: float) -> xr.DataArray:
    lat, lon = np.meshgrid(np.deg2rad(GRID.latitude), np.deg2rad(GRID.longitude), indexing="ij")
    coords = {"latitude": list(GRID.latitude), "longitude": list(GRID.longitude)}
    return xr.DataArray(
        scale * (10 + np.cos(lat) * np.sin(lon)), coords, ("latitude", "longitude"), attrs={"units": "K"}
    )


@pytest.mark.slow
def test_a_row_for_each_channel_and_one_scale_in_it():
    gap = field(3.0).where(field(3.0) > 28)
    figure = draw_comparison(
        {"t850": {"truth": field(1.0), "member 0": field(1.1)}, "sst": {"truth": gap, "member 0": gap}}, "Title"
    )
    maps = [axes for axes in figure.axes if isinstance(axes, GeoAxes)]
    bars = [axes for axes in figure.axes if not isinstance(axes, GeoAxes)]
    columns = ("truth", "member 0", "member 0 minus truth")
    assert [axes.get_title() for axes in maps] == [f"{row}: {name}" for row in ("t850", "sst") for name in columns]
    assert [bar.get_ylabel() for bar in bars] == ["K"] * 4
    shades = [next(item for item in axes.collections if isinstance(item, QuadContourSet)) for axes in maps]
    np.testing.assert_array_equal(shades[0].levels, shades[1].levels)
    np.testing.assert_allclose(shades[2].levels, -shades[2].levels[::-1])  # of 0.9 to 1.1 K, white around zero
    assert shades[2].levels[-1] == pytest.approx(0.9)  # and beyond it the darkest shade
    assert shades[3].levels[0] <= 28 < 33 <= shades[3].levels[-1]


@pytest.mark.slow
def test_highs_and_lows_are_marked_where_they_are_once_each():
    """Two lows, one of them on the seam of the map, a high, and a dent that is no low of the weather."""
    flat = on_grid("72x37", 1010.0)
    for latitude, longitude, hpa in ((50, 180, -30), (-45, 20, -20), (30, 300, 15), (0, 90, -1)):
        lat, lon = np.deg2rad(flat.latitude), np.deg2rad(flat.longitude - longitude)
        away = np.sin(lat) * np.sin(np.deg2rad(latitude)) + np.cos(lat) * np.cos(np.deg2rad(latitude)) * np.cos(lon)
        flat = flat + hpa * np.exp(50 * (away - 1))
    figure = Figure()
    axes = add_global_axes(figure, figure.add_gridspec(1, 1)[0], crs.Robinson(central_longitude=90))
    marks = mark_extremes(axes, flat)
    letters, values = marks[::2], marks[1::2]
    assert [letter.get_text() for letter in letters] == ["H", "L", "L"]
    assert [value.get_text() for value in values] == ["1025", "990", "980"]
    places = [crs.PlateCarree().transform_point(*letter.get_position(), axes.projection) for letter in letters]
    np.testing.assert_allclose([(lon % 360, lat) for lon, lat in places], [(300, 30), (20, -45), (180, 50)], atol=1.1)


def test_labels_do_not_crowd_where_contours_meet():
    """Contours that all run together at one place, and a low beside it."""
    flat = on_grid("72x37")
    figure = Figure(figsize=(6, 4))
    axes = add_global_axes(figure, figure.add_gridspec(1, 1)[0])
    draw_map(axes, abs(flat), lines=1000 + 40 * np.tanh((flat.latitude - 40) / 3) + 0 * flat, line_step=2.0)
    places = np.array([text.get_position() for text in axes.texts])
    assert len(places) > 1
    away = np.hypot(*(places[:, None] - places).transpose(2, 0, 1))
    assert away[np.triu_indices(len(places), 1)].min() > 0.03 * np.ptp(axes.get_xlim())
