"""`from_pretrained` and `save_pretrained` of both networks, in the conventions of Hugging Face diffusers."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from torch import nn

CLASS_NAME = "_class_name"
Network = TypeVar("Network", bound="Pretrained")


class Pretrained(nn.Module):
    """Gives a network a folder of its own: `config.json` and `diffusion_pytorch_model.safetensors`.

    A network that behaves as the released ones do is written in their layout, which other programs read; any other
    one under its own names, with `config.json` saying so. Both are read back.
    """

    config_class: ClassVar[type[Any]]

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config

    @classmethod
    def from_pretrained(
        cls: type[Network], source: str | Path, *, subfolder: str = "", revision: str | None = None
    ) -> Network:
        """Loads a network from a folder or, with a network connection, a repository `owner/name` of the hub.

        Raises:
            FileNotFoundError: a file is missing, or the repository cannot be reached.
            ValueError: the files are damaged or describe another kind of network.
        """
        from ladcast.models.hub import find_folder
        from ladcast.models.published import CONFIG_FILE, load_published, read_json

        folder = find_folder(source, subfolder, revision)
        content = read_json(folder / CONFIG_FILE)
        if content.get(CLASS_NAME) == cls.__name__:
            return _load_own(cls, folder, content)
        return load_published(cls, folder)

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes the network, replacing an older folder only when the new one is complete."""
        from ladcast.models.published import export, write_folder
        from ladcast.models.published_config import is_expressible

        if is_expressible(self.config):
            export(self, Path(folder))
        else:
            write_folder(Path(folder), {CLASS_NAME: type(self).__name__, **asdict(self.config)}, self.state_dict())


def _load_own(kind: type[Network], folder: Path, content: dict[str, Any]) -> Network:
    from pydantic import TypeAdapter

    from ladcast.models.published import read_weights

    settings = {key: value for key, value in content.items() if key != CLASS_NAME}
    config = TypeAdapter(kind.config_class).validate_python(settings)
    with torch.device("meta"):
        network = kind(config)
    try:
        network.load_state_dict(read_weights(folder), assign=True)
    except RuntimeError as error:
        raise ValueError(f"The weights in {folder} do not fit its config.json: {error}") from error
    return network
