"""Training in jobs of a real SLURM: whatever ends a job, the next one goes on, to the same weights bit for bit."""

import runpy
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import processes
from ladcast.training.slurm import SlurmProfile, render_script

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "tests/training/ranks_program.py"
SETTINGS = ["steps=60", "checkpoint_every=5", "log_every=5", "optimizer={learning_rate: 0.01, warmup_steps: 10}"]
ENVIRONMENT = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
SLOW = 600

pytestmark = [pytest.mark.slow, pytest.mark.timeout(SLOW)]


class Training:
    """Is a job of a rank on each of its nodes, by default two, slow until it is told to hurry."""

    def __init__(self, cluster, folder: Path, *options: str, every: int | None = None, **changes: object) -> None:
        self.cluster, self.folder = cluster, folder
        folder.mkdir()
        (folder / "slow").touch()
        profile = SlurmProfile(
            **{"nodes": 2, "gpus_per_node": 0, "cpus_per_task": 1, "time": "5", "warning_s": 20, **changes},
            environment=ENVIRONMENT,
        )
        rare = [] if every is None else [f"checkpoint_every={every}"]
        command = [sys.executable, str(PROGRAM), str(folder), *SETTINGS, *rare]
        self.log = folder / "job.out"
        script = folder / "job.sbatch"
        script.write_text(render_script(profile, command, name="training", log=self.log))
        self.job = cluster.submit(script, *options)

    def saved(self) -> list[str]:
        return sorted(path.name for path in (self.folder / "resume").glob("step-*"))

    def wait_for_snapshot(self) -> None:
        self.cluster.wait_until(lambda: len(self.saved()) > 0, 180, self.text)

    def hurry(self) -> None:
        (self.folder / "slow").unlink()

    def text(self) -> str:
        return self.log.read_text() if self.log.exists() else "no log"

    def finish(self) -> dict[str, torch.Tensor]:
        """Waits for the end and returns the weights."""
        self.hurry()
        state = self.cluster.wait_for(self.job, "COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")
        assert state == "COMPLETED", self.text()
        return torch.load(self.folder / "weights.pt")


@pytest.fixture
def start(cluster, tmp_path: Path) -> Callable[..., Training]:
    return lambda *options, **changes: Training(cluster, tmp_path / "run", *options, **changes)


def train_here(folder: Path) -> dict[str, torch.Tensor]:
    """Trains on one rank, in this process, and returns the weights."""
    program = runpy.run_path(str(PROGRAM))
    program["main"]([[str(folder), *SETTINGS]], lambda: False)
    return torch.load(folder / "weights.pt")


@pytest.fixture(scope="session")
def uninterrupted_alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The weights that one rank ends in."""
    return train_here(tmp_path_factory.mktemp("alone"))


@pytest.fixture(scope="session")
def uninterrupted(forks: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The weights that two ranks end in which nothing disturbs."""
    folder = tmp_path_factory.mktemp("whole")
    processes.run_ranks(PROGRAM, 2, [folder, *SETTINGS], folder)
    return torch.load(folder / "weights.pt")


def assert_same(weights: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert set(weights) == set(expected)
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_a_preempted_job_goes_on(cluster, start, uninterrupted_alone, tmp_path: Path):
    training = start("--exclusive", "--nodelist=n1", nodes=1, partition="low")
    training.wait_for_snapshot()
    urgent = tmp_path / "urgent.sbatch"
    urgent.write_text("#!/bin/bash\nsleep 1\n")
    cluster.submit(urgent, "--partition=high", "--exclusive", "--nodelist=n1", f"--output={urgent}.out")
    cluster.wait_until(lambda: cluster.restarts(training.job) == 1, 120, training.text)
    assert_same(training.finish(), uninterrupted_alone)
    assert "the state is saved" in training.text()


def test_a_job_at_its_time_limit_goes_on(cluster, start, uninterrupted_alone):
    """SLURM looks at time limits every 30 s: it warns at the first look that is less than 40 s before the end."""
    training = start(nodes=1, time="1", warning_s=40)
    training.wait_for_snapshot()
    cluster.wait_until(lambda: cluster.restarts(training.job) >= 1, 120, training.text)
    cluster.ask("scontrol", "update", f"jobid={training.job}", "timelimit=10")  # for busy machines
    assert_same(training.finish(), uninterrupted_alone)
    assert "is requeued" in training.text()


def test_a_job_that_loses_a_node_goes_on(cluster, start, uninterrupted):
    training = start("--exclude=n1")
    training.wait_for_snapshot()
    try:
        cluster.ask("scontrol", "update", "nodename=n2", "state=down", "reason=test")
        cluster.wait_until(lambda: cluster.restarts(training.job) == 1, 60, training.text)
        cluster.ask("scontrol", "update", f"jobid={training.job}", "excnodelist=")
        assert_same(training.finish(), uninterrupted)
    finally:
        if "DOWN" in cluster.ask("scontrol", "show", "node", "n2"):
            cluster.ask("scontrol", "update", "nodename=n2", "state=resume")


def test_a_cancelled_job_leaves_its_state_and_stays_cancelled(cluster, start, uninterrupted_alone):
    training = start(nodes=1)
    training.wait_for_snapshot()
    before = training.saved()
    cluster.ask("scancel", training.job)
    cluster.wait_until(lambda: "the state is saved" in training.text(), 60, training.text)
    cluster.wait_for(training.job, "CANCELLED")
    time.sleep(3)
    assert cluster.state(training.job) == "CANCELLED"
    assert training.saved()[-1] > before[-1]
    training.hurry()
    assert_same(train_here(training.folder), uninterrupted_alone)


def test_a_killed_rank_ends_the_job_at_once(cluster, start):
    """Nothing waits for ranks that are gone; SLURM does not restart a program that fails."""
    training = start()
    training.wait_for_snapshot()
    cluster.ask("scancel", "--signal=KILL", f"{training.job}.0")
    assert cluster.wait_for(training.job, "FAILED", "COMPLETED", "CANCELLED", timeout_s=60) == "FAILED"


def test_one_task_of_an_array_is_requeued_alone(cluster, start):
    training = start("--array=0-1", nodes=1, every=1000)  # both tasks have one folder here: only the first one saves
    first, second = f"{training.job}_0", f"{training.job}_1"
    cluster.wait_until(lambda: training.text().count("step 5/") >= 1, 180, training.text)
    assert first != second
    cluster.ask("scancel", "--signal=USR1", first)
    cluster.wait_until(lambda: cluster.restarts(first) == 1, 60, training.text)
    assert cluster.restarts(second) == 0
    cluster.ask("scancel", training.job)
