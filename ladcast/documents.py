"""Reads YAML, JSON and netCDF that people and other programs have written; what cannot be read is said with its path.

YAML is read strictly, and no more than a document may hold.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import xarray as xr

DEEPEST = 50
"""Levels of a YAML document; the deepest of ours has six."""
LARGEST = 100_000
"""Values of a YAML document with all its aliases written out; the largest of ours has some 2,000."""
UNREADABLE = (ArithmeticError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError)
"""What xarray and the libraries below it raise where a file is damaged."""


def read_mapping(path: Path) -> dict[str, Any]:
    """Reads a .json file, or else YAML, that holds a mapping.

    Raises:
        ValueError: it is no such document; the message begins with the path.
    """
    try:
        text = path.read_text()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text: {error}.") from None
    content = parse_json(text, str(path)) if path.suffix == ".json" else parse_yaml(text, str(path))
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a mapping of names to values, got {type(content).__name__}.")
    return content


def read_netcdf(path: Path, **decoding: Any) -> xr.Dataset:
    """Reads a netCDF file into memory, as xarray decodes it.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is no netCDF file, or it is damaged; the message begins with the path.
    """
    import xarray as xr

    try:
        return xr.load_dataset(path, engine="netcdf4", **decoding)
    except FileNotFoundError:
        raise
    except UNREADABLE as error:
        raise ValueError(
            f"{path} cannot be read as netCDF ({type(error).__name__}: {error}). Copy it again, or make it again."
        ) from error


@contextmanager
def describing(what: str, path: Path) -> Iterator[None]:
    """Lets a block build `what` from the content of a file; whatever that lacks or has wrong is a ValueError."""
    try:
        yield
    except KeyError as error:
        raise ValueError(f"{path} does not describe {what}: it lacks {error}.") from error
    except (ValueError, TypeError, AttributeError, LookupError, OverflowError) as error:
        raise ValueError(f"{path} does not describe {what}: {error}") from error


def parse_json(text: str, where: str) -> Any:
    """Parses JSON; raises ValueError that begins with `where`."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} cannot be read as JSON: {error}.") from None


def parse_yaml(text: str, where: str) -> Any:
    """Parses YAML and keeps dates as the strings they are written as.

    Raises:
        ValueError: it is no YAML, has a key twice, or is deeper or larger than any document of ours; the message begins
            with `where`.
    """
    import yaml

    try:
        loader = _strict_loader()(text)
        node = loader.get_single_node()
        if node is None:
            return None
        if _count(node, {}) > LARGEST:
            raise ValueError(f"expected at most {LARGEST} values, aliases written out")
        return loader.construct_document(node)
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError) as error:  # of its constructors too
        raise ValueError(f"{where} cannot be read as YAML: {' '.join(str(error).split())}.") from None


@cache
def _strict_loader() -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        """PyYAML's safe loader without times, whose nodes are counted in depth before they are values."""

        yaml_implicit_resolvers = {  # noqa: RUF012
            first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
            for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }
        depth = 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            """Composes a node and those within; each level is a call within that of the level above."""
            self.depth += 1
            if self.depth > DEEPEST:
                mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
                raise yaml.MarkedYAMLError(None, None, f"expected at most {DEEPEST} levels", mark)
            node = super().compose_node(parent, index)
            self.depth -= 1
            if isinstance(node, yaml.MappingNode):
                keys = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
                if twice := [key for key, times in keys.items() if times > 1]:
                    raise yaml.MarkedYAMLError(None, None, f"the key '{twice[0]}' is there twice", node.start_mark)
            return node

    return Loader


def _count(node: Any, counts: dict[int, int]) -> int:
    """Counts the values of a node as often as aliases stand for it: one that is within itself has too many."""
    if id(node) not in counts:
        counts[id(node)] = LARGEST + 1
        parts = [node.value] if isinstance(node.value, str) else node.value
        flat = [part for entry in parts for part in (entry if isinstance(entry, tuple) else (entry,))]
        counts[id(node)] = 1 + sum(_count(part, counts) for part in flat if not isinstance(part, str))
    return counts[id(node)]
