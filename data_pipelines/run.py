"""Stage `run`: all stages that a YAML file lists, in order; the same command goes on where it stopped."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_pipelines.options import EXECUTION, Execution, ExecutionArgument

WITHOUT_EXECUTION = {"simulate", "excerpt", "validate", "status", "plan"}


@dataclass(frozen=True)
class StageCall:
    """Holds a stage and its arguments, by the names that the command line knows.

    A call is made in the words of the command line, so that a file and a shell have the same checks and the same
    messages, and so that what is printed can be run by itself.
    """

    stage: str
    arguments: dict[str, Any]

    def tokens(self, execution: Execution) -> list[str]:
        """Returns the call as words of a command line."""
        words = [self.stage]
        for name, value in self.arguments.items():
            words += _option(name, value)
        if self.stage in WITHOUT_EXECUTION:
            return words
        for name in ("workers", "cluster", "profile"):
            value = getattr(execution, name)
            words += [] if value is None or name in self.arguments else _option(name, value)
        return words


def run(
    config: Path,
    *,
    path: tuple[str, ...] = (),
    execution: ExecutionArgument = EXECUTION,
) -> None:
    """Run the stages that a YAML file lists, one after the other.

    Stages that are complete are passed over, one that was interrupted is gone on with.

    Args:
        config: YAML file with `paths` (names for folders and files) and `stages` (see configs/data).
        path: NAME=PLACE, another place for one of the `paths`.
        execution: where stages do their work, where the file does not say it.
    """
    from data_pipelines.cli import app

    calls = read_calls(config, dict(_name_and_place(text) for text in path))
    for number, call in enumerate(calls, start=1):
        words = call.tokens(execution)
        print(f"[{number}/{len(calls)}] ladcast-data {' '.join(words)}", flush=True)
        app(words, exit_on_error=False)


def read_calls(config: Path, places: dict[str, str]) -> list[StageCall]:
    """Reads the calls; `{name}` in an argument is one of `paths`, which count from the folder of the file.

    Raises:
        ValueError: the file has other keys, an unknown stage or an unknown path.
    """
    import yaml

    from data_pipelines.cli import STAGES

    content = yaml.safe_load(config.read_text()) or {}
    if set(content) != {"paths", "stages"}:
        raise ValueError(f"{config}: expected the keys 'paths' and 'stages', got {sorted(content)}.")
    unknown = [name for name in places if name not in content["paths"]]
    if unknown:
        raise ValueError(f"{config} has no path '{unknown[0]}'. It has {', '.join(content['paths'])}.")
    folder = config.resolve().parent
    paths = {name: str(folder / place) for name, place in content["paths"].items()} | places
    calls = []
    for number, entry in enumerate(content["stages"], start=1):
        arguments = dict(entry)
        stage = arguments.pop("stage", None)
        if stage not in STAGES:
            raise ValueError(f"{config}, step {number}: unknown stage '{stage}'. Known: {', '.join(STAGES)}.")
        filled = {name: _fill(value, paths, f"{config}, step {number}") for name, value in arguments.items()}
        calls.append(StageCall(stage, filled))
    return calls


def _fill(value: Any, paths: dict[str, str], where: str) -> Any:
    if isinstance(value, list):
        return [_fill(item, paths, where) for item in value]
    if not isinstance(value, str):
        return value
    try:
        return value.format(**paths)
    except (KeyError, IndexError, ValueError) as error:
        raise ValueError(f"{where}: '{value}' names no known path ({error}). Known: {', '.join(paths)}.") from None


def _option(name: str, value: Any) -> list[str]:
    flag = f"--{name.replace('_', '-')}"
    if isinstance(value, bool):
        return [flag if value else f"--no-{flag[2:]}"]
    if isinstance(value, list):
        return [word for item in value for word in (flag, str(item))]
    return [flag, str(value)]


def _name_and_place(text: str) -> tuple[str, str]:
    name, equals, place = text.partition("=")
    if not equals:
        raise ValueError(f"Expected --path NAME=PLACE, got '{text}'.")
    return name, str(Path(place).resolve())
