"""kill -9 at any moment: a run loses at most one checkpoint interval and never loads a wrong state."""

from pathlib import Path

import pytest

import processes

PROGRAM = Path(__file__).with_name("kill_program.py")
KILLS = 5
INTERVAL = 5


@pytest.mark.slow
@pytest.mark.parametrize("background", [False, True])
def test_a_run_survives_being_killed_again_and_again(forks: None, tmp_path: Path, background: bool):
    (tmp_path / "runs").mkdir()
    arguments = [tmp_path / "runs", KILLS, INTERVAL, str(background).lower()]
    said = processes.finish(processes.start(PROGRAM, arguments, tmp_path / "output"), tmp_path / "output")
    *kills, last = [line.split() for line in said.splitlines()]
    assert len(kills) == KILLS
    lost = [int(reached) - int(saved) for reached, saved in kills]
    assert max(lost) <= INTERVAL * (1 + background)
    assert max(lost) > 0
    assert last == ["same", "weights"]
