"""The direction of imports is part of the design, and so is a command line that starts at once."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

FLOORS = (
    "constants device fields files grid progress run times types units",
    "cf checkpoint",
    "resumable",
    "nn diffusion data config verification",
    "models plots cyclones",
    "forecasting",
    "training",
    "released",
    "forecasts",
    "recipes",
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
LIGHT_MODULES = ("ladcast", "ladcast.config", "ladcast.cli", "data_pipelines.cli")


def imported_names(source: str, module: Path) -> Iterator[str]:
    """Yields the dotted name of everything that `source` imports; relative names count from `module`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = module.parts[: -node.level] if node.level else ()
            base = ".".join([*above, *(node.module or "").split(".")]).strip(".")
            yield from (f"{base}.{alias.name}" for alias in node.names)


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


@pytest.mark.parametrize(
    "source",
    [
        "import ladcast.forecasting.rollout",
        "import numpy, ladcast.cli as cli",
        "from ladcast.models.transformer import Transformer",
        "from ladcast import commands",
        "from ladcast import forecast",
        "from ladcast.data.packing import pack",
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
    program = f"import sys, {module}; print(*sys.modules)"
    answer = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert not HEAVY & set(answer.stdout.split())
