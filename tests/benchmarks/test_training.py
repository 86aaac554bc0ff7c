"""The benchmark of training runs, with tiny networks on a CPU, and prints a line for each case."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_every_case_that_needs_no_compilation_is_timed():
    command = [sys.executable, str(ROOT / "benchmarks/training.py"), "--tiny", "--eager", "--steps", "2"]
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    timed = re.findall(r"^(\S+) +batch +(\d+) x 1 GPU.* (\d+\.\d+) s .*TFLOP/s$", answer.stdout, re.MULTILINE)
    assert [(name, batch) for name, batch, _ in timed] == [("forecaster-375m", "16"), ("autoencoder", "4")]
    assert all(float(seconds) > 0 for *_, seconds in timed)
