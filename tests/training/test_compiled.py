"""What is to be compiled is compiled, whole, and computes the same."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

PROGRAM = Path(__file__).with_name("compiled_program.py")
BLOCKS = 4
"""A refiner, a dual-stream and two single-stream blocks."""


@pytest.fixture(scope="module")
def counts() -> dict[str, tuple[int, int, float]]:
    root = str(PROGRAM.parents[2])
    answer = subprocess.run([sys.executable, PROGRAM], capture_output=True, text=True, env={"PYTHONPATH": root})
    assert answer.returncode == 0, answer.stderr
    rows = (line.split() for line in answer.stdout.splitlines())
    return {name: (int(graphs), int(runs), float(off)) for name, graphs, runs, off in rows}


def test_a_model_is_one_graph(counts):
    graphs, runs, off = counts["whole"]
    assert (graphs, runs) == (1, 1)
    assert off < 1e-6


def test_recomputed_blocks_are_compiled_too(counts):
    """Each of them runs compiled code forward, and again in the backward pass."""
    graphs, runs, off = counts["recomputed"]
    assert 0 < graphs <= BLOCKS
    assert runs == 2 * BLOCKS
    assert off < 1e-6
