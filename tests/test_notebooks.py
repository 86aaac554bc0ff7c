"""Each notebook runs from its first cell to its last, here with fewer members, days and initial times than it shows."""

import ast
import io
import json
import os
import re
import shlex
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest
from matplotlib.figure import Figure

from data_pipelines.cli import app as data_app
from ladcast.cli import app, run

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
MOST_LINES = 30
SHORT = {"members=8, days=5": "members=2, batch_size=2, days=1"}  # the same in all: one forecast serves them
SMALLER = {
    "01_first_forecast": {**SHORT, "lead_days=3": "lead_days=1"},
    "02_track_a_storm": {"members=8, days=7": "members=2, batch_size=2, days=2"},
    "03_scorecard": {"12 * hour) + 24": "48 * hour) + 24"},
    "04_what_the_codec_keeps": {},
    "05_ensembles": {**SHORT, "lead_days=3": "lead_days=1"},
    "06_a_real_cyclone": {
        '"ibtracs.csv"': 'SHARED + "/kit/tracks/ibtracs_official_layout_10storms_derived.csv"',
        '"era40.nc"': 'SHARED + "/kit/era40/era40_sfc_2p5deg_200207.nc"',
    },
    "07_your_own_analysis": SHORT,
    "08_train_in_ten_minutes": {
        "days=60": "days=2",
        "steps: 300": "steps: 2",
        "every: 300": "every: 2",
        "batch_size: 8": "batch_size: 2",
        "heads: 2, head_dim: 64, rope_axes_dim: [8, 28, 28], dual_blocks: 1, single_blocks: 2": (
            "heads: 1, head_dim: 32, rope_axes_dim: [8, 12, 12], dual_blocks: 0, single_blocks: 1, refiner_blocks: 0"
        ),
        "members=4, days=3": "members=2, batch_size=2, steps=2, days=1",
    },
    "09_ask_a_latent_store": {**SHORT, "for 24 h": "for 6 h"},
}
"""What stands in a notebook, and what is put in its place here: fewer members, days and initial times."""
KEPT = os.environ.get("LADCAST_NOTEBOOKS")
"""Where figures are kept for the documentation (`docs/conf.py`)."""


def code_of(path: Path) -> list[tuple[int, str]]:
    """Returns number and text of the cells with code."""
    cells = json.loads(path.read_text())["cells"]
    return [(number, "".join(cell["source"])) for number, cell in enumerate(cells) if cell["cell_type"] == "code"]


def command(text: str) -> None:
    """Runs what stands behind an exclamation mark."""
    name, *words = shlex.split(text)
    run({"ladcast": app, "ladcast-data": data_app}[name], words)


def execute(cell: str, names: dict[str, Any]) -> tuple[Any, str]:
    """Runs a cell as IPython does; returns the value of its last line, and what it printed."""
    cell = re.sub(r"^!(.*)$", r"command(f'\1')", cell.replace("%matplotlib inline\n", ""), flags=re.MULTILINE)
    *lines, last = ast.parse(cell).body
    if not isinstance(last, ast.Expr) or cell.rstrip().endswith(";"):
        lines, last = [*lines, last], ast.parse("None").body[0]
    printed = io.StringIO()
    with redirect_stdout(printed):
        exec(compile(ast.Module(lines, []), "a cell", "exec"), names)
        value = eval(compile(ast.Expression(last.value), "a cell", "eval"), names)
    return value, printed.getvalue()


def keep(path: Path, number: int, shown: tuple[Any, str]) -> None:
    """Keeps what a cell shows for the documentation: its figure, or its text."""
    value, printed = shown
    figures = [value] if isinstance(value, Figure) else [plt.figure(open_one) for open_one in plt.get_fignums()]
    target = Path(str(KEPT)) / f"{path.stem}-{number}.png"
    target.parent.mkdir(parents=True, exist_ok=True)
    if figures:
        figures[-1].savefig(target, dpi=70)
    text = printed if value is None or figures or "xarray" in repr(value) else f"{printed}{value}"
    target.with_suffix(".txt").write_text(text)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_to_its_end(path: Path, request: pytest.FixtureRequest, tmp_path: Path):
    code, smaller = code_of(path), SMALLER[path.stem]
    shared = str(request.getfixturevalue("shared")) if any("SHARED" in text for text in smaller.values()) else ""
    for shown in smaller:
        assert any(shown in text for _, text in code), f"{shown} is no longer there"
    names = {"SHARED": shared, "command": command}
    before = Path.cwd()
    os.chdir(tmp_path)
    try:
        with plt.rc_context({"backend": "agg"}):
            for number, text in code:
                for shown, instead in smaller.items():
                    text = text.replace(shown, instead)
                result = execute(text, names)
                if KEPT:
                    keep(path, number, result)
                plt.close("all")
    finally:
        os.chdir(before)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_short_and_kept_without_outputs(path: Path):
    cells = json.loads(path.read_text())["cells"]
    assert sum(bool(line.strip()) for _, text in code_of(path) for line in text.splitlines()) <= MOST_LINES
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
