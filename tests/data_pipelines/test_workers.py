"""Where work is done: the same answers from this process and from others, and requests that make no sense."""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest

from data_pipelines import Execution, workers
from data_pipelines.workers import (
    PROFILES,
    Checksums,
    WorkUnit,
    cores,
    credentials,
    item_units,
    make_all,
    read_profile,
    worker_number,
)

needs_jobqueue = pytest.mark.skipif(find_spec("dask_jobqueue") is None, reason="needs the extra slurm")
UNITS = item_units(list("abc"))


def spell(refused: str, unit: WorkUnit) -> Checksums:
    if unit.label == refused:
        raise ValueError(f"no {unit.label}")
    return {unit.label: str(unit.number)}


def make(refused: str = "") -> Callable[[WorkUnit], Checksums]:
    return partial(spell, refused)


def test_every_unit_is_made_in_this_process():
    outcomes = dict(make_all(make(), UNITS, Execution(workers=0)))
    assert outcomes == {unit: {unit.label: str(unit.number)} for unit in UNITS}


def test_threads_of_this_process_make_the_same():
    assert list(make_all(make("b"), UNITS[:1], Execution(workers=0), at_once=3)) == [(UNITS[0], {"a": "0"})]
    outcomes = dict(make_all(make("b"), UNITS, Execution(workers=0), at_once=3))
    assert list(outcomes) == UNITS
    assert [isinstance(outcome, ValueError) for outcome in outcomes.values()] == [unit.label == "b" for unit in UNITS]


def count_cores(unit: WorkUnit) -> Checksums:
    return {unit.label: str(cores())}


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_workers_share_the_cores_that_the_process_may_use(workers: int):
    expected = str(max(len(os.sched_getaffinity(0)) // max(workers, 1), 1))
    outcomes = dict(make_all(count_cores, UNITS, Execution(workers=workers)))
    assert outcomes == {unit: {unit.label: expected} for unit in UNITS}


def test_few_units_start_no_workers_unless_asked():
    assert list(make_all(make(), UNITS, Execution())) == list(make_all(make(), UNITS, Execution(workers=0)))


def test_an_error_is_the_outcome_of_its_unit_alone():
    outcomes = [outcome for _, outcome in make_all(make("b"), UNITS, Execution(workers=0))]
    assert outcomes[0] == {"a": "0"}
    assert isinstance(outcomes[1], ValueError)
    assert outcomes[2] == {"c": "2"}


def number(unit: WorkUnit) -> Checksums:
    time.sleep(0.2)
    return {unit.label: str(worker_number())}


def sockets() -> set[str]:
    """Returns the ports of this machine that listen, of either protocol."""
    tables = [Path(f"/proc/net/{name}").read_text().splitlines()[1:] for name in ("tcp", "tcp6")]
    return {line.split()[1] for table in tables for line in table if line.split()[3] == "0A"}


@pytest.mark.slow
def test_workers_have_numbers_of_their_own_and_listen_on_no_port():
    before, listening = sockets(), set()
    outcomes = []
    for _, outcome in make_all(number, item_units(list("abcdef")), Execution(workers=2)):
        outcomes.append(outcome)
        listening |= owned_ports(sockets() - before)
    assert {value for outcome in outcomes for value in outcome.values()} == {"0", "1"}
    assert not listening


def owned_ports(new: set[str]) -> set[str]:
    """Returns those of the sockets that a child of this process has open."""
    inodes = set()
    for child in multiprocessing.active_children():
        links = [str(link.readlink()) for link in Path(f"/proc/{child.pid}/fd").iterdir() if link.is_symlink()]
        inodes |= {link[8:-1] for link in links if link.startswith("socket:[")}
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return {row[1] for row in rows if row[9] in inodes and row[1] in new}


def die_once(folder: Path, unit: WorkUnit) -> Checksums:
    """Kills its own process: the first time for unit b, always for unit d."""
    if unit.label == "d" or (unit.label == "b" and not (folder / "b").exists()):
        (folder / unit.label).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return {unit.label: "made"}


@pytest.mark.slow
def test_a_unit_of_a_worker_that_died_is_made_by_another(tmp_path: Path):
    units = item_units(list("abcde"))
    outcomes = {u.label: outcome for u, outcome in make_all(partial(die_once, tmp_path), units, Execution(workers=2))}
    assert outcomes["b"] == {"b": "made"}
    assert isinstance(outcomes.pop("d"), RuntimeError)
    assert all(outcome == {label: "made"} for label, outcome in outcomes.items())


def test_jobs_speak_with_a_key_that_only_its_owner_can_read(tmp_path: Path):
    pytest.importorskip("distributed")
    security = credentials(tmp_path)
    assert security.require_encryption
    assert (tmp_path / "key.pem").stat().st_mode & 0o777 == 0o600
    assert security.get_tls_config_for_role("worker")["key"] == str(tmp_path / "key.pem")


def test_outside_of_workers_the_number_is_0():
    assert worker_number() == 0


@needs_jobqueue
def test_ctrl_c_stays_whose_it_was(monkeypatch: pytest.MonkeyPatch):
    """Importing dask_jobqueue alone lets Ctrl-C end a program as if all were done."""
    monkeypatch.delitem(sys.modules, "dask_jobqueue.runner", raising=False)
    before = signal.getsignal(signal.SIGINT)
    workers._import("dask_jobqueue.runner")
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.slow
@needs_jobqueue
@pytest.mark.parametrize("name", sorted(path.stem for path in PROFILES.glob("[!t]*.yaml")))
def test_profiles_become_jobs(name: str):
    with workers._import("dask_jobqueue").SLURMCluster(
        **read_profile(name) | {"interface": None, "scheduler_options": {}}
    ) as cluster:
        script = cluster.job_script()
    assert "#SBATCH -p main" in script
    assert "distributed.cli.dask_worker" in script


def test_an_unknown_profile_lists_the_known():
    with pytest.raises(FileNotFoundError, match=r"No SLURM profile at .*site\.yaml\. Give one of cluster, loopback"):
        read_profile("site")


def test_a_profile_may_lie_anywhere(tmp_path: Path):
    (tmp_path / "mine.yaml").write_text("queue: big")
    assert read_profile(str(tmp_path / "mine.yaml")) == {"queue": "big"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": -1}, "at least 0, got -1"),
        ({"cluster": "slurm", "workers": 1}, "needs a profile"),
        ({"profile": "site"}, "nothing else takes one"),
        ({"cluster": "slurm", "profile": "site"}, "give --workers 1 or more"),
    ],
)
def test_requests_that_make_no_sense_are_refused(options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        Execution(**options)
