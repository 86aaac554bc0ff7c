"""`scripts/`: the command lines that experiment and first training run are ones that the programs understand."""

import os
import subprocess
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from data_pipelines.cli import app as data_app
from data_pipelines.gcm.timeline import SimulationOptions
from ladcast.cli import app
from ladcast.config import load_config
from ladcast.recipes.autoencoder import AutoencoderRun
from ladcast.recipes.forecaster import ForecasterRun
from ladcast.times import parse_time

SCRIPTS = Path(__file__).parents[1] / "scripts"
RECORDER = """#!/bin/sh
IFS='\t'
printf "%s\\n" "${{0##*/}}\t$*" >> {record}
"""
"""Keeps its words, with tabs between them: many are called, and a shell starts faster than Python."""
Recorded = list[list[str]]


def record(script: str, root: Path, words: list[str], programs: tuple[str, ...], **environment: str) -> Recorded:
    """Returns the command lines of `programs` that a script runs in the empty repository `root`."""
    bin_folder, kept = root / "bin", root / "commands.txt"
    bin_folder.mkdir()
    for name in programs:
        (bin_folder / name).write_text(RECORDER.format(record=kept))
    (bin_folder / "nvidia-smi").write_text("#!/bin/sh\necho GPU 0\necho GPU 1\n")
    (bin_folder / "python").write_text("#!/bin/sh\n")  # finds every package
    for program in bin_folder.iterdir():
        program.chmod(0o755)
    copy = root / "scripts" / script
    copy.parent.mkdir()
    copy.write_text((SCRIPTS / script).read_text())
    path = f"{bin_folder}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, **environment}
    subprocess.run(["bash", str(copy), *words], check=True, env=environment, capture_output=True)
    return [line.split("\t") for line in kept.read_text().splitlines()]


def experiment(root: Path, model: str, *words: str) -> Recorded:
    """Returns the command lines of all stages of the experiment, on a machine with two GPUs."""
    (root / "runs" / model).mkdir(parents=True)
    (root / "data").mkdir()
    (root / "data/climatology.nc").write_bytes(b"")
    programs = "ladcast", "ladcast-data", "torchrun"
    return record("nature_experiment.sh", root, [*words], programs, DATA="data", RUNS="runs")


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return experiment(tmp_path_factory.mktemp("experiment"), "nature_one_call_2d/nature-t31")


@pytest.fixture(scope="module")
def finer(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return experiment(tmp_path_factory.mktemp("finer"), "nature_1p5deg_one_call_2d/nature-t63", "--size", "1p5deg")


@pytest.mark.slow
def test_every_command_is_understood(commands: Recorded, finer: Recorded):
    for name, *tokens in [*commands, *finer]:
        program, words = name, tokens
        if name == "torchrun":
            at = tokens.index("ladcast")
            assert tokens[:at] == ["--standalone", "--nproc-per-node", "2", "--no-python"]
            program, words = "ladcast", tokens[at + 1 :]
        parser = data_app if program == "ladcast-data" else app
        parser.parse_args(words, exit_on_error=False, print_error=False)


def test_forty_starts_are_shared_and_raced(commands: Recorded):
    evaluated = [tokens for _, *tokens in commands if tokens[0] == "evaluate"]
    assert len(evaluated) == 16  # from the truth, and from analyses with an error
    assert {tokens[tokens.index("--part") + 1] for tokens in evaluated} == {f"{k}/8" for k in range(1, 9)}
    race = next(tokens for _, *tokens in commands if tokens[0] == "simulate" and tokens[1].endswith("data/race.zarr"))
    starts = [word for flag, word in pairwise(race) if flag == "--at"]
    assert len(starts) == 40
    assert (starts[0], starts[-1]) == ("2101-01-11T00", "2102-02-05T00")


def test_configurations_of_both_sizes_are_there_and_their_settings_known(commands: Recorded, finer: Recorded):
    trained = [tokens[tokens.index("ladcast") + 2 :] for name, *tokens in [*commands, *finer] if name == "torchrun"]
    assert len(trained) == 7
    for kind, path, *words in trained:
        recipe = {"autoencoder": AutoencoderRun, "forecaster": ForecasterRun}[kind]
        load_config(SCRIPTS.parent / path, recipe, [word for flag, word in pairwise(words) if flag == "--set"])


def test_a_finer_run_is_of_the_finer_atmospheric_model(finer: Recorded):
    simulated = [tokens for _, *tokens in finer if tokens[0] == "simulate"]
    assert len(simulated) == 5
    assert all(
        tokens[tokens.index("--truncation") :][:4] == ["--truncation", "63", "--grid", "240x121"]
        for tokens in simulated
    )
    starts = [word for flag, word in pairwise(simulated[-1]) if flag == "--at"]
    assert (len(starts), starts[-1]) == (12, "2101-12-07T00")


def test_what_is_written_twice_is_replaced(commands: Recorded):
    written = [tokens for _, *tokens in commands if tokens[0] in ("merge", "score", "excerpt")]
    assert len(written) == 5
    assert all("--overwrite" in tokens for tokens in written)


def test_a_stage_that_is_none_is_refused(tmp_path: Path):
    environment = {**os.environ, "DATA": str(tmp_path / "data"), "RUNS": str(tmp_path / "runs")}
    found = subprocess.run(
        ["bash", str(SCRIPTS / "nature_experiment.sh"), "train"],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert found.returncode == 1
    assert "Unknown stage 'train'. Stages: nature test statistics" in found.stderr


def test_a_first_training_simulates_what_it_trains_on_and_forecasts(tmp_path: Path):
    programs = ("ladcast", "ladcast-data")
    commands = record("first_training.sh", tmp_path, [str(tmp_path / "first")], programs, DAYS="")
    assert [words[1] for words in commands] == [
        "simulate", "statistics", "train", "encode", "train", "forecast", "score"
    ]  # fmt: skip
    bound = [
        (data_app if name == "ladcast-data" else app).parse_args(words, exit_on_error=False, print_error=False)[1]
        for name, *words in commands
    ]  # which also judges the values: --days must be whole blocks
    options = next(value for value in bound[0].arguments.values() if isinstance(value, SimulationOptions))
    first = commands[5]
    start, days = parse_time(first[2]), np.timedelta64(int(first[first.index("--days") + 1]), "D")
    assert options.times[0] <= start < start + days <= options.times[-1]
