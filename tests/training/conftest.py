"""Runs training on several ranks, each a process of its own."""

import runpy
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

PROGRAM = Path(__file__).with_name("ranks_program.py")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def start_ranks() -> Callable[..., list[subprocess.Popen]]:
    """Starts `ranks_program.py` on some ranks: with the variables of torchrun, as it would."""
    started: list[subprocess.Popen] = []

    def start(size: int, *arguments: object) -> list[subprocess.Popen]:
        port = free_port()
        common = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": str(PROGRAM.parents[2])}
        meeting = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        ranks = [
            subprocess.Popen(
                [sys.executable, str(PROGRAM), *map(str, arguments)],
                env={**common, **meeting, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(size)
        ]
        started.extend(ranks)
        return ranks

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def run_ranks(start_ranks) -> Callable[..., None]:
    """Runs the program on some ranks to its end; on one rank in this process, which has loaded PyTorch already."""

    def run(size: int, *arguments: object) -> None:
        if size == 1:
            pairs = (str(argument).split("=", 1) for argument in arguments[1:])
            settings = {key: yaml.safe_load(value) for key, value in pairs}
            runpy.run_path(str(PROGRAM))["main"](Path(str(arguments[0])), settings, lambda: False)
            return
        for process in start_ranks(size, *arguments):
            _, errors = process.communicate(timeout=240)
            assert process.returncode == 0, errors

    return run


@pytest.fixture
def initial_weights() -> dict[str, torch.Tensor]:
    """The weights that the program starts from."""
    return runpy.run_path(str(PROGRAM))["new_model"]().state_dict()
