"""Coastlines: the files are whole, lie where the land lies, and need neither network nor configuration."""

import socket
from pathlib import Path

import cartopy
import pytest
from cartopy import crs
from matplotlib.figure import Figure
from shapely import union_all
from shapely.geometry import Point

from ladcast.plots.coastlines import SHAPEFILE, add_coastlines, read_coastlines


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
