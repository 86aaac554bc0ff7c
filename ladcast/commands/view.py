"""`ladcast view`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ladcast.commands.options import Results
from ladcast.released import find_model

if TYPE_CHECKING:
    import xarray as xr

    from ladcast.view.frames import Source


def view(
    *forecasts: str,
    truth: Path | None = None,
    climatology: Path | None = None,
    model: str | None = None,
    device: str | None = None,
    port: int = 0,
    browser: bool = True,
) -> Results:
    """Look at forecasts in the browser: a page that this machine alone can open, until Ctrl-C.

    Args:
        forecasts: forecast stores, of fields or of latents; * stands for many.
        truth: Zarr store or netCDF file of analyses; by default those of the model, if it has some.
        climatology: file for anomalies; by default that of the model, if it has one.
        model: name or folder of the model that made the latents, where it is not found by itself.
        device: cpu or cuda, for latents; a GPU where there is one.
        port: port to listen on; by default a free one.
        browser: open the page, where there is a display.
    """
    from ladcast.forecasts.open import find_stores

    if not forecasts:
        raise ValueError("Expected a forecast store, such as `ladcast forecast` writes: ladcast view forecast.zarr.")
    if not 0 <= port < 65536:
        raise ValueError(f"Expected --port between 0 and 65535, got {port}.")
    paths = [path for text in forecasts for path in find_stores(text)]
    decoding = {name: value for name, value in {"model": model, "device": device}.items() if value is not None}
    sources = open_sources(paths, truth, climatology, **decoding)

    from ladcast.view.frames import Frames
    from ladcast.view.server import Viewer, serve
    from ladcast.view.storms import Storms

    files = [path.with_suffix(".tracks.nc") for path in paths]
    storms = [Storms(one, file if file.is_file() else None) for one, file in zip(sources, files, strict=False)]

    def ready(address: str) -> None:
        print(f"view {address}\nThe page shows {', '.join(map(str, paths))}. Ctrl-C stops it.", flush=True)
        if browser and (sys.platform in ("darwin", "win32") or {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys()):
            import webbrowser

            webbrowser.open(address)

    serve(Viewer(Frames(sources), storms), port, ready)
    return {}


def open_sources(paths: list[Path], truth: Path | None, climatology: Path | None, **decoding: str) -> list[Source]:
    """Opens forecasts, and behind them the analyses, if there are any; all on the grid of the first.

    Raises:
        FileNotFoundError: a store is not there.
        ValueError: one is no forecast, or analyses or climatology do not fit the first.
    """
    from ladcast.data.store import open_store
    from ladcast.forecasts.compare import open_climatology
    from ladcast.grid import grid_of
    from ladcast.view.frames import Source, open_lazily

    opened = [open_lazily(path, **decoding) for path in paths]
    own_truth, own_climatology = _of_model(opened[0])
    truth, climatology = truth or own_truth, climatology or own_climatology
    grid = None if truth is None and climatology is None else grid_of(opened[0])
    normal = None if climatology is None or grid is None else open_climatology(climatology, grid)
    names = [path.name.removesuffix(".zarr") for path in paths]
    names = names if len(set(names)) == len(names) else [str(path) for path in paths]
    points = _points(opened[0])
    fitting = [normal if _points(ds) == points else None for ds in opened]
    sources = [Source(name, ds, of) for name, ds, of in zip(names, opened, fitting, strict=True)]
    if truth is not None:
        sources.append(Source("analysis", open_store(truth, grid=grid, regular=False), normal))
    return sources


def _of_model(forecast: xr.Dataset) -> tuple[Path | None, Path | None]:
    """Returns truth and climatology of the model that made a forecast; truth only for the model's own start states.

    Both are of its grid: a forecast that was cut or regridded has none.
    """
    import json

    from ladcast.checkpoint import checkpoint_hash
    from ladcast.forecasting.checkpoints import read_description

    try:
        identity = json.loads(str(forecast.attrs.get("history", "")))
        name, _, weights = str(identity["model"]).partition("@")
        folder = find_model(name)
    except (ValueError, KeyError, TypeError, FileNotFoundError):
        return None, None
    if not weights or not checkpoint_hash(folder.path).startswith(weights):  # another world of the same name
        return None, None
    _, _, grid = read_description(folder.path)
    if _points(forecast) != (grid.latitude, grid.longitude):
        return None, None
    begun = Path(str(identity.get("source", ""))).parts[-2:]
    own = folder.starts is not None and begun == folder.starts.parts[-2:]
    return folder.truth if own else None, folder.climatology


def _points(forecast: xr.Dataset) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return tuple(forecast["latitude"].values.tolist()), tuple(forecast["longitude"].values.tolist())
