"""Several processes of one job, such as `torchrun` starts: who this one is, and how they wait for each other."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True)
class Ranks:
    """Says which of how many processes this is; one alone needs no start-up and waits for nobody."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_first(self) -> bool:
        """Says whether this process does what is done once."""
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """Returns every `size`-th item: the shares of all processes are all items."""
        return items[self.rank :: self.size]

    def device(self, name: str | None) -> str | None:
        """Returns the GPU of this process, where there are several and no other device is asked for."""
        import torch

        several = self.size > 1 and name in (None, "cuda") and torch.cuda.is_available()
        return f"cuda:{self.local_rank % torch.cuda.device_count()}" if several else name

    def wait(self) -> None:
        """Returns when all processes have come here."""
        if self.size > 1:
            import torch.distributed as dist

            dist.barrier()


@contextmanager
def ranks() -> Iterator[Ranks]:
    """Yields who this process is, by the variables that `torchrun` and SLURM launchers set (RANK, WORLD_SIZE ...)."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Ranks()
        return
    import torch.distributed as dist

    dist.init_process_group("gloo")
    try:
        yield Ranks(int(os.environ["RANK"]), size, int(os.environ.get("LOCAL_RANK", "0")))
    finally:
        dist.destroy_process_group()
