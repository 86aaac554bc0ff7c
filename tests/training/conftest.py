"""Runs training on several ranks, each a process of its own."""

import runpy
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

PROGRAM = Path(__file__).with_name("ranks_program.py")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture(scope="session")
def run_ranks() -> Callable[..., None]:
    """Runs `ranks_program.py` on some ranks to its end; on one rank in this process, which has loaded PyTorch already.

    Each rank is a process of its own, with the variables of torchrun.
    """

    def run(size: int, *arguments: object) -> None:
        words = [str(argument) for argument in arguments]
        if size == 1:
            program = runpy.run_path(str(PROGRAM))
            program["main"](program["split"](words), lambda: False)
            return
        common = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": str(PROGRAM.parents[2])}
        meeting = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        ranks = [
            subprocess.Popen(
                [sys.executable, str(PROGRAM), *words],
                env={**common, **meeting, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(size)
        ]
        try:
            for process in ranks:
                _, errors = process.communicate(timeout=400)
                assert process.returncode == 0, errors
        finally:
            for process in ranks:
                process.kill()

    return run


@pytest.fixture(scope="session")
def initial_weights() -> dict[str, torch.Tensor]:
    """The weights that the program starts from."""
    return runpy.run_path(str(PROGRAM))["new_model"]().state_dict()
