"""Reads YAML into frozen dataclasses, strictly: an unknown key is an error that suggests the nearest one.

The schema is the dataclass that uses the numbers, so that no setting is described twice.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

Schema = TypeVar("Schema")
Section = dict[str, Any]
"""A section whose schema another section or the data decide; like any other it may be the path of a YAML file."""


class ConfigError(ValueError):
    """Reports a configuration that cannot be used: says where, what was expected and what was found."""


def load_config(path: Path, schema: type[Schema], overrides: Sequence[str] = ()) -> Schema:
    """Reads `path` as `schema`; `overrides` are `key.subkey=value` strings that win over the file.

    Fields of type Path are taken relative to the file's folder. A section may be the path of a YAML file that holds it.

    Raises:
        ConfigError: the file is missing, or has an unknown or missing key or a value of the wrong type.
    """
    if not path.is_file():
        raise ConfigError(f"No configuration file at {path}.")
    content = _parse_yaml(path.read_text(), str(path))
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must hold a mapping of settings, got {type(content).__name__}.")
    content = _include(content, schema, path)
    for override in overrides:
        content = _override(content, override)
    return parse_config(content, schema, where=str(path), folder=path.parent)


def from_overrides(overrides: Sequence[str], schema: type[Schema]) -> Schema:
    """Returns the defaults of `schema` with `key.subkey=value` strings that win; raises as `load_config` does."""
    content: dict[str, Any] = {}
    for override in overrides:
        content = _override(content, override)
    return parse_config(content, schema, where="--set")


def parse_config(content: Mapping[str, Any], schema: type[Schema], *, where: str, folder: Path = Path()) -> Schema:
    """Validates plain data as `schema`; raises ConfigError with `where` and the dotted key."""
    from pydantic import TypeAdapter, ValidationError

    _check_keys(content, schema, where, prefix="")
    try:
        parsed = TypeAdapter(schema).validate_python(content)
    except ValidationError as error:
        problems = "; ".join(
            f"'{'.'.join(map(str, e['loc']))}': {e['msg']} (got {e['input']!r})" for e in error.errors()
        )
        raise ConfigError(f"{where}: {problems}.") from None
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None
    anchored: Schema = _anchor_paths(parsed, folder)
    return anchored


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
        return _parse_yaml(included.read_text(), str(included))
    if not described or not isinstance(content, Mapping):
        return content
    hints = get_type_hints(described[0])
    return {key: _include(value, hints.get(key), path) for key, value in content.items()}


def _parse_yaml(text: str, where: str) -> Any:
    """Parses YAML, keeping dates as the strings they are written as."""
    import yaml

    class Loader(yaml.SafeLoader):
        yaml_implicit_resolvers = {  # noqa: RUF012
            first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
            for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

    try:
        return yaml.load(text, Loader)  # a SafeLoader
    except yaml.YAMLError as error:
        raise ConfigError(f"{where} is no YAML: {' '.join(str(error).split())}.") from None


def _override(content: dict[str, Any], override: str) -> dict[str, Any]:
    dotted, separator, text = override.partition("=")
    if not separator:
        raise ConfigError(f"Expected an override as key=value, got '{override}'.")
    key, _, rest = dotted.partition(".")
    if not rest:
        return {**content, key: _parse_yaml(text, f"The override '{override}'")}
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
