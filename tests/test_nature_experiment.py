"""`scripts/nature_experiment.sh`: the command lines that it runs are ones that the programs understand."""

import os
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

from data_pipelines.cli import app as data_app
from ladcast.cli import app

SCRIPT = Path(__file__).parents[1] / "scripts/nature_experiment.sh"
RECORDER = """#!/bin/sh
IFS='\t'
printf "%s\\n" "${{0##*/}}\t$*" >> {record}
"""
"""Keeps its words, with tabs between them: many are called, and a shell starts faster than Python."""


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    """The command lines of all stages, on a machine with two GPUs."""
    tmp_path = tmp_path_factory.mktemp("experiment")
    programs, record = tmp_path / "bin", tmp_path / "commands.jsonl"
    programs.mkdir()
    for name in ("ladcast", "ladcast-data", "torchrun"):
        (programs / name).write_text(RECORDER.format(record=record))
    (programs / "nvidia-smi").write_text("#!/bin/sh\necho GPU 0\necho GPU 1\n")
    for program in programs.iterdir():
        program.chmod(0o755)
    model = tmp_path / "runs/nature_one_call_2d/nature-t31"
    model.mkdir(parents=True)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/climatology.nc").write_bytes(b"")
    script = tmp_path / "scripts" / SCRIPT.name
    script.parent.mkdir()
    script.write_text(SCRIPT.read_text())
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "DATA": "data", "RUNS": "runs"}
    subprocess.run(["bash", str(script)], check=True, env=environment, capture_output=True)
    return [line.split("\t") for line in record.read_text().splitlines()]


def test_every_command_is_understood(commands: list[list[str]]):
    for name, *tokens in commands:
        program, words = name, tokens
        if name == "torchrun":
            at = tokens.index("ladcast")
            assert tokens[:at] == ["--standalone", "--nproc-per-node", "2", "--no-python"]
            program, words = "ladcast", tokens[at + 1 :]
        parser = data_app if program == "ladcast-data" else app
        parser.parse_args(words, exit_on_error=False, print_error=False)


def test_forty_starts_are_shared_and_raced(commands: list[list[str]]):
    evaluated = [tokens for _, *tokens in commands if tokens[0] == "evaluate"]
    assert len(evaluated) == 16  # from the truth, and from analyses with an error
    assert {tokens[tokens.index("--part") + 1] for tokens in evaluated} == {f"{k}/8" for k in range(1, 9)}
    race = next(tokens for _, *tokens in commands if tokens[0] == "simulate" and tokens[1].endswith("data/race.zarr"))
    starts = [word for flag, word in pairwise(race) if flag == "--at"]
    assert len(starts) == 40
    assert (starts[0], starts[-1]) == ("2101-01-11T00", "2102-02-05T00")


def test_what_is_written_twice_is_replaced(commands: list[list[str]]):
    written = [tokens for _, *tokens in commands if tokens[0] in ("merge", "score", "excerpt")]
    assert len(written) == 5
    assert all("--overwrite" in tokens for tokens in written)


def test_a_stage_that_is_none_is_refused(tmp_path: Path):
    environment = {**os.environ, "DATA": str(tmp_path / "data"), "RUNS": str(tmp_path / "runs")}
    found = subprocess.run(["bash", str(SCRIPT), "train"], capture_output=True, text=True, check=False, env=environment)
    assert found.returncode == 1
    assert "Unknown stage 'train'. Stages: nature test statistics" in found.stderr
