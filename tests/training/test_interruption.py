"""Signals are remembered, and only a running job is requeued: `squeue` and `scontrol` are stood in for by scripts."""

import os
import signal
from pathlib import Path

import pytest

from ladcast.training.interruption import Interruption, job_name, requeue_job


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_signal_is_remembered_and_handlers_are_put_back(number: signal.Signals):
    before = signal.getsignal(number)
    with Interruption() as interruption:
        assert not interruption()
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)  # SLURM repeats itself
        assert interruption()
        assert interruption.signal == number
    assert signal.getsignal(number) == before


def test_a_job_that_is_done_does_not_die_of_a_signal_while_it_ends(commands, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    with Interruption() as interruption:
        pass
    os.kill(os.getpid(), signal.SIGUSR1)  # of which a program that expects none dies
    assert not interruption()


def test_a_task_of_an_array_is_named_as_such():
    """Its SLURM_JOB_ID may be that of the whole array."""
    array = {"SLURM_JOB_ID": "7", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3"}
    assert job_name(array) == "7_3"
    assert job_name({"SLURM_JOB_ID": "7"}) == "7"
    assert job_name({}) is None


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Puts commands in front of the real ones, and handlers of signals back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGTERM)}
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def put(name: str, body: str) -> None:
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)

    yield put
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_running_job_is_requeued_although_it_is_told_to_end(commands, tmp_path: Path):
    commands("squeue", "echo RUNNING")
    commands("scontrol", f"kill -TERM $PPID $$; echo $* > {tmp_path}/asked")
    assert requeue_job({"SLURM_JOB_ID": "12"})
    assert (tmp_path / "asked").read_text() == "requeue 12\n"


@pytest.mark.parametrize("state", ["COMPLETING", "CANCELLED", ""])
def test_a_job_that_ends_is_not(commands, tmp_path: Path, state: str, capsys: pytest.CaptureFixture[str]):
    commands("squeue", f"echo {state}")
    commands("scontrol", f"touch {tmp_path}/asked")
    assert not requeue_job({"SLURM_JOB_ID": "12"})
    assert not (tmp_path / "asked").exists()
    assert "not requeued" in capsys.readouterr().out


def test_a_refusal_says_what_to_do(commands, capsys: pytest.CaptureFixture[str]):
    commands("squeue", "echo RUNNING")
    commands("scontrol", "exit 1")
    assert not requeue_job({"SLURM_JOB_ID": "12"})
    assert "submit it again to go on" in capsys.readouterr().err


def test_there_is_no_job_outside_of_slurm():
    assert not requeue_job({})
