"""Ends a training job in time: the signals that ask for it, and its way back into SLURM's queue."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from types import FrameType, TracebackType

from ladcast.run import answer_signals

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
        self._listening = answer_signals(SIGNALS, self._note)
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

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number)


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
