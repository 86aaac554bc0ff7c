"""Each notebook runs from its first cell to its last, here with fewer members, days and initial times than it shows."""

import json
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
SMALLER = {
    "01_first_forecast": {"members=8, days=5": "members=2, batch_size=2, days=1", "lead_days=3": "lead_days=1"},
    "02_track_a_storm": {"members=8, days=7": "members=2, batch_size=2, days=2"},
    "03_scorecard": {"12 * hour) + 24": "48 * hour) + 24"},
}
"""What stands in a notebook, and what is put in its place here: fewer members, days and initial times."""


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_to_its_end(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    cells = [cell["source"] for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    assert cells[0].pop(0) == "%matplotlib inline\n"
    code = "\n\n".join("".join(cell) for cell in cells)
    for shown, smaller in SMALLER[path.stem].items():
        assert code.count(shown) == 1
        code = code.replace(shown, smaller)
    with plt.rc_context({"backend": "agg"}):
        exec(compile(code, path, "exec"), {})
        plt.close("all")
