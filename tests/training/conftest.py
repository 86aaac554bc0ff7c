"""Runs training on several ranks, each a process of its own."""

import runpy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import processes

PROGRAM = Path(__file__).with_name("ranks_program.py")


@pytest.fixture(scope="session")
def run_ranks(forks: None, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., None]:
    """Runs `ranks_program.py` on some ranks to its end; on one rank in this process, which has PyTorch already."""

    def run(size: int, *arguments: object) -> None:
        if size > 1:
            processes.run_ranks(PROGRAM, size, arguments, tmp_path_factory.mktemp("ranks"))
            return
        program = runpy.run_path(str(PROGRAM))
        program["main"](program["split"]([str(argument) for argument in arguments]), lambda: False)

    return run


@pytest.fixture(scope="session")
def initial_weights() -> dict[str, torch.Tensor]:
    """The weights that the program starts from."""
    return runpy.run_path(str(PROGRAM))["new_model"]().state_dict()
