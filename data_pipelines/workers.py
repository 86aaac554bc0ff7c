"""Where units are made: in this process, in others on this machine, or in SLURM jobs; one way to ask for all."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

from data_pipelines.manifest import Checksums
from data_pipelines.options import Execution
from data_pipelines.work import WorkUnit

PROFILES = Path(__file__).parents[1] / "configs/slurm"
UNITS_WORTH_A_CLUSTER = 8
MOST_BY_DEFAULT = 8

Make: TypeAlias = Callable[[WorkUnit], Checksums]
Outcome: TypeAlias = tuple[WorkUnit, Checksums | Exception]


def make_all(make: Make, units: Sequence[WorkUnit], execution: Execution) -> Iterator[Outcome]:
    """Yields each unit with the checksums that `make` returned, or its error, in order of completion.

    The unit of a worker that died is made again by another. Units that follow each other are made in this process.
    Stopping the iteration cancels what has not begun.
    """
    workers = _number_of_workers(execution, units)
    return _in_workers(make, units, execution, workers) if workers else _in_process(make, units)


def read_profile(name: str) -> dict[str, Any]:
    """Reads the arguments of `dask_jobqueue.SLURMCluster` for a site.

    Raises:
        FileNotFoundError: there is no such profile; the message lists those that there are.
    """
    import yaml

    path = Path(name) if name.endswith((".yaml", ".yml")) else PROFILES / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in PROFILES.glob("[!t]*.yaml"))) or "none"
        raise FileNotFoundError(f"No SLURM profile at {path}. Give one of {known}, or the path of a YAML file.")
    return dict(yaml.safe_load(path.read_text()) or {})


def worker_number() -> int:
    """Returns the number of the worker that asks, by which workers of one host share its GPUs; 0 outside of one."""
    if "distributed" not in sys.modules:
        return 0
    try:
        name = str(_import("distributed").get_worker().name)
    except ValueError:
        return 0
    digits = "".join(character for character in name if character.isdigit())
    return int(digits or 0)


def _number_of_workers(execution: Execution, units: Sequence[WorkUnit]) -> int:
    if any(unit.follows for unit in units):
        return 0
    if execution.workers is not None:
        return min(execution.workers, len(units))
    few = len(units) < UNITS_WORTH_A_CLUSTER
    return 0 if few or find_spec("distributed") is None else min(os.cpu_count() or 1, MOST_BY_DEFAULT)


def _in_process(make: Make, units: Sequence[WorkUnit]) -> Iterator[Outcome]:
    for unit in units:
        yield unit, _attempt(make, unit)


def _in_workers(make: Make, units: Sequence[WorkUnit], execution: Execution, workers: int) -> Iterator[Outcome]:
    distributed = _import("distributed")
    with _cluster(execution, workers) as cluster, distributed.Client(cluster) as client:
        # Not pure: a unit that is done again must really be done again.
        futures = client.map(_attempt, [make] * len(units), units, pure=False)
        unit_of = {future.key: unit for future, unit in zip(futures, units, strict=True)}
        try:
            for future in distributed.as_completed(futures, loop=client.loop):
                yield unit_of[future.key], _result(future)
        finally:
            client.cancel(futures)


def _attempt(make: Make, unit: WorkUnit) -> Checksums | Exception:
    try:
        return make(unit)
    except Exception as error:
        return error


def _result(future: Any) -> Checksums | Exception:
    """Returns what a worker answered; an error here means that workers died of the unit."""
    try:
        answer: Checksums | Exception = future.result()
    except _import("distributed").KilledWorker:
        return RuntimeError("every worker that tried it died. They may lack memory: see the log of the workers")
    except Exception as error:
        return error
    return answer


def _cluster(execution: Execution, workers: int) -> Any:
    if execution.profile is None:
        # One thread a worker: memory is bounded by unit. A limit of dask's own would only kill workers.
        settings = {"threads_per_worker": 1, "memory_limit": None, "dashboard_address": None}
        return _import("distributed").LocalCluster(n_workers=workers, **settings)
    cluster = _import("dask_jobqueue").SLURMCluster(**read_profile(execution.profile))
    # Adapting to a fixed number, unlike scaling, submits a job again that ended at its time limit.
    cluster.adapt(minimum_jobs=workers, maximum_jobs=workers)
    return cluster


def _import(module: str) -> Any:
    """Imports a library when it is needed: a small job in one process needs neither."""
    try:
        return import_module(module)
    except ImportError as error:
        extra = {"distributed": "data", "dask_jobqueue": "slurm"}[module]
        raise ImportError(f"Workers need '{module}' ({error}). Install it: pip install 'ladcast[{extra}]'.") from error
