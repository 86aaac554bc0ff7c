"""The direction of imports is part of the design, and so is a command line that starts at once."""

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from ladcast.cli import COMMANDS

FLOORS = (
    "documents",
    "device fields files grid run times units",
    "cf checkpoint checksums types",
    "resumable",
    "nn diffusion data config verification",
    "models plots cyclones",
    "forecasting",
    "training",
    "released",
    "forecasts",
    "recipes view",
    "api",
    "commands",
    "cli",
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS, start=1) for room in rooms.split()}
MAY_IMPORT_CONFIG = {"config", "recipes", "commands", "cli"}

ROOT = Path(__file__).parents[1]
MODULES = [
    path.relative_to(ROOT) for path in sorted(ROOT.glob("ladcast/**/*.py")) if path != ROOT / "ladcast/__init__.py"
]

HEAVY = {"cartopy", "dask", "diffusers", "jax", "matplotlib", "pandas", "scipy", "torch", "xarray", "zarr"}
LIGHT_MODULES = ("ladcast", "ladcast.config", "data_pipelines.cli")


@cache
def imported_names(source: str, module: Path) -> tuple[str, ...]:
    """Returns the dotted name of everything that `source` imports; relative names count from `module`."""
    return tuple(_imported_names(source, module))


def _imported_names(source: str, module: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = module.parts[: -node.level] if node.level else ()
            base = ".".join([*above, *(node.module or "").split(".")]).strip(".")
            yield from (f"{base}.{alias.name}" for alias in node.names)


def read_modules(root: Path) -> dict[str, tuple[Path, str]]:
    """Returns by dotted name the relative path and the source of every module of both packages."""
    found = sorted([*root.glob("ladcast/**/*.py"), *root.glob("data_pipelines/**/*.py")])
    paths = [path.relative_to(root) for path in found]
    names = {".".join(path.with_suffix("").parts).removesuffix(".__init__"): path for path in paths}
    return {name: (path, (root / path).read_text()) for name, path in names.items()}


def circle(modules: Mapping[str, tuple[Path, str]]) -> list[str]:
    """Returns modules that import each other in a circle, also where an import stands in a function; empty for none."""
    needs: dict[str, set[str]] = {}
    for name, (path, source) in modules.items():
        imported = (full if full in modules else full.rpartition(".")[0] for full in imported_names(source, path))
        needs[name] = {other for other in imported if other in modules and other != name}
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def violations(source: str, module: Path) -> Iterator[str]:
    """Yields a sentence for each import in `source` that the floors forbid to `module`, a relative path."""
    room = module.with_suffix("").parts[1]
    for name in imported_names(source, module):
        package, _, rest = name.partition(".")
        imported = rest.partition(".")[0]
        if package == "data_pipelines":
            yield f"{module} imports {name}: pipelines import ladcast, never the reverse."
        if package != "ladcast" or imported == room:
            continue
        if imported not in FLOOR:
            yield f"{module} imports {name}: import from the room that defines it, one of {sorted(FLOOR)}."
        elif imported == "config" and room not in MAY_IMPORT_CONFIG:
            yield f"{module} imports {name}: configuration stops at recipes and commands, classes take plain arguments."
        elif FLOOR[imported] >= FLOOR[room]:
            yield f"{module} (floor {FLOOR[room]}) imports {name} ({FLOOR[imported]}): imports point down."


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_imports_point_down(module: Path) -> None:
    assert module.with_suffix("").parts[1] in FLOOR, f"{module} stands in no room: give it a floor in FLOORS."
    assert not list(violations((ROOT / module).read_text(), module))


def test_no_files_import_each_other_in_a_circle() -> None:
    found = circle(read_modules(ROOT))
    assert not found, " imports ".join(reversed(found))


def test_a_circle_is_found_through_packages_and_functions(tmp_path: Path) -> None:
    sources = {
        "ladcast/__init__.py": "",
        "ladcast/a.py": "from ladcast.room import b",
        "ladcast/room/__init__.py": "",
        "ladcast/room/b.py": "def later():\n    from ..c import thing",
        "ladcast/c.py": "import ladcast.a",
    }
    for name, source in sources.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(source)
    assert set(circle(read_modules(tmp_path))) == {"ladcast.a", "ladcast.room.b", "ladcast.c"}
    (tmp_path / "ladcast/c.py").write_text("import numpy")
    assert not circle(read_modules(tmp_path))


@pytest.mark.parametrize(
    "source",
    [
        "import ladcast.forecasting.stepper",
        "import numpy, ladcast.cli as cli",
        "from ladcast.models.transformer import Transformer",
        "from ladcast import commands",
        "from ladcast import forecast",
        "from ladcast.data.normalization import pack",
        "from ladcast.config import ModelConfig",
        "from data_pipelines.manifest import read_manifest",
        "from ..training import loop",
        "from .. import cli",
        "def later():\n    from ladcast.models import published",
    ],
)
def test_a_forbidden_import_is_found(source: str) -> None:
    assert len(list(violations(source, Path("ladcast/nn/block.py")))) == 1


@pytest.mark.parametrize(
    "source",
    [
        "from ladcast.grid import Grid",
        "import ladcast.times",
        "from .sphere import SphereConv",
        "from . import sphere",
        "import torch",
    ],
)
def test_an_import_from_below_or_beside_is_allowed(source: str) -> None:
    assert not list(violations(source, Path("ladcast/nn/block.py")))


@pytest.mark.parametrize("module", LIGHT_MODULES)
def test_import_stays_light(module: str) -> None:
    """Importing the command line must not wait for torch: `--help` answers at once."""
    assert not HEAVY & loaded(f"import sys, {module}; print(*sys.modules)")


@pytest.mark.slow
def test_help_of_every_command_stays_light() -> None:
    """Help imports the files of commands, and they import what takes long in their functions."""
    asked = [words.split() for words in COMMANDS]
    program = (
        "import sys, io\nfrom contextlib import redirect_stdout\nfrom ladcast.cli import app\n"
        f"with redirect_stdout(io.StringIO()):\n    for words in {asked}:\n        app([*words, '--help'])\n"
        "print(*sys.modules)"
    )
    assert not HEAVY & loaded(program)


def loaded(program: str) -> set[str]:
    """Returns the modules that a program prints in a process of its own."""
    answer = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    return set(answer.stdout.split())


@pytest.mark.slow
def test_what_exists_or_is_missing_is_refused_before_anything_heavy_is_imported(tmp_path: Path) -> None:
    """A mistake of a second is answered within one."""
    taken = ("again.nc", "a.scores.nc", "a.tracks.nc", "a.png", "a.nc")
    for name in taken:
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "a.zarr").mkdir()
    asked = [
        "score a.zarr",
        "merge sums --output again.nc",
        "evaluate a.zarr --start 2020-01-01 --end 2020-01-03 --output again.nc",
        "plot a.zarr",
        "track a.zarr --all",
        "season a.zarr --truth t.nc --output again.nc",
        "export a.zarr a.nc",
        "products points a.zarr a.nc --place Oslo",
        "products weekly a.zarr a.nc",
        "products mean a.zarr a.nc",
    ]
    missing = [
        "score no.zarr",
        "plot no.zarr",
        "track no.zarr --all",
        "export no.zarr b.nc",
        "products mean no.zarr b.nc",
    ]
    program = (
        "import os, sys\nfrom ladcast.cli import app\nfrom ladcast.run import run\n"
        f"os.chdir({str(tmp_path)!r})\n"
        f"for words in {asked + missing}:\n    try:\n        run(app, words.split())\n"
        f"    except SystemExit as stop:\n        assert stop.code == (3 if words in {missing} else 4), words\n"
        "print(*sys.modules)"
    )
    assert not HEAVY & loaded(program)
