"""`ladcast show`, `ladcast verify` and `ladcast weights`: what there is, whether it is whole, and more of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from ladcast.commands.options import Results, flat, report_paths
from ladcast.files import is_zarr
from ladcast.released import DEFAULT_ASSETS, DEFAULT_LOCATION, DEFAULT_MODEL, Assets, Location


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
