"""The processes ("ranks") of one run: how they find each other, what they tell each other, how they share a model.

A model has copies that average their gradients (DDP), or is one in shards (FSDP2).
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TypeVar, cast

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from ladcast.data.batches import SampleBatch
from ladcast.device import compiles, find_device
from ladcast.nn.block import blocks
from ladcast.training.options import TrainingOptions

Shared = TypeVar("Shared")
PORTS = range(15_000, 30_000)
"""Ports below those that Linux hands out by itself (32768 and above)."""
PATIENCE = timedelta(hours=1)
"""How long a rank waits for another one that writes a checkpoint, validates or reads data."""


@dataclass(frozen=True)
class RankInfo:
    """The number of this process among all of a run, and the address where they meet."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    address: str = "localhost"
    port: int = 29_500


def find_rank(environment: Mapping[str, str]) -> RankInfo:
    """Reads the rank of this process from the variables of torchrun, or else of a SLURM step (`srun`).

    Only a step counts: a batch script has SLURM's variables too, but it is one process.

    Raises:
        ValueError: a variable is missing or no number.
    """
    torchrun = {"rank": "RANK", "size": "WORLD_SIZE", "local_rank": "LOCAL_RANK"}
    slurm = {"rank": "SLURM_PROCID", "size": "SLURM_STEP_NUM_TASKS", "local_rank": "SLURM_LOCALID"}
    if "RANK" in environment:
        numbers = _numbers(environment, torchrun)
    elif "SLURM_STEP_NUM_TASKS" in environment:
        numbers = _numbers(environment, slurm)
    else:
        return RankInfo()
    if numbers["size"] == 1:
        return RankInfo()
    address = environment.get("MASTER_ADDR") or _first_host(environment)
    port = environment.get("MASTER_PORT") or PORTS[int(environment.get("SLURM_JOB_ID", "0")) % len(PORTS)]
    return RankInfo(**numbers, address=address, port=int(port))


@dataclass(frozen=True)
class Ranks:
    """The ranks of a run and the number of this one; a run of one process needs no argument.

    Messages go between CPUs, so that no rank waits for its GPU. The two groups keep those of the training loop apart
    from those of the thread that writes checkpoints.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")  # noqa: RUF009 - immutable
    control: distributed.ProcessGroup | None = None
    storage: distributed.ProcessGroup | None = None

    @property
    def is_first(self) -> bool:
        """Says whether this rank writes logs and models."""
        return self.rank == 0

    def share(self, items: Sequence[Shared]) -> Sequence[Shared]:
        """Returns every `size`-th item: the shares of all ranks are all items."""
        return items[self.rank :: self.size]

    def wait(self) -> None:
        """Returns when all ranks have come here."""
        self.sum([0.0])

    def any(self, flag: bool) -> bool:
        """Says whether the flag is set on any rank: all ranks get the same answer."""
        return self.sum([float(flag)])[0] > 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """Returns the sum of each number over ranks."""
        if self.size == 1:
            return list(values)
        totals = torch.tensor(values, dtype=torch.float64)
        distributed.all_reduce(totals, group=self.control)
        return totals.tolist()

    def first(self, value: Shared) -> Shared:
        """Returns the value of the first rank, plain data."""
        return self.gather(value)[0]

    def only_first(self, work: Callable[[], Shared]) -> Shared:
        """Returns what `work` gives on the first rank, plain data; the others wait, and fail as it does (`each`)."""
        return self.each(work if self.is_first else lambda: cast(Shared, None))[0]

    def each(self, work: Callable[[], Shared]) -> list[Shared]:
        """Returns what `work` gives on each rank, plain data; where one fails, all do, so that none waits for it.

        Raises:
            ValueError: it failed on another rank; the message is that of its error. An error here is raised as it is.
        """
        done, failure = cast(Shared, None), cast(Exception | None, None)
        try:
            done = work()
        except Exception as error:
            failure = error
        answers = self.gather((done, None if failure is None else str(failure)))
        if failure is not None:
            raise failure
        for _, message in answers:
            if message is not None:
                raise ValueError(message)
        return [answer for answer, _ in answers]

    def gather(self, value: Shared, group: distributed.ProcessGroup | None = None) -> list[Shared]:
        """Returns the values of all ranks, plain data: it travels as JSON, since torch would unpickle what arrives."""
        if self.size == 1:
            return [value]
        text = torch.tensor(list(json.dumps(value).encode()), dtype=torch.uint8)
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        distributed.all_gather(sizes, torch.tensor([len(text)]), group=group or self.control)
        padded = [torch.zeros(int(max(sizes)), dtype=torch.uint8) for _ in sizes]
        distributed.all_gather(
            padded, nn.functional.pad(text, (0, len(padded[0]) - len(text))), group=group or self.control
        )
        return [json.loads(bytes(part[: int(size)].tolist())) for part, size in zip(padded, sizes, strict=True)]


ALONE = Ranks()


@contextmanager
def join_ranks(device: str | None = None) -> Iterator[Ranks]:
    """Joins the ranks of this run, each on a device of its own: with NCCL between GPUs, with gloo between CPUs.

    `device` is "cpu" or "cuda"; by default a GPU where there is one. After an error the group is left as it is: to
    close it would wait for ranks that may be gone.

    Raises:
        ValueError: there is no such device.
    """
    own = find_rank(os.environ)
    target = find_device(device, own.local_rank)
    if target.type == "cuda":
        torch.cuda.set_device(target)
    if own.size == 1:
        yield Ranks(device=target)
        return
    backend, bound = ("cpu:gloo,cuda:nccl", target) if target.type == "cuda" else ("gloo", None)
    meeting = f"tcp://{own.address}:{own.port}"
    distributed.init_process_group(
        backend, init_method=meeting, rank=own.rank, world_size=own.size, timeout=PATIENCE, device_id=bound
    )
    control, storage = (distributed.new_group(backend="gloo", timeout=PATIENCE) for _ in range(2))
    yield Ranks(own.rank, own.size, target, control, storage)
    distributed.barrier(control)
    distributed.destroy_process_group()


def _numbers(environment: Mapping[str, str], names: Mapping[str, str]) -> dict[str, int]:
    try:
        return {name: int(environment[variable]) for name, variable in names.items()}
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"Expected whole numbers in {', '.join(names.values())}, as torchrun or srun set them: {error!r}. "
            f"Start the program with one of them, or without any of these variables."
        ) from None


def _first_host(environment: Mapping[str, str]) -> str:
    """Returns the name of the first node of the SLURM step."""
    nodes = environment.get("SLURM_STEP_NODELIST", "")
    command = ["scontrol", "show", "hostnames", nodes]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        raise ValueError(
            f"Cannot tell where the ranks meet: no MASTER_ADDR, and `scontrol show hostnames '{nodes}'` fails. "
            f"Set MASTER_ADDR to the name of the first node."
        ) from None


Loss = Callable[[nn.Module, SampleBatch, torch.Generator], Tensor]


class LossModule(nn.Module):
    """The loss as a module, which DDP wraps: so a loss may use its model in any way."""

    def __init__(self, model: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.model = model
        self.loss = loss

    def forward(self, batch: SampleBatch, generator: torch.Generator) -> Tensor:
        """Returns the loss of a batch."""
        return self.loss(self.model, batch, generator)


def parallelize(model: nn.Module, loss: Loss, options: TrainingOptions, ranks: Ranks) -> nn.Module:
    """Prepares `model` in place for training by all ranks and returns its loss, a module of (batch, generator).

    The order matters: what is compiled is recomputed inside what is sharded.
    """
    sharded = options.sharding == "fsdp" and ranks.size > 1
    compiled = options.compile and compiles(next(model.parameters()).device)
    if options.recompute:
        _recompute(model, compiled=compiled)
    elif compiled:
        # A model compiled as a whole gives its gradients all at once: too late to send some while others are made.
        for module in [model] if ranks.size == 1 else blocks(model):
            module.compile(dynamic=False)
    if sharded:
        shard(model)
    work = LossModule(model, loss)
    if ranks.size == 1 or sharded:
        return work
    return cast(nn.Module, DistributedDataParallel(work, gradient_as_bucket_view=True))


def shard(model: nn.Module) -> None:
    """Splits every parameter over the ranks of the default group: block by block, then what is left (FSDP2).

    Weights travel in float32: autocast chooses the precision of each operation, in validation another than in training.
    """
    from torch.distributed.fsdp import fully_shard

    for module in [*blocks(model), model]:
        fully_shard(module)


@contextmanager
def recompute_blocks(model: nn.Module) -> Iterator[None]:
    """Makes blocks compute their activations again in the backward pass, within a `with` block."""
    _recompute(model, compiled=False)
    try:
        yield
    finally:
        for block in blocks(model):
            del block.forward


def _recompute(model: nn.Module, *, compiled: bool) -> None:
    for block in blocks(model):
        # Compiled within: what begins with a checkpoint is never compiled.
        forward = torch.compile(block.forward, dynamic=False) if compiled else block.forward
        block.forward = partial(checkpoint, forward, use_reentrant=False)


def gradients_stay(work: nn.Module, last: bool) -> AbstractContextManager[None]:
    """Keeps gradients on their ranks in all but the last micro-batch; shards have no room for that."""
    if isinstance(work, DistributedDataParallel) and not last:
        return cast(AbstractContextManager[None], work.no_sync())
    return nullcontext()


def local_part(tensor: Tensor) -> Tensor:
    """Returns the part of a tensor that this rank holds."""
    return tensor.to_local() if _is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def whole(tensor: Tensor) -> Tensor:
    """Returns a tensor in one piece; all ranks must ask for it."""
    return tensor.full_tensor() if _is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def _is_sharded(tensor: Tensor) -> bool:
    from torch.distributed.tensor import DTensor  # slow to import, and a forecast has no shards

    return isinstance(tensor, DTensor)
