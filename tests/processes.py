"""Programs in processes of their own, which start at once: forks of one that has done no more than import libraries."""

import gc
import multiprocessing.forkserver
import os
import runpy
import socket
import sys
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

FORKS = get_context("forkserver")


def libraries() -> list[str]:
    """Returns the names of all modules that a command may import, and of what libraries import when they are used."""
    names = ["torch._dynamo", "torch.distributed.fsdp", "pint", "dask.distributed", "netCDF4", "contourpy"]
    for room in ("ladcast", "data_pipelines"):
        root = Path(find_spec(room).origin).parent
        paths = (path.relative_to(root).with_suffix("") for path in sorted(root.rglob("*.py")))
        names += [".".join([room, *path.parts]).removesuffix(".__init__") for path in paths]
    return names


def start_server() -> None:
    """Starts the process that is forked, anew if another test has started one, which has imported other things."""
    multiprocessing.forkserver._forkserver._stop()
    FORKS.set_forkserver_preload(libraries())
    multiprocessing.forkserver.ensure_running()


def start(
    program: Path, arguments: Iterable[object], output: Path, *, environment: Mapping[str, str] | None = None
) -> BaseProcess:
    """Starts a Python program; what it prints goes to the file `output`, and its errors to one beside it."""
    words = [str(argument) for argument in arguments]
    process = FORKS.Process(target=_run, args=(str(program), words, str(output), dict(environment or {})))
    process.start()
    return process


def finish(process: BaseProcess, output: Path, *, timeout_s: float = 400) -> str:
    """Waits for a program, which must end well, and returns what it has printed."""
    process.join(timeout_s)
    process.kill()
    said = [path.read_text() for path in (output, errors_of(output)) if path.exists()]
    assert process.exitcode == 0, "\n".join(said)
    return said[0]


def run_ranks(program: Path, size: int, arguments: Iterable[object], folder: Path) -> list[str]:
    """Runs a program on some ranks, which find each other by the variables of torchrun; returns what each has printed.

    `folder` takes what they print.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    words, said = list(arguments), [folder / f"rank-{rank}" for rank in range(size)]
    ranks = [
        start(program, words, output, environment={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank, output in enumerate(said)
    ]
    try:
        return [finish(process, output) for process, output in zip(ranks, said, strict=True)]
    finally:
        for process in ranks:
            process.kill()


def keep_shared() -> None:
    """Spares the memory that a fork shares with its parent: each collection of garbage would write to, and copy, it."""
    gc.freeze()


def errors_of(output: Path) -> Path:
    return output.with_name(f"{output.name}.errors")


def _run(program: str, words: list[str], output: str, environment: dict[str, str]) -> None:
    keep_shared()
    for stream, path in ((1, Path(output)), (2, errors_of(Path(output)))):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    os.environ.update(environment)
    sys.argv = [program, *words]
    sys.path.insert(0, str(Path(program).parent))
    import torch

    torch.set_num_threads(1)  # PyTorch renews its pool of threads after a fork, which two threads must not ask for
    runpy.run_path(program, run_name="__main__")
