"""Models at hand: the one that travels with the package, installed ones, and any checkpoint folder."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ladcast.released.registry import read_registry

PRETRAINED = Path(__file__).parents[1] / "pretrained"
DEFAULT_MODEL = "nature-t31"


@dataclass(frozen=True)
class ModelFolder:
    """Names the files of a model's folder; a model without start states and truth can still forecast."""

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

    def _optional(self, name: str) -> Path | None:
        path = self.path / name
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
