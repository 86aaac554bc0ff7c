"""What a training step costs: arithmetic and memory, counted operation by operation before it is done; its speed.

The loss is run forward and backward on tensors without contents (PyTorch's FakeTensorMode), so that a login node can
tell whether a job fits a GPU that it does not have. A very small step is done for real, in a tenth of the time.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ladcast.data.batches import SampleBatch
from ladcast.device import FlopCounter, kept_for_backward, tensors_for_counting
from ladcast.nn.block import blocks
from ladcast.training.distributed import Loss, LossModule, Ranks, recompute_blocks

FLOAT_BYTES = 4


@dataclass(frozen=True)
class Footprint:
    """The counts of a model and its loss, with shapes as one sample has them."""

    parameters: int
    trained: int
    flops_per_sample: float
    """Matrix products and convolutions, forward and backward, each computed once."""
    sample_bytes: float
    """Activations that are kept for the backward pass, of one sample."""
    fixed_bytes: float
    """Weights in the precision of computation, kept for the backward pass."""

    def state_bytes(self, shards: int = 1) -> float:
        """Returns the memory of weights, their average, gradients and both moments of AdamW, on one of `shards`."""
        return FLOAT_BYTES * (2 * self.parameters + 3 * self.trained) / shards

    def device_bytes(self, micro_batch: int, *, shards: int = 1) -> float:
        """Returns the memory of a training step on one GPU, without the workspaces of its libraries."""
        return self.state_bytes(shards) + self.fixed_bytes + micro_batch * self.sample_bytes


def measure(model: nn.Module, loss: Loss, sample: SampleBatch, *, bf16: bool, recompute: bool = False) -> Footprint:
    """Counts a training step of `model`, whose weights are left alone and may lie on the device "meta".

    `sample` is a batch of one; only its shapes count. Memory with `recompute` is that of what stays, and of one block.
    """
    one, two = (_run(model, loss, sample, size, bf16=bf16) for size in (1, 2))
    kept = [one[1], two[1]]
    if recompute:
        with recompute_blocks(model):
            inputs = [_run(model, loss, sample, size, bf16=bf16)[1] for size in (1, 2)]
        number = max(len(list(blocks(model))), 1)
        kept = [few + (many - few) / number for few, many in zip(inputs, kept, strict=True)]
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return Footprint(
        parameters=sum(size for size, _ in sizes),
        trained=sum(size for size, trained in sizes if trained),
        flops_per_sample=two[0] - one[0],
        sample_bytes=kept[1] - kept[0],
        fixed_bytes=max(2 * kept[0] - kept[1], 0),
    )


def count_flops(model: nn.Module, loss: Loss, sample: SampleBatch) -> float:
    """Counts the arithmetic of one sample, forward and backward, as `measure` does, in half of its time."""
    return _run(model, loss, sample, 1, bf16=False)[0]


def _run(model: nn.Module, loss: Loss, sample: SampleBatch, size: int, *, bf16: bool) -> tuple[float, float]:
    """Returns the operations of one step of `size` samples, and the bytes kept between its two passes."""
    own = next(model.parameters()).device
    device = torch.device("cpu") if own.type == "meta" else own
    generator = torch.Generator(device=device)
    held = [*model.named_parameters(), *model.named_buffers()]
    elements = sum(tensor.numel() for tensor in (*(tensor for _, tensor in held), *sample))
    with tensors_for_counting(elements), FlopCounter() as counter:
        tensors = {
            f"model.{name}": torch.zeros_like(tensor, device=device).requires_grad_(tensor.requires_grad)
            for name, tensor in held
        }
        batch = tuple(torch.zeros((size, *part.shape[1:]), dtype=part.dtype, device=device) for part in sample)
        kept: dict[int, Tensor] = {}
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            torch.func.functional_call(_BothPasses(model, loss, kept), tensors, (batch, generator))
        weights = {tensor.untyped_storage()._cdata for tensor in tensors.values()}
        total = sum(tensor.untyped_storage().nbytes() for key, tensor in kept.items() if key not in weights)
    return float(counter.flops), float(total)


class _BothPasses(LossModule):
    """Does the backward pass within a call too, while the module has the tensors that it was lent."""

    def __init__(self, model: nn.Module, loss: Loss, kept: dict[int, Tensor]) -> None:
        super().__init__(model, loss)
        self.kept = kept

    def forward(self, batch: SampleBatch, generator: torch.Generator) -> Tensor:
        with kept_for_backward(self.kept):
            value = super().forward(batch, generator)
        value.backward()
        return value


# Dense bfloat16 FLOP/s without sparsity, from the vendors' data sheets; the longest name that fits counts.
PEAK_FLOPS = {
    "A100": 312e12,
    "A40": 149.7e12,
    "L40S": 362e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "H200": 989e12,
    "GH200": 989e12,
    "B200": 2250e12,
    "V100": 125e12,
}


def peak_flops(device: torch.device) -> float | None:
    """Returns the bfloat16 FLOP/s of a GPU on its data sheet; None for a CPU and a GPU that is not listed."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return PEAK_FLOPS.get(max((model for model in PEAK_FLOPS if model in name), key=len, default=""))


class Throughput:
    """Measures speed between two calls, without the time of validation.

    `flops_per_sample` is the counted arithmetic of the model, without what is computed twice to save memory: its share
    of the peak is the model FLOPs utilisation (MFU, arXiv 2204.02311, appendix B).
    """

    def __init__(self, batch_size: int, flops_per_sample: float, ranks: Ranks) -> None:
        self.batch_size = batch_size
        self.flops = flops_per_sample
        self.ranks = ranks
        self.peak = peak_flops(ranks.device)
        self.last = (0, time.monotonic())

    def pause(self, step: int) -> None:
        """Forgets the time until now."""
        self.last = (step, time.monotonic())

    def measure(self, step: int) -> dict[str, float]:
        """Returns the speed since the last call, and the most memory of a GPU that was in use."""
        now, last = time.monotonic(), self.last
        self.last = (step, now)
        device = self.ranks.device
        numbers: dict[str, float] = {}
        if device.type == "cuda":
            numbers["gpu_memory_gib"] = torch.cuda.max_memory_allocated(device) / 2**30
        if step <= last[0]:  # rolled back
            return numbers
        rate = (step - last[0]) / (now - last[1])
        numbers |= {"steps_per_s": rate, "samples_per_s": rate * self.batch_size}
        if self.flops:
            flops = rate * self.batch_size * self.flops / self.ranks.size
            numbers["tflops_per_rank"] = flops / 1e12
            if self.peak is not None:
                numbers["mfu"] = flops / self.peak
        return numbers
