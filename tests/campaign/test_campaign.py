"""A small campaign of kills, pairs, spoilt files and bad options; scripts/campaign.sh is the large one."""

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@pytest.mark.slow
def test_nothing_is_lost_different_hung_crashed_or_wrongly_accepted(tmp_path: Path):
    numbers = ["--kills", "8", "--pairs", "2", "--files", "12", "--options", "12", "--seed", "3"]
    environment = {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    program = [sys.executable, str(HERE / "campaign.py"), str(tmp_path), *numbers]
    answer = subprocess.run(program, env=environment, capture_output=True, text=True)
    assert answer.returncode == 0, f"{answer.stdout}\n{answer.stderr}"
    counts = {line.split()[0]: int(line.split()[1]) for line in answer.stdout.splitlines()[-5:-1]}
    assert counts == {"kills": 8, "pairs": 2, "files": 12, "options": 12}
