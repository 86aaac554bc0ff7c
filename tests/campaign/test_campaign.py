"""A small campaign of kills, pairs, spoilt files and bad options; scripts/campaign.sh is the large one."""

from pathlib import Path

import pytest

import processes

PROGRAM = Path(__file__).with_name("campaign.py")
LONGEST_S = 1700
NUMBERS = {"kills": 5, "pairs": 1, "files": 8, "options": 8}


@pytest.mark.slow
@pytest.mark.timeout(LONGEST_S + 100)
def test_nothing_is_lost_different_hung_crashed_or_wrongly_accepted(forks: None, tmp_path: Path):
    """The kinds come in another order with each seed: some of each are met."""
    numbers = [word for name, number in NUMBERS.items() for word in (f"--{name}", number)]
    campaign = processes.start(PROGRAM, [tmp_path / "campaign", *numbers, "--seed", 3], tmp_path / "said")
    lines = processes.finish(campaign, tmp_path / "said", timeout_s=LONGEST_S).splitlines()
    assert {line.split()[0]: int(line.split()[1]) for line in lines[-5:-1]} == NUMBERS
