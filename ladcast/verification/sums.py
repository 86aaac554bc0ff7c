"""Folders of sums, `<system>/<part>.nc`, that several processes write and one of them merges."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from ladcast.files import whole_file
from ladcast.resumable import require_same
from ladcast.times import describe
from ladcast.verification import Accumulator, merge, read_sums, write_sums

CLAIMED, SYSTEMS = "claimed", "systems"
"""Keys of a claim beside what the sums depend on."""


def keep_sums(systems: Mapping[str, Accumulator], folder: Path, label: str) -> Path:
    """Writes the sums of each system to `folder/<system>/<label>.nc`, those of the first last: then all are there."""
    for name, scores in reversed(list(systems.items())):
        (folder / name).mkdir(parents=True, exist_ok=True)
        write_sums(scores, folder / name / f"{label}.nc")
    return folder


def claim_folder(folder: Path, systems: Sequence[str], about: Mapping[str, str]) -> None:
    """Writes beside the sums of a run's systems what they are sums of, or checks that they are of the same.

    The file is named as the first system. It also keeps the order of the systems and when the folder was claimed.

    Raises:
        ValueError: the folder holds sums that were made otherwise.
    """
    path = folder / f"{systems[0]}.json"
    if path.is_file():
        require_same(json.loads(path.read_text()), about, str(folder), remedy="Choose another folder.")
        return
    claimed = datetime.now(UTC).isoformat(timespec="microseconds")
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps({**about, CLAIMED: claimed, SYSTEMS: list(systems)}, indent=1))


def read_claims(folder: Path) -> tuple[list[str], dict[str, str]]:
    """Returns the systems of a folder of sums in the order in which they were written, and what they are sums of.

    What differs between runs is said for each of them.
    """
    claims = _claims(folder)
    order = list(dict.fromkeys(name for claim in claims for name in claim[SYSTEMS]))
    about = {}
    for key in dict.fromkeys(key for claim in claims for key in claim if key not in (SYSTEMS, CLAIMED)):
        values = {claim[SYSTEMS][0]: claim[key] for claim in claims if key in claim}
        alike = len(claims) == len(values) and len(set(values.values())) == 1
        about[key] = claims[0][key] if alike else "; ".join(f"{name}: {value}" for name, value in values.items())
    return order, about


def grid_notes(folder: Path) -> list[str]:
    """Says where the systems of a folder of sums were scored on different grids."""
    grids = {claim[SYSTEMS][0]: claim["grid"] for claim in _claims(folder) if "grid" in claim}
    if len(set(grids.values())) < 2:
        return []
    named = ", ".join(f"{name} on {grid}" for name, grid in grids.items())
    return [f"Scored on different grids: {named}. Name one --climatology for all."]


def _claims(folder: Path) -> list[dict[str, Any]]:
    claims = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    return sorted(claims, key=lambda claim: str(claim[CLAIMED]))


def merge_sums(folder: Path, first: str | None = None) -> tuple[dict[str, Accumulator], list[str]]:
    """Merges the sums in a folder, system by system, on the starts that all have.

    `first` comes first, then the systems in the order in which they were written.

    Raises:
        FileNotFoundError: the folder holds no sums, or not those of `first`.
        ValueError: parts do not belong together; a start is in two of them.
    """
    files = sorted(folder.glob("*/*.nc"))
    names = list(dict.fromkeys(path.parent.name for path in files))
    if not names or (first is not None and first not in names):
        raise FileNotFoundError(f"{folder} holds sums of {names}, expected those of {first or 'a system'}.")
    written, _ = read_claims(folder)
    order = dict.fromkeys(name for name in (first, *written, *names) if name in names)
    merged = {name: merge(read_sums(path) for path in files if path.parent.name == name) for name in order}
    cut, notes = common_starts(merged)
    return cut, [*notes, *grid_notes(folder)]


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
