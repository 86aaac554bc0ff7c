"""A real SLURM on this machine: slurmctld and three nodes, started for the tests and stopped after them."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PORT = int(os.environ.get("LADCAST_SLURM_PORT", "18800"))


@dataclass(frozen=True)
class Cluster:
    """Asks SLURM."""

    environment: dict[str, str]

    def ask(self, *command: str) -> str:
        answer = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60)
        assert answer.returncode == 0, f"{command}: {answer.stderr}"
        return answer.stdout.strip()

    def submit(self, script: Path, *options: str) -> str:
        return self.ask("sbatch", "--parsable", *options, str(script))

    def state(self, job: str) -> str:
        """Returns the state of a job; of one that SLURM has forgotten, "GONE"."""
        shown = self.ask("scontrol", "--oneliner", "show", "job", job)
        return next(word.removeprefix("JobState=") for word in shown.split() if word.startswith("JobState="))

    def restarts(self, job: str) -> int:
        shown = self.ask("scontrol", "--oneliner", "show", "job", job)
        return int(next(word.removeprefix("Restarts=") for word in shown.split() if word.startswith("Restarts=")))

    def wait_for(self, job: str, *states: str, timeout_s: float = 180) -> str:
        self.wait_until(lambda: self.state(job) in states, timeout_s, lambda: f"job {job} is {self.state(job)}")
        return self.state(job)

    @staticmethod
    def wait_until(condition: Callable[[], bool], timeout_s: float, problem: Callable[[], str]) -> None:
        """Returns when the condition holds; fails with the problem after the timeout."""
        end = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < end, problem()
            time.sleep(0.5)  # each look is a program of SLURM


@pytest.fixture(scope="session")
def cluster(shared: Path) -> Iterator[Cluster]:
    """Starts SLURM, or skips where it is not installed."""
    missing = [name for name in ("slurmctld", "slurmd", "munged", "srun") if shutil.which(name) is None]
    if missing or not (shared / "slurm").is_dir():
        pytest.skip(f"no SLURM here: {', '.join(missing) or shared / 'slurm'} missing")
    if os.getuid() != 0:
        pytest.skip("SLURM's nodes get names of their own here, which takes root")
    place = Path(tempfile.mkdtemp(prefix="slurm-"))
    place.chmod(0o755)  # munge wants folders that everyone may enter
    shutil.copytree(shared / "slurm", place / "set-up")
    environment = {**os.environ, "ROOT": str(place / "run"), "PORT": str(PORT), "NODES": "3", "KEEP_HOSTS": "1"}
    start = subprocess.run([place / "set-up/start.sh"], env=environment, capture_output=True, text=True)
    try:
        assert start.returncode == 0, start.stdout + start.stderr
        yield Cluster({**environment, "SLURM_CONF": str(place / "run/etc/slurm.conf")})
    finally:
        subprocess.run([place / "set-up/stop.sh"], env=environment, check=False, capture_output=True)
        shutil.rmtree(place)
