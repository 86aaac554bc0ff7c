"""The command `ladcast-data`: one subcommand per stage, each imported when it runs; `run` calls what a file lists."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cyclopts import App, Parameter

import ladcast.run
from data_pipelines import EXECUTION, Execution, ExecutionArgument
from ladcast.documents import read_mapping
from ladcast.run import strictly

STAGES = {
    "plan": ("transfer", "Say what a download would move and need, before anything moves."),
    "download": ("transfer", "Copy states of an archive or of local files into a store."),
    "regrid": ("transfer", "Regrid a store conservatively."),
    "derive": ("transfer", "Add six-hour precipitation from hourly sums, and vorticity."),
    "weekly": ("transfer", "Write the means over the seven days before each 00 UTC."),
    "static-fields": ("static_fields", "Write land, height and roughness of the ground on a model's grid."),
    "statistics": ("statistics", "Write the mean and standard deviation of every channel of a store."),
    "climatology": ("statistics", "Write the mean and standard deviation of a store by day of the year."),
    "encode": ("encode", "Encode a store to latents with a trained autoencoder."),
    "excerpt": ("statistics", "Cut start states and the truth that follows them out of a store."),
    "simulate": (
        "gcm.ensemble",
        "Simulate years of weather, or ensembles, with a model (extra [simulate]).",
    ),
    "validate": ("manifest", "Check the files of a product against their checksums, and its fields."),
    "status": ("manifest", "Show what is made, being made and missing in a folder."),
    "run": ("cli", "Run the stages that a YAML file lists; the same command goes on where it stopped."),
}
"""By name, the module of each stage and what it does."""
PLACE = re.compile(r"\{(\w*)\}")
"""A name of `paths` within an argument."""
WITHOUT_EXECUTION = {"simulate", "excerpt", "validate", "status", "plan"}

app = App(
    name="ladcast-data",
    help="Make the data sets that ladcast is trained and judged on.",
    result_action="return_value",
    default_parameter=Parameter(consume_multiple=True, converter=strictly, negative_iterable=()),  # as in --at A B
    suppress_keyboard_interrupt=False,
)
for stage, (module, summary) in STAGES.items():
    app.command(f"data_pipelines.{module}:{stage.replace('-', '_')}", name=stage, help=summary)
app.register_install_completion_command(help="Install completion of commands and options for your shell.")


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


def run(config: Path, *, path: tuple[str, ...] = (), execution: ExecutionArgument = EXECUTION) -> None:
    """Run the stages that a YAML file lists, one after the other.

    Stages that are complete are passed over, one that was interrupted is gone on with.

    Args:
        config: YAML file with `paths` (names for folders and files) and `stages`, or the name of one in configs/data.
        path: NAME=PLACE, another place for one of the `paths`.
        execution: where stages do their work, where the file does not say it.
    """
    from ladcast.config import find_config

    places = {}
    for text in path:
        name, equals, place = text.partition("=")
        if not equals:
            raise ValueError(f"Expected --path NAME=PLACE, got '{text}'.")
        places[name] = str(Path(place).resolve())
    calls = read_calls(find_config(config, "data"), places)
    for number, call in enumerate(calls, start=1):
        words = call.tokens(execution)
        print(f"[{number}/{len(calls)}] ladcast-data {' '.join(words)}", flush=True)
        app(words, exit_on_error=False)


def read_calls(config: Path, places: dict[str, str]) -> list[StageCall]:
    """Reads the calls; `{name}` in an argument is one of `paths`, which count from the folder of the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no YAML, has other keys, an unknown stage or an unknown path.
    """
    content = _read_yaml(config)
    unknown = [name for name in places if name not in content["paths"]]
    if unknown:
        raise ValueError(f"{config} has no path '{unknown[0]}'. It has {', '.join(content['paths'])}.")
    folder = config.resolve().parent
    paths = {name: str(folder / place) for name, place in content["paths"].items()} | places
    calls = []
    for number, entry in enumerate(content["stages"], start=1):
        where = f"{config}, step {number}"
        if not isinstance(entry, dict):
            raise ValueError(f"{where}: expected a stage and its arguments, got {entry!r}. Write `- stage: NAME`.")
        arguments = {str(name): value for name, value in entry.items()}
        stage = arguments.pop("stage", None)
        if stage == "run" or not isinstance(stage, str) or stage not in STAGES:
            known = ", ".join(name for name in STAGES if name != "run")
            raise ValueError(f"{where}: unknown stage '{stage}'. Known: {known}.")
        calls.append(StageCall(stage, {name: _fill(value, paths, where) for name, value in arguments.items()}))
    return calls


def _read_yaml(config: Path) -> dict[str, Any]:
    if not config.is_file():
        raise FileNotFoundError(f"{config} is no file: expected YAML with 'paths' and 'stages'. Check the path.")
    content = read_mapping(config)
    if set(content) != {"paths", "stages"}:
        raise ValueError(f"{config}: expected the keys 'paths' and 'stages', got {sorted(map(str, content))}.")
    paths, stages = content["paths"] or {}, content["stages"]
    if not isinstance(paths, dict) or not all(isinstance(part, str) for pair in paths.items() for part in pair):
        raise ValueError(f"{config}: expected 'paths' as names of folders and files, got {paths!r}.")
    if not isinstance(stages, list):
        raise ValueError(f"{config}: expected 'stages' as a list, got a {type(stages).__name__}.")
    return {"paths": paths, "stages": stages}


def _fill(value: Any, paths: dict[str, str], where: str) -> Any:
    """Puts paths in the place of their names; everything else stays as it is written."""
    if isinstance(value, list) and not any(isinstance(item, list) for item in value):
        return [_fill(item, paths, where) for item in value]
    if isinstance(value, list | dict):
        raise ValueError(f"{where}: expected a value or a list, got {value!r}.")
    if not isinstance(value, str):
        return value
    unknown = [name for name in PLACE.findall(value) if name not in paths]
    if unknown or set("{}") & set(PLACE.sub("", value)):
        named = f"'{unknown[0]}'" if unknown else "a brace alone"
        raise ValueError(f"{where}: '{value}' names no known path ({named}). Known: {', '.join(paths) or 'none'}.")
    return PLACE.sub(lambda match: paths[match[1]], value)


def _option(name: str, value: Any) -> list[str]:
    flag = f"--{name.replace('_', '-')}"
    if isinstance(value, bool):
        return [flag if value else f"--no-{flag[2:]}"]
    if isinstance(value, list):
        return [word for item in value for word in (flag, str(item))]
    return [flag, str(value)]


def main() -> None:
    """Runs `ladcast-data`."""
    ladcast.run.run(app)
