"""How fast a run is, and what share of the hardware's arithmetic it uses."""

from __future__ import annotations

import time

import torch

from ladcast.training.distributed import Ranks

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
    known = [model for model in PEAK_FLOPS if model in name]
    return PEAK_FLOPS[max(known, key=len)] if known else None


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
