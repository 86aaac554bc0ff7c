"""The manifest of a simulated store: what was asked for, how far it is, what is in it."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from typing import Any

from data_pipelines.gcm import JCM_VERSION

NAME = "manifest.json"
UNREAL = (
    "Model weather, not observations: no diurnal cycle; prescribed land and sea surface temperatures; "
    "8 sigma layers, so the 13 pressure levels hold at most 8 independent ones; errors grow more slowly than "
    "in reality; convective rain of single grid points; Gibbs ripples near mountains."
)
ATTRIBUTION = (
    f"Computed with JCM {JCM_VERSION} (EGUsphere-2025-6266): Dinosaur spectral core (Google) and SPEEDY "
    "physics (ICTP), with the boundary climatologies that JCM ships."
)


def attributes(options: dict[str, Any]) -> dict[str, Any]:
    """Returns the global attributes of a store."""
    return {
        "source": f"JCM {JCM_VERSION}, T{options['truncation']}, SPEEDY physics, climatological sea surface",
        "settings": json.dumps(options),
        "seed": options["seed"],
        "attribution": ATTRIBUTION,
        "unreal": UNREAL,
    }


def new_manifest(options: dict[str, Any], **facts: Any) -> dict[str, Any]:
    """Returns the manifest of a run that begins."""
    try:
        version = metadata.version("ladcast")
    except metadata.PackageNotFoundError:
        version = "not installed"
    return {
        "stage": "simulate",
        "status": "running",
        "options": options,
        "code_version": version,
        "source": ATTRIBUTION,
        "unreal": UNREAL,
        **facts,
    }


def write_manifest(store: Path, content: dict[str, Any]) -> None:
    """Replaces the manifest, whole or not at all."""
    partial = store / (NAME + ".partial")
    partial.write_text(json.dumps(content, indent=1) + "\n")
    partial.replace(store / NAME)


def read_manifest(store: Path) -> dict[str, Any]:
    """Reads the manifest of a simulated store.

    Raises:
        FileNotFoundError: the store has none.
        ValueError: another stage wrote it.
    """
    path = store / NAME
    if not path.is_file():
        raise FileNotFoundError(f"{store} has no {NAME}: it is no simulated store. Give another path.")
    content: dict[str, Any] = json.loads(path.read_text())
    if content.get("stage") != "simulate":
        raise ValueError(f"{path} was written by the stage '{content.get('stage')}', expected 'simulate'.")
    return content


def check_same_options(store: Path, found: dict[str, Any], asked: dict[str, Any]) -> None:
    """Checks that a store was begun with the options that are asked for now.

    Raises:
        ValueError: an option differs; the message names every one that does.
    """
    differing = [name for name in asked if found.get(name) != asked[name]]
    if differing:
        details = "; ".join(f"{name}={found.get(name)!r}, now {asked[name]!r}" for name in differing)
        raise ValueError(f"{store} was begun with {details}. Use the same options or another store.")
