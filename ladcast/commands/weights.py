"""`ladcast weights`: fetch, import, verify, show."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from ladcast.commands.options import FLAT, Results, report_paths
from ladcast.released.registry import DEFAULT_ASSETS, DEFAULT_LOCATION, Assets, Location


def fetch(
    name: str,
    location: Annotated[Location, FLAT] = DEFAULT_LOCATION,
    *,
    assets: Annotated[Assets, FLAT] = DEFAULT_ASSETS,
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
    assets: Annotated[Assets, FLAT] = DEFAULT_ASSETS,
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


def verify(model: str) -> Results:
    """Check every file of a model against its SHA-256, or a folder in the public layout for completeness.

    Args:
        model: name of a model, its folder, or a folder with config.json and safetensors.
    """
    from ladcast.released.install import verify_weights

    report = verify_weights(model)
    print(report)
    return {"report": report}


def show(repository: str | None = None, *, revision: str | None = None) -> Results:
    """List the models at hand, or the networks in a repository of the hub (needs the network).

    Args:
        repository: owner/name of a repository, such as tonyzyl/ladcast.
        revision: branch, tag or commit.
    """
    from ladcast.released.install import show_weights

    description = show_weights(repository, revision)
    print(description)
    return {"description": description}
