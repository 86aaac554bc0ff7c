"""`from_pretrained` and `save_pretrained` of both networks, in the conventions of Hugging Face diffusers.

A network has a folder of its own: `config.json` and `diffusion_pytorch_model.safetensors`. One that behaves as the
released ones do is written in their layout, which other programs read; any other one under its own names, with
`config.json` saying so. Both are read back, and no number changes on the way.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, TypeVar

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ladcast.documents import describing, read_mapping
from ladcast.files import sha256, whole_folder
from ladcast.models.layouts import PublicLayout, StateDict

CONFIG_FILE = "config.json"
FETCHED = (CONFIG_FILE, "*.safetensors", "*.safetensors.index.json")
"""Patterns of the files of a network; nothing else, such as a pickle, is ever fetched."""
TIMEOUT_S = 20.0


@dataclass(frozen=True)
class HubFile:
    """Describes one file of a repository; the hub knows the SHA-256 of large files only."""

    path: str
    size: int
    sha256: str | None


@dataclass(frozen=True)
class Repository:
    """Lists the files of a repository at one commit."""

    name: str
    commit: str
    files: tuple[HubFile, ...]

    @property
    def folders(self) -> tuple[str, ...]:
        """Returns the folders that hold a network: those with a `config.json`."""
        configs = (PurePosixPath(file.path) for file in self.files)
        return tuple(str(path.parent) for path in configs if path.name == CONFIG_FILE)

    def network_files(self, folder: str) -> tuple[HubFile, ...]:
        """Returns the files of one network.

        Raises:
            ValueError: the folder has no `config.json` or no safetensors; the message lists the folders that do.
        """
        paths = {file: PurePosixPath(file.path) for file in self.files}
        here = [file for file, path in paths.items() if path.parent == PurePosixPath(folder)]
        chosen = tuple(file for file in here if any(paths[file].match(pattern) for pattern in FETCHED))
        names = {paths[file].name for file in chosen}
        if CONFIG_FILE not in names or not any(name.endswith(".safetensors") for name in names):
            raise ValueError(
                f"{self.name} at {self.commit[:12]}: expected {CONFIG_FILE} and *.safetensors in '{folder}', got "
                f"{sorted(paths[file].name for file in here)}. Folders with a network: {', '.join(self.folders)}."
            )
        return chosen


def list_repository(name: str, revision: str | None = None, *, endpoint: str | None = None) -> Repository:
    """Lists a repository at a branch, tag or commit; by default its main branch.

    Raises:
        ConnectionError: the hub cannot be reached.
        ValueError: there is no such repository or revision.
    """
    from huggingface_hub import HfApi

    with _clear_errors(name, revision):
        about = HfApi(endpoint=endpoint).model_info(name, revision=revision, files_metadata=True, timeout=TIMEOUT_S)
    files = (
        HubFile(file.rfilename, file.size or 0, file.lfs.sha256 if file.lfs else None) for file in about.siblings or ()
    )
    return Repository(name, str(about.sha), tuple(files))


def fetch_folder(repository: Repository, folder: str, *, endpoint: str | None = None) -> Path:
    """Fetches the files of one network and compares each with the SHA-256 that the hub states.

    Raises:
        ConnectionError: the hub cannot be reached; what has arrived is kept, and the next call goes on.
        ValueError: a file differs from its hash, or the folder holds no network.
    """
    paths = {file: _fetch(repository, file, endpoint) for file in repository.network_files(folder)}
    for file, path in paths.items():
        found = sha256(path) if file.sha256 else None
        if found != file.sha256:
            path.resolve().unlink()
            raise ValueError(
                f"{file.path} of {repository.name}: expected SHA-256 {file.sha256}, got {found}. "
                "The copy is deleted: fetch it again."
            )
    (fetched,) = {path.parent for path in paths.values()}
    return fetched


def fetch_config(repository: Repository, folder: str, *, endpoint: str | None = None) -> Path:
    """Fetches the configuration of one network alone, and returns its path; raises as `fetch_folder` does."""
    config = next(file for file in repository.network_files(folder) if file.path.endswith(CONFIG_FILE))
    return _fetch(repository, config, endpoint)


def find_folder(source: str | Path, subfolder: str = "", revision: str | None = None) -> Path:
    """Returns the folder of a network: below `source` where that is a folder, else fetched from that repository."""
    if Path(source).is_dir():
        return Path(source) / subfolder
    if str(source).count("/") != 1:
        raise FileNotFoundError(f"Expected a folder or a repository owner/name of the hub, got '{source}'.")
    return fetch_folder(list_repository(str(source), revision), subfolder or ".")


def _fetch(repository: Repository, file: HubFile, endpoint: str | None) -> Path:
    from huggingface_hub import HfApi

    with _clear_errors(repository.name, repository.commit):
        return Path(HfApi(endpoint=endpoint).hf_hub_download(repository.name, file.path, revision=repository.commit))


@contextmanager
def _clear_errors(name: str, revision: str | None) -> Iterator[None]:
    from huggingface_hub import errors

    try:
        yield
    except errors.RevisionNotFoundError as error:
        raise ValueError(
            f"{name} has no revision '{revision}'. Give a branch, tag or commit of https://huggingface.co/{name}."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ValueError(f"The hub has no repository '{name}' that is open to you. Check --repository.") from error
    except (OSError, errors.HTTPError) as error:  # type: ignore[attr-defined]  # an error of its HTTP library
        raise ConnectionError(
            f"Cannot fetch {name}: {type(error).__name__} ({str(error).splitlines()[0]}). Without a network, copy the "
            "folders of both networks from a machine that has one, and run `ladcast weights import`."
        ) from error


WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"
INDEX_FILE = "diffusion_pytorch_model.safetensors.index.json"
CLASS_NAME = "_class_name"
Network = TypeVar("Network", bound="Pretrained")


class Pretrained(nn.Module):
    """A network with a configuration, which it is written with; its class names the public layout of its kind."""

    config_class: ClassVar[type[Any]]
    public_layout: ClassVar[PublicLayout]

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config

    @classmethod
    def from_pretrained(
        cls: type[Network], source: str | Path, *, subfolder: str = "", revision: str | None = None
    ) -> Network:
        """Loads a network from a folder or, with a network connection, a repository `owner/name` of the hub.

        It is on the CPU, and in the precision of its file.

        Raises:
            FileNotFoundError: config.json, the weights or one of their shards is missing.
            ConnectionError: the hub cannot be reached.
            ValueError: the files are damaged or not safetensors, do not fit each other, or describe another kind of
                network.
        """
        folder = find_folder(source, subfolder, revision)
        content = read_json(folder / CONFIG_FILE)
        with describing(f"a network of the kind {cls.__name__}", folder / CONFIG_FILE):
            network = cls.sketch(content)
        state = read_weights(folder)
        try:
            if not cls.is_own(content):
                shapes = {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
                state = cls.public_layout.from_public(state, shapes, network.config)
            network.load_state_dict(state, assign=True)
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"The weights in {folder} do not fit its config.json: {error}") from error
        return network

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes the network, replacing an older folder only when the new one is complete."""
        config, state = {CLASS_NAME: type(self).__name__, **asdict(self.config)}, self.state_dict()
        if self.public_layout.can_express(self.config):
            config = self.public_layout.public(self.config)
            state = self.public_layout.to_public(state, self.config)
        with whole_folder(Path(folder)) as temporary:
            save_file(dict(state), temporary / WEIGHTS_FILE, metadata={"format": "pt"})
            (temporary / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n")

    @classmethod
    def sketch(cls: type[Network], content: Mapping[str, Any]) -> Network:
        """Returns the network that a config.json describes, without memory for its weights; ValueError as above."""
        from pydantic import TypeAdapter

        if cls.is_own(content):
            settings = {key: value for key, value in content.items() if key != CLASS_NAME}
            config = TypeAdapter(cls.config_class).validate_python(settings)
        else:
            config = cls.config_class(**cls.public_layout.settings(content))
            cls.public_layout.check_understood(content, config)
        with torch.device("meta"):
            return cls(config)

    @classmethod
    def is_own(cls, content: Mapping[str, Any]) -> bool:
        """Says whether a config.json describes a network of this class under its own names."""
        return content.get(CLASS_NAME) == cls.__name__


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object; raises FileNotFoundError or ValueError where there is none."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; expected a folder with {CONFIG_FILE} and {WEIGHTS_FILE}.")
    try:
        return read_mapping(path)
    except ValueError as error:
        raise ValueError(f"{error} Fetch it again.") from None


def read_weights(folder: Path) -> StateDict:
    """Reads the tensors of a folder from one file, or from the shards that its index lists."""
    index = folder / INDEX_FILE
    if (folder / WEIGHTS_FILE).is_file() or not index.is_file():
        return _read_shard(folder / WEIGHTS_FILE)
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict):
        raise ValueError(f"{index} has no 'weight_map' that says which shard holds which tensor. Fetch it again.")
    state: StateDict = {}
    for shard in sorted(set(weight_map.values())):
        state |= _read_shard(folder / Path(shard).name)
    lost = sorted(set(weight_map) - set(state))
    if lost:
        raise ValueError(
            f"The shards in {folder} lack {len(lost)} tensors of their index, first {lost[:3]}. Fetch them again."
        )
    return state


def _read_shard(path: Path) -> StateDict:
    if not path.is_file():
        pickles = sorted(file.name for file in path.parent.glob("*.bin"))
        hint = (
            f"The folder has {pickles}, pickles that can run code on loading; convert them to safetensors."
            if pickles
            else "Fetch it again."
        )
        raise FileNotFoundError(f"{path} is missing. {hint}")
    try:
        return dict(load_file(path))
    except Exception as error:  # a damaged header ends in errors of many kinds
        raise ValueError(f"{path} is damaged or not a safetensors file: {error}. Fetch it again.") from error
