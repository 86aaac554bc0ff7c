"""Reads and writes checkpoint folders: tensors in safetensors, documents in YAML and JSON, checked by hash.

A folder is written under a temporary name and renamed when complete, so a folder that exists is whole.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ladcast.documents import read_mapping
from ladcast.files import sha256, whole_file, whole_folder

if TYPE_CHECKING:
    from torch import Tensor

MANIFEST = "manifest.json"
WEIGHTS = "weights.safetensors"
DATA_HASHES = "sha256_of_data"
"""Key of the manifest: start states, truth and climatology are no part of what a model's latents depend on."""
SKILL = "skill.yaml"
"""The table of steppers in a model's folder, see forecasting/skill.py; it is no part of that either."""


def write_checkpoint(folder: Path, tensors: Mapping[str, Tensor], documents: Mapping[str, Any]) -> None:
    """Writes tensors and documents as one folder, replacing an older one only when the new one is complete.

    `documents` maps file names ending in .yaml or .json to plain data, and any other name to bytes. The
    manifest gains the SHA-256 of every file.
    """
    from safetensors.torch import save_file

    with whole_folder(folder) as temporary:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, temporary / WEIGHTS)
        for name, content in documents.items():
            (temporary / name).write_bytes(_encode(name, content))
        manifest = dict(documents.get(MANIFEST, {}))
        manifest["sha256"] = {path.name: sha256(path) for path in sorted(temporary.iterdir()) if path.name != MANIFEST}
        (temporary / MANIFEST).write_bytes(_encode(MANIFEST, manifest))


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """Reads the tensors and checks every file of the folder against the manifest, both at once.

    Raises:
        FileNotFoundError: the folder or its manifest is missing.
        ValueError: a file is missing, truncated or changed.
    """
    from safetensors.torch import load_file

    with ThreadPoolExecutor(1) as pool:
        verified = pool.submit(verify_checkpoint, folder)
        try:
            tensors = load_file(folder / WEIGHTS)
        except Exception as error:  # a damaged header ends in errors of many kinds
            verified.result()  # names the damage better
            raise ValueError(f"{folder / WEIGHTS} holds no tensors: {error}. Copy the checkpoint again.") from error
        verified.result()
    return tensors


def read_document(folder: Path, name: str) -> dict[str, Any]:
    """Reads one .yaml or .json document of the folder, and compares it with its hash in the manifest.

    Raises:
        FileNotFoundError: the folder or the document is missing.
        ValueError: the document is damaged.
    """
    path = folder / name
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is not a whole checkpoint: '{name}' is missing. Copy or train it again.")
    if name != MANIFEST:
        _verify(path, {**_hashes(folder), **_hashes(folder, DATA_HASHES)}.get(name))
    try:
        return read_mapping(path)
    except ValueError as error:
        raise ValueError(f"{path} is incomplete or changed ({error}) Copy the checkpoint again.") from None


def verify_checkpoint(folder: Path) -> None:
    """Compares every file with the hash in the manifest; raises ValueError naming the first that differs."""
    if not folder.is_dir():
        raise FileNotFoundError(f"No checkpoint at {folder}: expected a folder with {WEIGHTS} and {MANIFEST}.")
    hashes = _hashes(folder)
    if WEIGHTS not in hashes:
        raise ValueError(f"{folder / MANIFEST} lacks the SHA-256 of {WEIGHTS}. Copy the checkpoint again.")
    for name, expected in {**hashes, **_hashes(folder, DATA_HASHES)}.items():
        _verify(folder / name, expected)


def list_data(folder: Path, *names: str) -> None:
    """Brings the hashes of these data files up to date in the manifest of a model's folder, if it is one."""
    path = folder / MANIFEST
    if not path.is_file():
        return
    manifest = dict(read_document(folder, MANIFEST))
    there = {name: sha256(folder / name) for name in names if (folder / name).is_file()}
    others = {name: digest for name, digest in _hashes(folder, DATA_HASHES).items() if name not in names}
    with whole_file(path) as partial:
        partial.write_bytes(_encode(MANIFEST, {**manifest, DATA_HASHES: {**others, **there}}))


def copy_checkpoint(folder: Path, copy: Path) -> None:
    """Copies a checkpoint without its data; what refers to the one by name and hash finds the other."""
    verify_checkpoint(folder)
    manifest = {key: value for key, value in read_document(folder, MANIFEST).items() if key != DATA_HASHES}
    with whole_folder(copy) as temporary:
        for name in _hashes(folder):
            shutil.copyfile(folder / name, temporary / name)
        (temporary / MANIFEST).write_bytes(_encode(MANIFEST, manifest))


def further_steppers(folder: Path) -> list[Path]:
    """Returns the checkpoints within that of a model, where it has a table of them."""
    return sorted(path.parent for path in folder.glob(f"[!.]*/{MANIFEST}")) if (folder / SKILL).is_file() else []


def is_further_stepper(folder: Path) -> bool:
    """Says whether a checkpoint lies within that of a model, which has start states and truth for both."""
    return (folder.absolute().parent / SKILL).is_file()


def checkpoint_name(folder: Path) -> str:
    """Returns `name@hash`, by which `find_maker` finds a checkpoint; one within a model's has the names of both."""
    of = f"{folder.absolute().parent.name}/" if is_further_stepper(folder) else ""
    return f"{of}{folder.name}@{checkpoint_hash(folder)[:12]}"


def _hashes(folder: Path, key: str = "sha256") -> dict[str, str]:
    """Returns the SHA-256 of each file that the manifest names."""
    hashes = read_document(folder, MANIFEST).get(key, {})
    if not (isinstance(hashes, dict) and all(isinstance(value, str) for value in hashes.values())):
        raise ValueError(f"{folder / MANIFEST}: expected the SHA-256 of each file, got {hashes!r:.60}. Copy it again.")
    return hashes


def _verify(path: Path, expected: str | None) -> None:
    found = sha256(path) if path.is_file() else "no file"
    if found != expected:
        raise ValueError(
            f"{path} is incomplete or changed: expected SHA-256 {expected or 'none'!s:.12}..., got {found[:12]}. "
            f"Copy the checkpoint again."
        )


def checkpoint_hash(folder: Path) -> str:
    """Returns a SHA-256 of weights, normalisation, channels, grid and configuration: how products refer to a model."""
    return hashlib.sha256(json.dumps(_hashes(folder), sort_keys=True).encode()).hexdigest()


def _encode(name: str, content: Any) -> bytes:
    import yaml

    if name.endswith(".json"):
        return (json.dumps(content, indent=1) + "\n").encode()
    if name.endswith(".yaml"):
        return yaml.safe_dump(content, sort_keys=False).encode()
    return bytes(content)
