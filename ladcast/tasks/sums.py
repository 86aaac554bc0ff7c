"""Folders of sums, `<system>/<part>.nc`, that several processes write and one of them merges."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ladcast.times import describe
from ladcast.verification import Accumulator, merge, read_sums, write_sums


def keep_sums(systems: Mapping[str, Accumulator], folder: Path, label: str) -> Path:
    """Writes the sums of each system to `folder/<system>/<label>.nc`."""
    for name, scores in systems.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        write_sums(scores, folder / name / f"{label}.nc")
    return folder


def claim_folder(folder: Path, name: str, about: Mapping[str, str]) -> None:
    """Writes beside the sums of a system what they are sums of, or checks that they are of the same.

    Raises:
        ValueError: the folder holds sums that were made otherwise.
    """
    path = folder / f"{name}.json"
    content = json.dumps(dict(about), indent=1)
    if path.is_file() and path.read_text() != content:
        held = json.loads(path.read_text())
        differ = [f"{key} {held.get(key)}, now {value}" for key, value in about.items() if held.get(key) != value]
        raise ValueError(f"{folder} holds sums of another run: {'; '.join(differ)}. Choose another folder.")
    folder.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.partial")
    temporary.write_text(content)
    temporary.rename(path)


def merge_sums(folder: Path, first: str | None = None) -> tuple[dict[str, Accumulator], list[str]]:
    """Merges the sums in a folder, system by system, on the starts that all have; `first` comes first.

    Raises:
        FileNotFoundError: the folder holds no sums, or not those of `first`.
        ValueError: parts do not belong together; a start is in two of them.
    """
    files = sorted(folder.glob("*/*.nc"))
    names = list(dict.fromkeys(path.parent.name for path in files))
    if not names or (first is not None and first not in names):
        raise FileNotFoundError(f"{folder} holds sums of {names}, expected those of {first or 'a system'}.")
    order: Sequence[str] = sorted(names, key=lambda name: (name != first, names.index(name)))
    merged = {name: merge(read_sums(path) for path in files if path.parent.name == name) for name in order}
    return common_starts(merged)


def common_starts(systems: Mapping[str, Accumulator]) -> tuple[dict[str, Accumulator], list[str]]:
    """Cuts systems to the starts that all of them have, and says what was left out."""
    shared = set.intersection(*(set(scores.starts) for scores in systems.values()))
    cut, notes = {}, []
    for name, scores in systems.items():
        chosen = np.array([start in shared for start in scores.starts])
        if not chosen.all():
            left_out = describe(np.array(scores.starts)[~chosen])
            notes.append(f"{name}: {chosen.sum()} of {len(chosen)} starts are compared, without {left_out}.")
        cut[name] = scores.select(chosen)
    return cut, notes
