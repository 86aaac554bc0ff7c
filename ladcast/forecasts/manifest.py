"""What a latent store says about itself. Light: xarray asks it whenever it guesses how to open a file."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

KEY, VERSION = "ladcast_latents", 1
METADATA = "zarr.json"


@dataclass(frozen=True)
class LatentManifest:
    """Names the model that decodes the latents and describes the states it decodes them to.

    `model` is `name@hash` with the first digits of the SHA-256 of its weights, `folder` where it lay when the forecast
    was made, and `beside` the same, seen from the folder that holds the store: both may have been moved together.
    `channels` and `grid` are plain data for `ChannelSet.from_dict` and `Grid.from_dict`.
    """

    model: str
    folder: str | None
    channels: dict[str, Any]
    grid: dict[str, Any]
    version: int = VERSION
    beside: str | None = None
    """None in stores of earlier versions."""

    @property
    def name(self) -> str:
        """Returns the name of the model."""
        return self.model.partition("@")[0]

    @property
    def weights(self) -> str:
        """Returns the first digits of the SHA-256 of the model's weights."""
        return self.model.partition("@")[2]

    def folders(self, store: Path) -> list[str]:
        """Returns where the model of this store may lie, but for its name: where it lay, and where it lay beside it."""
        beside = None if self.beside is None else os.path.normpath(store.absolute().parent / self.beside)
        return [folder for folder in dict.fromkeys([self.folder, beside]) if folder is not None]

    def to_attributes(self) -> dict[str, Any]:
        """Returns the attribute that marks a Zarr group as a latent store."""
        return {KEY: asdict(self)}

    @classmethod
    def read(cls, path: Path) -> LatentManifest:
        """Reads the manifest of a latent store.

        Raises:
            FileNotFoundError: there is no store.
            ValueError: it is another store, damaged, or of another version.
        """
        content = _attributes(path).get(KEY)
        if not isinstance(content, dict):
            raise ValueError(f"{path} is no latent store: its attributes lack '{KEY}'. Open it with `xr.open_zarr`.")
        if content.get("version") != VERSION:
            raise ValueError(f"{path} has version {content.get('version')} of the latent store, expected {VERSION}.")
        expected = {field.name for field in fields(cls)}
        if set(content) | {"beside"} != expected:
            raise ValueError(f"{path / METADATA}: expected {sorted(expected)} in '{KEY}', got {sorted(content)}.")
        return cls(**content)


def read_identity(path: Path) -> dict[str, Any]:
    """Returns what a forecast's numbers follow from, as its complete store says; empty for any other path."""
    try:
        identity = json.loads(_attributes(path)["history"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return identity if isinstance(identity, dict) else {}


def is_latent_store(path: Path) -> bool:
    """Says whether `path` is a folder that a latent writer filled."""
    try:
        return KEY in _attributes(path)
    except (OSError, ValueError):
        return False


def _attributes(path: Path) -> dict[str, Any]:
    file = path / METADATA
    if not file.is_file():
        partial = path.with_name(f"{path.name}.partial")
        hint = " It is unfinished: run the same `ladcast forecast` again to go on." if partial.is_dir() else ""
        raise FileNotFoundError(f"No latent store at {path}: expected a folder with {METADATA}.{hint}")
    try:
        content = json.loads(file.read_text())
        attributes: dict[str, Any] = content["attributes"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is damaged ({error!r}). Copy the store again.") from None
    return attributes
