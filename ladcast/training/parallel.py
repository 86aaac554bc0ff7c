"""Spreads a model over ranks: copies that average their gradients (DDP), or one model in shards (FSDP2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from ladcast.data.batches import SampleBatch
from ladcast.device import compiles
from ladcast.nn.block import blocks
from ladcast.training.distributed import Ranks
from ladcast.training.options import TrainingOptions

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
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """Returns a tensor in one piece; all ranks must ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
