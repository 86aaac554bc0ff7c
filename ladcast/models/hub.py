"""Released weights on the Hugging Face hub: what a repository holds, and fetching a folder of it, checked.

This is the only module that needs the network. Files are kept in the hub's own cache (`HF_HOME`), from which a folder
that was fetched before is read again without a connection.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ladcast.files import sha256

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
