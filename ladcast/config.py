"""Reads YAML into frozen dataclasses, strictly: an unknown key is an error that suggests the nearest one.

The schema is the dataclass that uses the numbers, so that no setting is described twice. Bounds stand in its types
(`Annotated[int, Ge(1)]`); a number that is not finite is within none.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from ladcast.documents import parse_yaml, read_mapping

Schema = TypeVar("Schema")
Section = dict[str, Any]
"""A section whose schema another section or the data decide; like any other it may be the path of a YAML file."""


class ConfigError(ValueError):
    """Reports a configuration that cannot be used: says where, what was expected and what was found."""


def find_config(name: Path, kind: str) -> Path:
    """Returns the file of a configuration: a path as it is, for a name configs/KIND/NAME.yaml, here or in the checkout.

    Raises:
        ConfigError: there is none of this name; lists those there are.
    """
    if name.suffix or name.is_file() or len(name.parts) > 1:
        return name
    folders = [parent / "configs" / kind for parent in (Path(), Path(__file__).parents[1])]
    for folder in folders:
        if (folder / f"{name}.yaml").is_file():
            return folder / f"{name}.yaml"
    known = sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})
    raise ConfigError(f"No configuration '{name}'. There are {', '.join(known) or 'none'}; or give a file.")


def load_config(path: Path, schema: type[Schema], overrides: Sequence[str] = ()) -> Schema:
    """Reads `path` as `schema`; `overrides` are `key.subkey=value` strings that win over the file.

    Fields of type Path are taken relative to the file's folder. A section may be the path of a YAML file that holds it.

    Raises:
        ConfigError: the file is missing or no YAML, or has an unknown or missing key, or a value of the wrong type or
            out of its bounds.
    """
    if not path.is_file():
        raise ConfigError(f"No configuration file at {path}.")
    content: Section = reduce(_override, overrides, _include(_read(path), schema, path))
    return parse_config(content, schema, where=str(path), folder=path.parent)


def from_overrides(overrides: Sequence[str], schema: type[Schema]) -> Schema:
    """Returns the defaults of `schema` with `key.subkey=value` strings that win; raises as `load_config` does."""
    content: Section = reduce(_override, overrides, {})
    return parse_config(content, schema, where="--set")


def parse_config(content: Mapping[str, Any], schema: type[Schema], *, where: str, folder: Path = Path()) -> Schema:
    """Validates plain data as `schema`; raises ConfigError with `where` and the dotted key."""
    from pydantic import TypeAdapter, ValidationError

    _check_keys(content, schema, where, prefix="")
    try:
        parsed = TypeAdapter(schema).validate_python(content)
    except ValidationError as error:
        raise ConfigError(f"{where}: {'; '.join(map(_describe, error.errors()))}.") from None
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None
    if key := _endless_number(parsed):
        raise ConfigError(f"{where}: '{key}': expected a finite number.")
    anchored: Schema = _anchor_paths(parsed, folder)
    return anchored


def _describe(error: Mapping[str, Any]) -> str:
    """Says what is wrong where; a schema that refuses its settings together says itself what it got."""
    message = error["msg"].removeprefix("Value error, ").removesuffix(".")
    key = ".".join(map(str, error["loc"]))
    return f"'{key}': {message} (got {reprlib.repr(error['input'])})" if key else message


def complete(section: Mapping[str, Any], schema: type[Schema], *, where: str, **known: Any) -> Schema:
    """Validates a section as `schema`, with the fields that are known otherwise.

    Raises:
        ConfigError: as `parse_config`, or the section says what is known otherwise.
    """
    if said := sorted(set(section) & set(known)):
        raise ConfigError(f"{where}: {', '.join(said)} follow from the data. Remove them.")
    return parse_config({**section, **known}, schema, where=where)


def to_plain(config: Any) -> Any:
    """Converts a dataclass tree to the plain mappings, lists and strings that YAML holds."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {field.name: to_plain(getattr(config, field.name)) for field in dataclasses.fields(config)}
    if isinstance(config, (list, tuple)):
        return [to_plain(item) for item in config]
    return str(config) if isinstance(config, Path) else config


def _check_keys(content: Any, schema: Any, where: str, prefix: str) -> None:
    described = [option for option in (schema, *get_args(schema)) if dataclasses.is_dataclass(option)]
    if not (described and isinstance(content, Mapping)):  # `Schema | None` counts as Schema
        return
    hints = get_type_hints(described[0])
    known = [field.name for field in dataclasses.fields(described[0])]
    for key, value in content.items():
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f"Did you mean '{close[0]}'?" if close else f"Known keys: {', '.join(known)}."
            raise ConfigError(f"{where}: unknown config key '{prefix}{key}'. {hint}")
        _check_keys(value, hints[key], where, f"{prefix}{key}.")


def _endless_number(config: Any) -> str:
    """Returns the dotted key of a number that is not finite, which no setting may be; empty where there is none."""
    if isinstance(config, float):
        return "" if math.isfinite(config) else "."
    parts: Iterable[tuple[Any, Any]] = ()
    if dataclasses.is_dataclass(config):
        parts = vars(config).items()
    elif isinstance(config, Mapping):
        parts = config.items()
    elif isinstance(config, list | tuple):
        parts = enumerate(config)
    found = ((name, _endless_number(value)) for name, value in parts)
    return next((f"{name}.{key}".rstrip(".") for name, key in found if key), "")


def _include(content: Any, schema: Any, path: Path) -> Any:
    """Replaces each section that is the path of a YAML file, relative to the file at `path`, by its content."""
    described = [option for option in (schema, *get_args(schema)) if dataclasses.is_dataclass(option)]
    if not described and Section not in (schema, *get_args(schema)):
        return content
    if isinstance(content, str):
        included = path.parent / content
        if not included.is_file():
            raise ConfigError(
                f"{path}: expected a section or the path of a YAML file, got '{content}', which is no file."
            )
        return _read(included)
    if not described or not isinstance(content, Mapping):
        return content
    hints = get_type_hints(described[0])
    return {key: _include(value, hints.get(key), path) for key, value in content.items()}


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_mapping(path)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _override(content: dict[str, Any], override: str) -> dict[str, Any]:
    dotted, separator, text = override.partition("=")
    if not separator:
        raise ConfigError(f"Expected an override as key=value, got '{override}'.")
    key, _, rest = dotted.partition(".")
    if not rest:
        try:
            return {**content, key: parse_yaml(text, f"The override '{override}'")}
        except ValueError as error:
            raise ConfigError(str(error)) from None
    section = content.get(key) or {}
    if not isinstance(section, dict):
        raise ConfigError(f"The override '{override}' needs a section '{key}', which holds {section!r}.")
    return {**content, key: _override(section, f"{rest}={text}")}


def _anchor_paths(config: Any, folder: Path) -> Any:
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        names = [field.name for field in dataclasses.fields(config)]
        return dataclasses.replace(config, **{name: _anchor_paths(getattr(config, name), folder) for name in names})
    if isinstance(config, Path):
        return folder / config
    if isinstance(config, tuple):
        return tuple(_anchor_paths(item, folder) for item in config)
    return config
