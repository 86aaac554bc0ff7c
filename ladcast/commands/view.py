"""`ladcast view`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ladcast.commands.options import Results


def view(
    *forecasts: str,
    truth: str | None = None,
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
    if not forecasts:
        raise ValueError("Expected a forecast store, such as `ladcast forecast` writes: ladcast view forecast.zarr.")
    if not 0 <= port < 65536:
        raise ValueError(f"Expected --port between 0 and 65535, got {port}.")
    from ladcast.forecasts.open import find_stores
    from ladcast.view.frames import Frames
    from ladcast.view.server import Viewer, serve
    from ladcast.view.sources import open_sources
    from ladcast.view.storms import Storms

    paths = [path for text in forecasts for path in find_stores(text)]
    decoding = {name: value for name, value in {"model": model, "device": device}.items() if value is not None}
    sources = open_sources(paths, truth, climatology, **decoding)
    files = [path.with_suffix(".tracks.nc") for path in paths]
    storms = [Storms(one, file if file.is_file() else None) for one, file in zip(sources, files, strict=False)]

    def ready(address: str) -> None:
        print(f"view {address}\nThe page shows {', '.join(map(str, paths))}. Ctrl-C stops it.", flush=True)
        if browser and (sys.platform in ("darwin", "win32") or {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys()):
            import webbrowser

            webbrowser.open(address)

    serve(Viewer(Frames(sources), storms), port, ready)
    return {}
