"""kill -9 at any moment: a run loses at most one checkpoint interval and never loads a wrong state."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("kill_program.py")
KILLS = 8
INTERVAL = 5


@pytest.mark.slow
@pytest.mark.parametrize("background", [False, True])
def test_a_run_survives_being_killed_again_and_again(tmp_path: Path, background: bool):
    arguments = [str(tmp_path), str(KILLS), str(INTERVAL), str(background).lower()]
    environment = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROGRAM.parents[2])}
    answer = subprocess.run([sys.executable, str(PROGRAM), *arguments], env=environment, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    *kills, last = [line.split() for line in answer.stdout.splitlines()]
    assert len(kills) == KILLS
    lost = [int(reached) - int(saved) for reached, saved in kills]
    assert max(lost) <= INTERVAL * (1 + background)
    assert max(lost) > 0
    assert last == ["same", "weights"]
