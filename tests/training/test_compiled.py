"""What is to be compiled is compiled, whole, and computes the same."""

from pathlib import Path

import pytest

import processes

pytestmark = pytest.mark.slow

PROGRAM = Path(__file__).with_name("compiled_program.py")
BLOCKS = 3
"""A refiner, a dual-stream and a single-stream block."""


@pytest.fixture(scope="module")
def counts(forks: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, int, float]]:
    output = tmp_path_factory.mktemp("compiled") / "output"
    said = processes.finish(processes.start(PROGRAM, [], output), output)
    rows = (line.split() for line in said.splitlines())
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
