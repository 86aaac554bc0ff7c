"""Reads and writes checkpoint folders: tensors in safetensors, documents in YAML and JSON, checked by hash.

A folder is written under a temporary name and renamed when complete, so a folder that exists is whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

MANIFEST = "manifest.json"
WEIGHTS = "weights.safetensors"


def write_checkpoint(folder: Path, tensors: Mapping[str, Tensor], documents: Mapping[str, Any]) -> None:
    """Writes tensors and documents as one folder, replacing an older one only when the new one is complete.

    `documents` maps file names ending in .yaml or .json to plain data, and any other name to bytes. The
    manifest gains the SHA-256 of every file.
    """
    from safetensors.torch import save_file

    temporary = folder.with_name(f".{folder.name}.partial-{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, temporary / WEIGHTS)
    for name, content in documents.items():
        (temporary / name).write_bytes(_encode(name, content))
    manifest = dict(documents.get(MANIFEST, {}))
    manifest["sha256"] = {path.name: _sha256(path) for path in sorted(temporary.iterdir()) if path.name != MANIFEST}
    (temporary / MANIFEST).write_bytes(_encode(MANIFEST, manifest))
    _replace(temporary, folder)


def read_tensors(folder: Path, *, device: str = "cpu") -> dict[str, Tensor]:
    """Reads the tensors after checking every file of the folder against the manifest.

    Raises:
        FileNotFoundError: the folder or its manifest is missing.
        ValueError: a file is missing, truncated or changed.
    """
    from safetensors.torch import load_file

    verify_checkpoint(folder)
    return load_file(folder / WEIGHTS, device=device)


def read_document(folder: Path, name: str) -> Any:
    """Reads one .yaml or .json document of the folder."""
    import yaml

    path = folder / name
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is not a whole checkpoint: '{name}' is missing. Copy or train it again.")
    try:
        return json.loads(path.read_text()) if path.suffix == ".json" else yaml.safe_load(path.read_text())
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path} is incomplete or changed ({error}). Copy the checkpoint again.") from None


def verify_checkpoint(folder: Path) -> None:
    """Compares every file with the hash in the manifest; raises ValueError naming the first that differs."""
    if not folder.is_dir():
        raise FileNotFoundError(f"No checkpoint at {folder}: expected a folder with {WEIGHTS} and {MANIFEST}.")
    hashes = read_document(folder, MANIFEST).get("sha256", {})
    if WEIGHTS not in hashes:
        raise ValueError(f"{folder / MANIFEST} lacks the SHA-256 of {WEIGHTS}. Copy the checkpoint again.")
    for name, expected in hashes.items():
        path = folder / name
        found = _sha256(path) if path.is_file() else "no file"
        if found != expected:
            raise ValueError(
                f"{path} is incomplete or changed: expected SHA-256 {expected[:12]}..., got {found[:12]}. "
                f"Copy the checkpoint again."
            )


def weights_hash(folder: Path) -> str:
    """Returns the SHA-256 of the weights, the name under which products refer to a model."""
    return str(read_document(folder, MANIFEST)["sha256"][WEIGHTS])


def _replace(temporary: Path, folder: Path) -> None:
    retired = folder.with_name(f".{folder.name}.retired-{os.getpid()}")
    if folder.exists():
        folder.rename(retired)
    try:
        temporary.rename(folder)
    except OSError:
        if retired.exists():
            retired.rename(folder)
        raise
    shutil.rmtree(retired, ignore_errors=True)


def _encode(name: str, content: Any) -> bytes:
    import yaml

    if name.endswith(".json"):
        return (json.dumps(content, indent=1) + "\n").encode()
    if name.endswith(".yaml"):
        return yaml.safe_dump(content, sort_keys=False).encode()
    return bytes(content)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
