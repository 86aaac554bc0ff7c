"""`ladcast show`, `view`, `verify` and `weights`: what there is, how it looks, whether it is whole, and more of it."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated

from ladcast.commands.options import Results, flat, report_paths
from ladcast.files import is_zarr
from ladcast.released import DEFAULT_ASSETS, DEFAULT_LOCATION, DEFAULT_MODEL, Assets, Location, find_model


def show(path: str = DEFAULT_MODEL) -> Results:
    """Describe a model, anything that ladcast writes, or any other data.

    Args:
        path: name of a model, or a path: checkpoint, forecast, export, product, scores, sums, tracks, states, latents,
            or what else xarray opens.
    """
    from ladcast.forecasts.describe import describe_path

    description = describe_path(path)
    print(description)
    return {"description": description}


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
    from ladcast.view.frames import Frames, Storms
    from ladcast.view.server import Viewer, serve
    from ladcast.view.sources import open_sources

    paths = [path for text in forecasts for path in find_stores(text)]
    decoding = {name: value for name, value in {"model": model, "device": device}.items() if value is not None}
    sources = open_sources(paths, truth, climatology, **decoding)
    files = [path.with_suffix(".tracks.nc") for path in paths]
    storms = [Storms(one, file if file.is_file() else None) for one, file in zip(sources, files, strict=False)]

    def ready(address: str) -> None:
        print(f"view {address}\nThe page shows {', '.join(map(str, paths))}. Ctrl-C stops it.", flush=True)
        if browser and (sys.platform in ("darwin", "win32") or {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys()):
            import webbrowser

            webbrowser.open(until_the_end.enter_context(leading_to(address)))

    with ExitStack() as until_the_end:
        serve(Viewer(Frames(sources), storms), port, ready)
    return {}


@contextmanager
def leading_to(address: str) -> Iterator[str]:
    """Yields the address of a file that leads to a page, and that its owner alone can read.

    A browser gets what it opens as an argument, and all users of a machine see the arguments of its processes.
    """
    number, name = tempfile.mkstemp(prefix="ladcast-view-", suffix=".html")  # of mode 0600
    try:
        with os.fdopen(number, "w") as file:
            file.write(f'<!doctype html><meta http-equiv="refresh" content="0; url={address}">\n')
        yield Path(name).as_uri()
    finally:
        Path(name).unlink(missing_ok=True)


def verify(path: str) -> Results:
    """Check every chunk of a store, or every file of a model, against its checksum.

    Args:
        path: forecast, product or other Zarr store; name of a model, its folder, or a folder in the public layout.
    """
    if is_zarr(Path(path)):
        from ladcast.checksums import verify_store

        report = verify_store(Path(path))
    else:
        from ladcast.released.install import verify_weights

        report = verify_weights(path)
    print(report)
    return {"report": report}


def fetch(
    name: str,
    location: Annotated[Location, flat("Where the weights lie")] = DEFAULT_LOCATION,
    *,
    assets: Annotated[Assets, flat("What the networks need", 3)] = DEFAULT_ASSETS,
    overwrite: bool = False,
) -> Results:
    """Fetch a released model from the Hugging Face hub (needs the network) and install it with all it needs.

    Args:
        name: ladcast-375m, ladcast-1p6b, or a name of your own with --repository.
        location: where the weights lie.
        assets: what the networks need beside their weights.
        overwrite: replace a model of this name.
    """
    from ladcast.released.install import fetch_weights

    return report_paths(model=fetch_weights(name, location, assets, overwrite=overwrite))


def import_(
    name: str,
    *,
    transformer: Path,
    autoencoder: Path,
    assets: Annotated[Assets, flat("What the networks need", 3)] = DEFAULT_ASSETS,
    overwrite: bool = False,
) -> Results:
    """Install a released model from two folders on this machine; no network is needed.

    Args:
        name: ladcast-375m, ladcast-1p6b, or a name of your own.
        transformer: folder with config.json and safetensors.
        autoencoder: folder with config.json and safetensors.
        assets: what the networks need beside their weights.
        overwrite: replace a model of this name.
    """
    from ladcast.released.install import import_weights

    return report_paths(model=import_weights(name, transformer, autoencoder, assets, overwrite=overwrite))


def join(model: str, *, scores: tuple[Path, ...], steppers: tuple[str, ...] = (), overwrite: bool = False) -> Results:
    """Give a model further steppers, and a table of how good each is at how many network calls, from their scores.

    `ladcast forecast --calls` and `--seconds` choose from it, and `ladcast plan forecast` prints it.

    Args:
        model: name of a model, or its folder, which is written to.
        scores: files that `ladcast evaluate` wrote of the model and the steppers, with all --calls that are wanted, of
            the same truth, initial times and members.
        steppers: names or folders of further models of the same channels and grid.
        overwrite: replace a table, and steppers of the same names.
    """
    from ladcast.forecasting.skill import join_steppers

    folder, others = find_model(model).path, [find_model(name).path for name in steppers]
    return report_paths(skill=join_steppers(folder, scores, others, overwrite=overwrite))


def list_weights(repository: str | None = None, *, revision: str | None = None) -> Results:
    """List the models at hand, or the networks in a repository of the hub (needs the network).

    Args:
        repository: owner/name of a repository, such as tonyzyl/ladcast.
        revision: branch, tag or commit.
    """
    from ladcast.released.install import show_weights

    description = show_weights(repository, revision)
    print(description)
    return {"description": description}
