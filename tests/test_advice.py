"""Advice that can be followed: every option, command and extra that a message, a docstring or a page names exists."""

import ast
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml
from cyclopts import App
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from data_pipelines.cli import app as data_app
from ladcast.cli import app

ROOT = Path(__file__).parents[1]
SOURCES = [*sorted(ROOT.glob("ladcast/**/*.py")), *sorted(ROOT.glob("data_pipelines/**/*.py"))]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
OPTION = re.compile(r"(?<![\w-])--([a-z][a-z0-9-]*[a-z0-9])(?![\w-])")
COMMAND = re.compile(r"`(ladcast|ladcast-data) ([a-z]+(?:-[a-z]+)*)(?: ([a-z]+(?:-[a-z]+)*))?")
EXTRA = re.compile(r"(?:ladcast\[|\.\[|extra \[|extra `)([a-z]+)[\]`]")
OF_OTHERS = """
    account array cpus-per-task dependency export-dir format jobs jobid kill-on-bad-exit noheader parsable requeue wrap
    dist jaxtyping-packages logdir nproc-per-node strict version help json install-completion extra-index-url index-url
    batch frames minutes seconds size
"""
"""Options of Slurm, of pip, pytest and others, and of our own scripts and benchmarks."""
OF_CONDA = {"dask": "dask-core", "matplotlib": "matplotlib-base", "torch": "pytorch"}
"""What conda-forge calls a package by another name."""
OF_WHEELS = {"eccodes": "its wheels alone clash with cartopy", "eccodeslib": "the library of the wheels of eccodes"}
NOT_OF_CONDA = {"interop", "simulate", "track"}
"""Extras that `environment.yml` leaves out."""


@cache
def commands(name: str) -> dict[str, App]:
    """Returns the commands of a program by their words, such as `plan forecast`."""
    program, found = {"ladcast": app, "ladcast-data": data_app}[name], {}

    def walk(some: App, words: str) -> None:
        for word in some:
            if not word.startswith("-"):
                found[f"{words} {word}".strip()] = some[word]
                walk(some[word], f"{words} {word}".strip())

    walk(program, "")
    return found


@cache
def options() -> set[str]:
    """Returns the options of all commands."""
    return {
        name.removeprefix("--")
        for program in ("ladcast", "ladcast-data")
        for command in commands(program).values()
        if command.default_command is not None
        for argument in command.assemble_argument_collection()
        for name in argument.names
    }


@cache
def known() -> tuple[set[str], set[str]]:
    """Returns the options that a text may name, and the extras."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    return options() | set(OF_OTHERS.split()), set(extras)


def texts(path: Path) -> Iterator[str]:
    """Yields the strings of a source, those of one f-string together, or a whole page."""
    if path.suffix == ".md":
        yield path.read_text()
        return
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def wrong(path: Path) -> Iterator[str]:
    """Yields what a file names and nobody can follow."""
    known_options, extras = known()
    for text in texts(path):
        yield from (f"--{name}" for name in OPTION.findall(text) if name not in known_options)
        yield from (f"[{name}]" for name in EXTRA.findall(text) if name not in extras)
        for program, first, second in COMMAND.findall(text):
            there = commands(program)
            group = any(words.startswith(f"{first} ") for words in there)
            if first not in there or (group and second and f"{first} {second}" not in there):
                yield f"{program} {first} {second}"


@pytest.mark.parametrize("path", [*SOURCES, *PAGES], ids=lambda path: str(path.relative_to(ROOT)))
def test_what_is_named_exists(path: Path) -> None:
    assert not sorted(set(wrong(path)))


def test_what_does_not_exist_is_found(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text('raise ValueError(f"{x}: add --repo, run `ladcast plan score`, ladcast[verify]")')
    assert sorted(set(wrong(tmp_path / "bad.py"))) == ["--repo", "[verify]", "ladcast plan score"]


def test_environment_of_conda_asks_for_what_the_package_does() -> None:
    """It is compared as text: whether conda-forge has these versions is not known here."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = [*project["dependencies"], *(one for name in extras if name not in NOT_OF_CONDA for one in extras[name])]
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    there = [Requirement(one.replace("=", "==", 1) if one.startswith("python=") else one) for one in environment[:-1]]
    found = {canonicalize_name(one.name): one.specifier for one in there}
    wanted = {canonicalize_name(one.name): one.specifier for one in map(Requirement, asked)}
    wanted = {OF_CONDA.get(name, name): versions for name, versions in wanted.items() if name not in OF_WHEELS}
    assert {name: found[name] for name in found if name not in {"pip", "python", *OF_WHEELS}} == wanted
    assert str(found["python"]).removeprefix("==") in Requirement(f"python{project['requires-python']}").specifier
