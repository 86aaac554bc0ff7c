"""Runs training on several ranks, each a process of its own."""

import runpy
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import processes

PROGRAM = Path(__file__).with_name("ranks_program.py")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture(scope="session")
def run_ranks(forks: None, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., None]:
    """Runs `ranks_program.py` on some ranks to its end; on one rank in this process, which has loaded PyTorch already.

    Each rank is a process of its own, with the variables of torchrun.
    """

    def run(size: int, *arguments: object) -> None:
        if size == 1:
            program = runpy.run_path(str(PROGRAM))
            program["main"](program["split"]([str(argument) for argument in arguments]), lambda: False)
            return
        meeting = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        said = [tmp_path_factory.mktemp("ranks") / "output" for _ in range(size)]
        ranks = []
        for rank, output in enumerate(said):
            own = {"GLOO_SOCKET_IFNAME": "lo", **meeting, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            ranks.append(processes.start(PROGRAM, arguments, output, environment=own))
        try:
            for process, output in zip(ranks, said, strict=True):
                processes.finish(process, output)
        finally:
            for process in ranks:
                process.kill()

    return run


@pytest.fixture(scope="session")
def initial_weights() -> dict[str, torch.Tensor]:
    """The weights that the program starts from."""
    return runpy.run_path(str(PROGRAM))["new_model"]().state_dict()
