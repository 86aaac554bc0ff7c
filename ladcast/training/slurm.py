"""Jobs for SLURM: a site's profile, the script that `sbatch` takes, and how a job ends in time and comes back."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Literal

from ladcast.run import answer_signals

PREFIX = "train_"


@dataclass(frozen=True)
class SlurmProfile:
    """A partition of a cluster, and the resources that a job of this project asks of it."""

    partition: str | None = None
    nodes: int = 1
    gpus_per_node: int = 1
    """0 trains on CPUs."""
    gpu_memory_gib: float = 80.0
    tasks_per_node: int | None = None
    """Ranks on a node; by default one for each GPU."""
    cpus_per_task: int = 8
    memory: str | None = None
    """Memory of a node, such as 200G; by default what the site gives."""
    time: str = "24:00:00"
    warning_s: int = 300
    """How long before the end of its time a job saves its state and goes back into the queue."""
    gpu_option: Literal["gpus-per-node", "gres"] = "gpus-per-node"
    options: dict[str, str] = field(default_factory=dict)
    """Further options of sbatch, such as {account: weather, constraint: h100}."""
    setup: tuple[str, ...] = ()
    """Lines of bash before training, such as 'module load cuda'."""
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.nodes < 1 or self.ranks_per_node < 1 or self.gpus_per_node < 0:
            raise ValueError(
                f"Expected at least one node and one task on it, got nodes {self.nodes}, gpus_per_node "
                f"{self.gpus_per_node}, tasks_per_node {self.tasks_per_node}."
            )

    @property
    def ranks_per_node(self) -> int:
        """Returns the number of ranks on a node."""
        return self.tasks_per_node if self.tasks_per_node is not None else max(self.gpus_per_node, 1)

    @property
    def ranks(self) -> int:
        """Returns the number of ranks of a job."""
        return self.nodes * self.ranks_per_node


@dataclass(frozen=True)
class Submission:
    """The way to submit a training run.

    Attributes:
        profile: name of a site's profile, configs/slurm/train_NAME.yaml, or a file.
        nodes: nodes, where it is not the profile's number.
        gpus: GPUs on each node, where it is not the profile's number.
        time: time limit such as 12:00:00; the job goes on in another one after it.
        seeds: train that many models, with seeds 0, 1, ..., as an array of jobs.
        chain: submit that many jobs, each to begin where the one before it ended, for sites without requeueing.
        only_print: check and print, submit nothing.
    """

    profile: str
    nodes: int | None = None
    gpus: int | None = None
    time: str | None = None
    seeds: int | None = None
    chain: int = 1
    only_print: bool = False

    def __post_init__(self) -> None:
        if self.chain < 1 or (self.seeds is not None and self.seeds < 1):
            raise ValueError(f"Expected --chain and --seeds >= 1, got {self.chain} and {self.seeds}.")

    def changes(self) -> list[str]:
        """Returns what it changes in the profile, as overrides."""
        wanted = {"nodes": self.nodes, "gpus_per_node": self.gpus, "time": self.time}
        given = {name: value for name, value in wanted.items() if value is not None}
        return [f"{name}='{value}'" if name == "time" else f"{name}={value}" for name, value in given.items()]


def find_profile(name: str, config: Path) -> Path:
    """Returns the file of a profile: `name` itself, or one of that name in a folder of profiles.

    Such folders are `slurm/` beside the folder of `config`, `configs/slurm` here, and that of the checkout.

    Raises:
        FileNotFoundError: there is none; lists those there are.
    """
    here, checkout = Path("configs/slurm"), Path(__file__).parents[2] / "configs/slurm"
    folders = list(dict.fromkeys(path.resolve() for path in (config.resolve().parent.parent / "slurm", here, checkout)))
    places = [Path(name), *(folder / f"{PREFIX}{name}.yaml" for folder in folders)]
    for place in places:
        if place.is_file():
            return place
    known = sorted({path.stem.removeprefix(PREFIX) for folder in folders for path in folder.glob(f"{PREFIX}*.yaml")})
    raise FileNotFoundError(
        f"No profile '{name}': known profiles are {', '.join(known) or 'none'}. Looked for the file {name}, and for "
        f"{PREFIX}{name}.yaml in {', '.join(map(str, folders))}. Copy one of those in configs/slurm and adapt it."
    )


def render_script(profile: SlurmProfile, command: list[str], *, name: str, log: Path, seeds: int | None = None) -> str:
    """Returns the script of a job that runs `command` on every rank.

    `$` in the command is left to bash. USR1 goes to the ranks themselves, not to the script: they save the state and
    put the job back into the queue.
    """
    gpus = f"gpu:{profile.gpus_per_node}" if profile.gpu_option == "gres" else profile.gpus_per_node
    options = {
        "job-name": name,
        "partition": profile.partition,
        "nodes": profile.nodes,
        "ntasks-per-node": profile.ranks_per_node,
        "cpus-per-task": profile.cpus_per_task,
        profile.gpu_option: gpus if profile.gpus_per_node else None,
        "mem": profile.memory,
        "time": profile.time,
        "signal": f"USR1@{profile.warning_s}",
        "output": log,
        "open-mode": "append",
        "array": None if seeds is None else f"0-{seeds - 1}",
        **profile.options,
    }
    lines = [f"#SBATCH --{option}={value}" for option, value in options.items() if value is not None]
    exports = [f"export {variable}={shlex.quote(value)}" for variable, value in profile.environment.items()]
    words = " ".join(word if "$" in word else shlex.quote(word) for word in command)
    return "\n".join(
        [
            "#!/bin/bash",
            *lines,
            "#SBATCH --requeue",
            "set -euo pipefail",
            *profile.setup,
            *exports,
            'MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
            "MASTER_PORT=$((15000 + SLURM_JOB_ID % 15000))  # jobs that share a node need ports of their own",
            "export MASTER_ADDR MASTER_PORT",
            f"exec srun --kill-on-bad-exit=1 --cpus-per-task={profile.cpus_per_task} {words}",
            "",
        ]
    )


def submit_script(script: Path, *, after: str | None = None) -> str:
    """Submits a script, to begin when job `after` has ended, and returns the number of its job.

    Raises:
        OSError: there is no sbatch here, or it refuses the script.
    """
    dependency = [] if after is None else [f"--dependency=afterany:{after}"]
    try:
        answer = subprocess.run(
            ["sbatch", "--parsable", *dependency, str(script)], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        raise OSError(
            f"There is no SLURM here (no sbatch on this machine). Where there is: sbatch {script}. To see the plan and "
            f"the script only, add --only-print."
        ) from None
    if answer.returncode:
        raise OSError(f"sbatch refused {script}: {answer.stderr.strip()}")
    return answer.stdout.strip().partition(";")[0]


SIGNALS = (signal.SIGUSR1, signal.SIGTERM)
EXIT_RESUMABLE = 75
"""Exit status of a run that was interrupted and is not in the queue again (EX_TEMPFAIL of sysexits.h)."""


class Interruption:
    """The signal USR1 or TERM, once it has come: SLURM sends it before a time limit, a preemption and `scancel`.

    Its `with` block begins before anything slow is imported or read: USR1 ends a program that does not expect it, and
    SLURM does not restart that.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def __call__(self) -> bool:
        """Says whether a signal has come."""
        return self.signal is not None

    def __enter__(self) -> Interruption:
        self._listening = answer_signals(SIGNALS, lambda number, _: setattr(self, "signal", signal.Signals(number)))
        self._listening.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._listening.__exit__(kind, error, traceback)
        if kind is None and job_name(os.environ) is not None:
            # The work is done and written: a signal that comes while the program ends would make a failed job of it.
            for number in SIGNALS:
                signal.signal(number, signal.SIG_IGN)


def requeue_job(environment: Mapping[str, str]) -> bool:
    """Puts the SLURM job that this process is part of back into the queue; says whether that was done.

    Only a running job: one that was cancelled or reached its time limit stays so. SIGTERM, which SLURM then sends to
    the job, is ignored from here on, also by `scontrol`: it would die of it before it answers.
    """
    job = job_name(environment)
    if job is None:
        return False
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    try:
        state = _ask("squeue", "--noheader", "--jobs", job, "--format", "%T")
        if state != "RUNNING":
            print(f"job {job} is {state or 'gone'}: not requeued", flush=True)
            return False
        _ask("scontrol", "requeue", job)
    except (OSError, subprocess.SubprocessError) as error:
        print(f"job {job} could not be requeued ({error}): submit it again to go on", file=sys.stderr, flush=True)
        return False
    print(f"job {job} is requeued", flush=True)
    return True


def job_name(environment: Mapping[str, str]) -> str | None:
    """Returns the number of this SLURM job; of one task of an array, not of the array; None outside of SLURM."""
    if "SLURM_ARRAY_TASK_ID" in environment:
        return f"{environment['SLURM_ARRAY_JOB_ID']}_{environment['SLURM_ARRAY_TASK_ID']}"
    return environment.get("SLURM_JOB_ID")


def _ask(*command: str) -> str:
    answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return answer.stdout.strip()
