"""The values of what a command has written, by name: without times, paths and versions, which are of each run."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

OF_THE_RUN = {"manifest.json", "state.json", "log.jsonl", "zarr.json"}
"""Files that hold times or paths; of a store the values of arrays lie beside them."""
TIMES = {"claimed"}
"""Keys of documents that say when they were written."""


def values_of(path: Path) -> dict[str, str]:
    """Returns a digest of each array or file; empty where there is nothing."""
    if not path.exists():
        return {}
    return dict(_folder(path) if path.is_dir() else _file(path, path.name))


def _folder(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in OF_THE_RUN:
            yield from _file(path, str(path.relative_to(folder)))


def _file(path: Path, name: str) -> Iterator[tuple[str, str]]:
    if path.suffix == ".nc":
        yield from _netcdf(path, name)
    elif path.suffix == ".jsonl":
        rows = (json.loads(line) for line in path.read_text().splitlines())
        last = {(row["step"], "loss" in row): row.get("loss", 0) for row in rows}  # a step may be written again
        yield name, _digest(json.dumps(sorted(last.items())).encode())
    elif path.suffix == ".json":
        content = json.loads(path.read_text())
        yield name, _digest(json.dumps({key: content[key] for key in content if key not in TIMES}).encode())
    elif path.suffix == ".png":
        yield name, "drawn"
    else:
        yield name, _digest(path.read_bytes())


def _netcdf(path: Path, name: str) -> Iterator[tuple[str, str]]:
    import netCDF4

    with netCDF4.Dataset(path) as file:
        file.set_auto_maskandscale(False)
        for variable, content in file.variables.items():
            values = content[...]
            yield f"{name}/{variable}", _digest(values.tobytes() if values.dtype != object else repr(values).encode())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
