"""Where work is done: the same answers from this process and from others, and requests that make no sense."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from data_pipelines.manifest import Checksums
from data_pipelines.options import Execution
from data_pipelines.work import WorkUnit, item_units
from data_pipelines.workers import PROFILES, make_all, read_profile, worker_number

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


@pytest.mark.slow
def test_workers_have_numbers_of_their_own():
    outcomes = [outcome for _, outcome in make_all(number, item_units(list("abcdef")), Execution(workers=2))]
    assert {value for outcome in outcomes for value in outcome.values()} == {"0", "1"}


def test_outside_of_workers_the_number_is_0():
    assert worker_number() == 0


@pytest.mark.parametrize("name", sorted(path.stem for path in PROFILES.glob("[!t]*.yaml")))
def test_profiles_become_jobs(name: str):
    jobqueue = pytest.importorskip("dask_jobqueue")
    with jobqueue.SLURMCluster(**read_profile(name) | {"interface": None, "scheduler_options": {}}) as cluster:
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
