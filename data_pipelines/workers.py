"""Work in pieces, and where it is done: in this process, in others of this machine, or in SLURM jobs.

A work unit is what one worker makes at once, what a kill loses, and what is then made again. Processes of this machine
are reached through pipes, and started through a socket file that only their owner can open. SLURM jobs must listen on
the network: they speak TLS with each other, with a key that only its owner can read, so that nobody else can make them
run anything.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

from data_pipelines import Execution
from ladcast.data.lazy import prefetch
from ladcast.documents import read_mapping
from ladcast.times import Times, describe

PROFILES = Path(__file__).parents[1] / "configs/slurm"
UNITS_WORTH_WORKERS = 8
MOST_BY_DEFAULT = 8
ATTEMPTS = 3
"""Workers that may die of a unit before it counts as failed."""

PARTS = "parts"
"""The folder of intermediate results within a product that is being made."""

Checksums = dict[str, str]


@dataclass(frozen=True)
class WorkUnit:
    """Numbers one piece of work: the items `first` up to but not including `stop` of an axis, mostly times.

    `label` is what people call it: its times, or its variable. A unit that `follows` begins from what the unit before
    it left in the product's folder, so that the two are made in this order and in one process.
    """

    number: int
    label: str
    first: int
    stop: int
    follows: bool = False

    @property
    def items(self) -> slice:
        """Returns the place of the unit on its axis."""
        return slice(self.first, self.stop)

    @property
    def part(self) -> str:
        """Returns the file in which a stage keeps an intermediate result, relative to the product's folder."""
        return f"{PARTS}/{self.number:06d}.npy"


def time_units(times: Times, frames: int) -> list[WorkUnit]:
    """Cuts a time axis into units of `frames`; the last one may be shorter."""
    return [
        WorkUnit(number, f"{describe(span[0])} to {describe(span[-1])}", first, first + len(span))
        for number, first in enumerate(range(0, len(times), frames))
        for span in [times[first : first + frames]]
    ]


def item_units(names: Sequence[str]) -> list[WorkUnit]:
    """Makes one unit of each name."""
    return [WorkUnit(number, name, number, number + 1) for number, name in enumerate(names)]


Make: TypeAlias = Callable[[WorkUnit], Checksums]
Outcome: TypeAlias = tuple[WorkUnit, Checksums | Exception]
_number, _workers = 0, 1
"""The number of this process among the workers of a host, and how many they are."""


def make_all(make: Make, units: Sequence[WorkUnit], execution: Execution, *, at_once: int = 1) -> Iterator[Outcome]:
    """Yields each unit with the checksums that `make` returned, or its error, in order of completion.

    The unit of a worker that died is made again by another. Units that follow each other are made in this process,
    which has `at_once` threads for others. Stopping the iteration cancels what has not begun.
    """
    workers = _number_of_workers(execution, units)
    if not workers and at_once > 1:
        outcomes = prefetch(partial(_attempt, make), units, threads=at_once, ahead=at_once)
        return zip(units, outcomes, strict=True)
    if not workers:
        return ((unit, _attempt(make, unit)) for unit in units)
    if execution.profile is not None:
        return _in_jobs(make, units, execution, workers)
    return _in_workers(make, units, workers)


def read_profile(name: str) -> dict[str, Any]:
    """Reads the arguments of `dask_jobqueue.SLURMCluster` for a site.

    Raises:
        FileNotFoundError: there is no such profile; the message lists those that there are.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else PROFILES / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in PROFILES.glob("[!t]*.yaml"))) or "none"
        raise FileNotFoundError(f"No SLURM profile at {path}. Give one of {known}, or the path of a YAML file.")
    return read_mapping(path)


def worker_number() -> int:
    """Returns the number of the worker that asks, by which workers of one host share its GPUs; 0 outside of one."""
    if "distributed" not in sys.modules:
        return _number
    try:
        name = str(_import("distributed").get_worker().name)
    except ValueError:
        return _number
    digits = "".join(character for character in name if character.isdigit())
    return int(digits or 0)


def cores() -> int:
    """Returns how many cores the threads of this process have: those it may use, shared with the workers beside it."""
    return max(len(os.sched_getaffinity(0)) // _workers, 1)


def _number_of_workers(execution: Execution, units: Sequence[WorkUnit]) -> int:
    if any(unit.follows for unit in units):
        return 0
    if execution.workers is not None:
        return min(execution.workers, len(units))
    return 0 if len(units) < UNITS_WORTH_WORKERS else min(cores(), MOST_BY_DEFAULT)


def _attempt(make: Make, unit: WorkUnit) -> Checksums | Exception:
    try:
        return make(unit)
    except Exception as error:
        return error


class _Worker:
    """A process that makes units, one after the other, and the pipe to it."""

    def __init__(self, make: Make, number: int, workers: int) -> None:
        context = _fork_server(make)
        self.number = number
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, make, number, workers), daemon=True)
        self.process.start()
        theirs.close()  # so that its death ends the pipe

    def end(self) -> None:
        """Ends the process, whatever it does."""
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _fork_server(make: Make) -> ForkServerContext:
    """Returns what starts processes at once: as forks of one that imports what units are made with, once for all.

    Forks of this process would copy the locks of its threads.
    """
    parts = (make.func, *make.args) if isinstance(make, partial) else (make,)
    context = get_context("forkserver")
    context.set_forkserver_preload([getattr(part, "__module__", __name__) for part in parts])
    return context


def _serve(pipe: Connection, make: Make, number: int, workers: int) -> None:
    """Makes the units that come through the pipe, until it ends with the process on its other side."""
    global _number, _workers  # facts of the process
    _number, _workers = number, workers
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the other process answers it
    while True:
        try:
            outcome = _attempt(make, pipe.recv())
            pipe.send(outcome if _travels(outcome) else RuntimeError(f"{type(outcome).__name__}: {outcome}"))
        except (EOFError, OSError):
            return


def _travels(outcome: Checksums | Exception) -> bool:
    try:
        pickle.loads(pickle.dumps(outcome))
    except Exception:  # errors of libraries with arguments of their own
        return False
    return True


def _in_workers(make: Make, units: Sequence[WorkUnit], workers: int) -> Iterator[Outcome]:
    waiting, deaths = deque(units), Counter[int]()
    idle = [_Worker(make, number, workers) for number in range(workers)]
    busy: dict[Connection, tuple[_Worker, WorkUnit]] = {}
    try:
        while waiting or busy:
            while idle and waiting:
                worker, unit = idle.pop(), waiting.popleft()
                busy[worker.pipe] = worker, unit
                with suppress(OSError):  # it died at its start: the end of its pipe says so below
                    worker.pipe.send(unit)
            for pipe in wait(list(busy)):
                worker, unit = busy.pop(pipe)  # type: ignore[call-overload]
                try:
                    outcome = worker.pipe.recv()
                except (EOFError, OSError):
                    worker.end()
                    worker = _Worker(make, worker.number, workers)
                    deaths[unit.number] += 1
                    outcome = _DIED if deaths[unit.number] >= ATTEMPTS else None
                idle.append(worker)
                if outcome is None:
                    waiting.appendleft(unit)
                else:
                    yield unit, outcome
    finally:
        for worker in (*idle, *(worker for worker, _ in busy.values())):
            worker.end()


_DIED = RuntimeError("every worker that tried it died. They may lack memory: see the log of the workers")


def _in_jobs(make: Make, units: Sequence[WorkUnit], execution: Execution, workers: int) -> Iterator[Outcome]:
    distributed = _import("distributed")
    with _cluster(str(execution.profile), workers) as cluster, distributed.Client(cluster) as client:
        # Not pure: a unit that is done again must really be done again.
        futures = client.map(_attempt, [make] * len(units), units, pure=False)
        unit_of = {future.key: unit for future, unit in zip(futures, units, strict=True)}
        try:
            for future in distributed.as_completed(futures, loop=client.loop):
                try:
                    outcome = future.result()
                except distributed.KilledWorker:
                    outcome = _DIED
                except Exception as error:  # it did not come back to us
                    outcome = error
                yield unit_of[future.key], outcome
        finally:
            client.cancel(futures)


@contextmanager
def _cluster(profile: str, workers: int) -> Iterator[Any]:
    with TemporaryDirectory(prefix=".ladcast-tls-", dir=Path.cwd()) as folder:  # where nodes see it, and none but us
        security = credentials(Path(folder))
        settings = read_profile(profile) | {"security": security, "protocol": "tls://"}
        with _import("dask_jobqueue").SLURMCluster(**settings) as cluster:
            # Adapting to a fixed number, unlike scaling, submits a job again that ended at its time limit.
            cluster.adapt(minimum_jobs=workers, maximum_jobs=workers)
            yield cluster


def credentials(folder: Path) -> Any:
    """Returns what lets only who can read `folder` speak with a scheduler and its workers: a key and its certificate.

    Raises:
        ImportError: the program `openssl`, which makes them, is not installed.
    """
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    make += ["-keyout", str(key), "-out", str(certificate), "-days", "365", "-subj", "/CN=ladcast"]
    try:
        subprocess.run(make, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise ImportError(f"Workers in SLURM jobs need the program 'openssl' ({error}). Install it.") from error
    key.chmod(0o600)
    roles = {
        f"tls_{role}_{kind}": str(path)
        for role in ("scheduler", "worker", "client")
        for kind, path in (("key", key), ("cert", certificate))
    }
    return _import("distributed").Security(tls_ca_file=str(certificate), require_encryption=True, **roles)


def _import(module: str) -> Any:
    """Imports a library when it is needed: work on this machine needs neither. Ctrl-C stays whose it was."""
    before = signal.getsignal(signal.SIGINT)
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(f"SLURM jobs need '{module}' ({error}). Install it: pip install 'ladcast[slurm]'.") from error
    finally:
        if signal.getsignal(signal.SIGINT) is not before:  # dask_jobqueue takes it, to end a program with code 0
            signal.signal(signal.SIGINT, before)
