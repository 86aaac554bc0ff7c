"""The benchmark of training runs, with tiny networks on a CPU, and prints a line for each case."""

import re
from pathlib import Path

import pytest

import processes

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_every_case_that_needs_no_compilation_is_timed(forks: None, tmp_path: Path):
    arguments = ["--tiny", "--eager", "--steps", "1"]
    benchmark = processes.start(ROOT / "benchmarks/training.py", arguments, tmp_path / "output")
    said = processes.finish(benchmark, tmp_path / "output")
    timed = re.findall(r"^(\S+) +batch +(\d+) x 1 GPU.* (\d+\.\d+) s .*TFLOP/s$", said, re.MULTILINE)
    assert [(name, batch) for name, batch, _ in timed] == [("forecaster-375m", "16"), ("autoencoder", "4")]
    assert all(float(seconds) > 0 for *_, seconds in timed)
