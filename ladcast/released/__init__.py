"""Released models, and models at hand: the one that travels with the package, installed ones, any checkpoint folder.

The command line imports this, so it imports nothing heavy.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ladcast.checkpoint import DATA_HASHES, MANIFEST, is_further_stepper
from ladcast.files import sha256

PUBLISHED = Path(__file__).parents[1] / "published"
PRETRAINED = Path(__file__).parents[1] / "pretrained"
DEFAULT_MODEL = "nature-t31"


@dataclass(frozen=True)
class Assets:
    """Names what released networks need beside their weights; the defaults are those of LaDCast (arXiv 2506.09193).

    Attributes:
        channels: channels of the states, `era5` or a YAML file of another set.
        grid: grid of the states, such as 240x121-south.
        statistics: JSON file with the mean and standard deviation of each channel.
        latent_statistics: JSON file with the mean and standard deviation of each latent channel.
        static: netCDF file with the static fields.
        static_fields: names of the static fields, in the order of the encoder's channels.
    """

    channels: str = "era5"
    grid: str = "240x121-south"
    statistics: Path = PUBLISHED / "era5_1979_2017.json"
    latent_statistics: Path = PUBLISHED / "latent84_1979_2017.json"
    static: Path = PUBLISHED / "static_240x121.nc"
    static_fields: tuple[str, ...] = (
        "land_sea_mask",
        "standard_deviation_of_orography",
        "angle_of_sub_gridscale_orography",
        "anisotropy_of_sub_gridscale_orography",
        "slope_of_sub_gridscale_orography",
    )


@dataclass(frozen=True)
class Location:
    """Says where on the hub the weights lie; what is left out is taken from the registry of released models.

    Attributes:
        repository: repository owner/name of the hub.
        revision: branch, tag or commit; the manifest of an installed model names the commit it is of.
        transformer: folder of the transformer in the repository; by default the one of the right size.
        autoencoder: folder of the autoencoder in the repository.
    """

    repository: str | None = None
    revision: str | None = None
    transformer: str | None = None
    autoencoder: str | None = None


@dataclass(frozen=True)
class Release(Location):
    """What is known of a released model: also how many parameters its networks have, and its licence."""

    transformer_parameters: int | None = None
    autoencoder_parameters: int | None = None
    licence: str = "not known here; see the repository"


DEFAULT_ASSETS = Assets()
DEFAULT_LOCATION = Location()


def read_registry() -> dict[str, dict[str, Any]]:
    """Reads what is known of each released model: fields of `Release`."""
    import yaml

    entries: dict[str, dict[str, Any]] = yaml.safe_load((PUBLISHED / "registry.yaml").read_text())
    return entries


def find_release(name: str, location: Location = DEFAULT_LOCATION) -> Release:
    """Returns what is known of a model, where `location` wins; of an unknown one nothing."""
    given = {key: value for key, value in asdict(location).items() if value is not None}
    return Release(**read_registry().get(name, {}) | given)


@dataclass(frozen=True)
class ModelFolder:
    """Names the files of a model's folder; a model without start states and truth can still forecast.

    A file that the model's manifest lists is compared with its SHA-256 when it is named; ValueError where it differs.
    """

    path: Path

    @property
    def starts(self) -> Path | None:
        """Returns the file of start states, if the model has one."""
        return self._optional("starts.nc")

    @property
    def truth(self) -> Path | None:
        """Returns the truth that follows the start states, if the model has it."""
        return self._optional("truth.nc")

    @property
    def climatology(self) -> Path | None:
        """Returns the climatology of the headline channels, if the model has it."""
        return self._optional("climatology.nc")

    @property
    def files(self) -> list[Path]:
        """Returns the files that the model's manifest lists, and the manifest."""
        named = (*self._manifest.get("sha256", ()), *self._manifest.get(DATA_HASHES, ()), MANIFEST)
        return [self.path / name for name in named]

    @property
    def _manifest(self) -> dict[str, Any]:
        path = self.path / MANIFEST
        try:
            content = json.loads(path.read_text()) if path.is_file() else {}
        except ValueError as error:
            raise ValueError(f"{path} is incomplete or changed ({error}). Copy the model again.") from None
        return content if isinstance(content, dict) else {}

    def _optional(self, name: str) -> Path | None:
        path, expected = self.path / name, self._manifest.get(DATA_HASHES, {}).get(name)
        if expected is None and not path.is_file() and is_further_stepper(self.path):
            return ModelFolder(self.path.parent)._optional(name)
        if path.is_file() and expected not in (None, sha256(path)):
            raise ValueError(f"{path} has changed: its SHA-256 is not {expected[:12]}... Copy the model again.")
        if expected is not None and not path.is_file():
            raise ValueError(f"{path} is missing, which the model's manifest lists. Copy the model again.")
        return path if path.is_file() else None


def models_home() -> Path:
    """Returns the folder of installed models: `LADCAST_MODELS`, else that of the user's data."""
    data = Path(os.environ.get("XDG_DATA_HOME", Path.home() / ".local" / "share"))
    return Path(os.environ.get("LADCAST_MODELS", data / "ladcast" / "models"))


def find_model(name_or_path: str) -> ModelFolder:
    """Finds a model by the name of an embedded or an installed one, or by its folder.

    Raises:
        FileNotFoundError: there is none; the message lists the models at hand, or says how to get a released one.
    """
    for folder in (PRETRAINED / name_or_path, models_home() / name_or_path, Path(name_or_path)):
        if folder.is_dir():
            return ModelFolder(folder)
    if name_or_path in read_registry():
        raise FileNotFoundError(
            f"{name_or_path} is not installed in {models_home()}. Run `ladcast weights fetch {name_or_path}`, or where "
            f"there is no network `ladcast weights import {name_or_path} --transformer FOLDER --autoencoder FOLDER`."
        )
    at_hand = ", ".join(model.path.name for model in list_models())
    raise FileNotFoundError(f"No model '{name_or_path}': expected a checkpoint folder or one of: {at_hand}.")


def list_models() -> list[ModelFolder]:
    """Lists the embedded and the installed models."""
    homes = [home for home in (PRETRAINED, models_home()) if home.is_dir()]
    folders = [folder for home in homes for folder in sorted(home.iterdir())]
    return [ModelFolder(folder) for folder in folders if folder.is_dir() and not folder.name.startswith(".")]
