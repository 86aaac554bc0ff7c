"""The model that travels with the package, and where its start states and their truth lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

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


def find_model(name_or_path: str) -> ModelFolder:
    """Finds a model by the name of an embedded one or by its folder.

    Raises:
        FileNotFoundError: there is neither; the message lists the embedded models.
    """
    for folder in (PRETRAINED / name_or_path, Path(name_or_path)):
        if folder.is_dir():
            return ModelFolder(folder)
    embedded = ", ".join(sorted(folder.name for folder in PRETRAINED.iterdir() if folder.is_dir()))
    raise FileNotFoundError(f"No model '{name_or_path}': expected a checkpoint folder or one of: {embedded}.")
