"""A GPU kernel in Triton: each thread reads the members of one cell once and keeps them in its registers.

Import it only where there is a GPU: Triton comes with PyTorch's CUDA wheels and with no other.
"""

from __future__ import annotations

from typing import Any

import torch
import triton  # type: ignore[import-not-found, unused-ignore]
import triton.language as tl  # type: ignore[import-not-found, unused-ignore]
from jaxtyping import Float
from torch import Tensor

CELLS_A_PROGRAM = 128


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def moments_kernel(members, truth, moments, cells, NUM: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """Computes the four moments of BLOCK cells; NUM members lie `cells` apart, and so do the moments."""
    cell = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = cell < cells
    true = tl.load(truth + cell, mask=inside, other=0.0)
    mean = tl.zeros([BLOCK], tl.float32)
    error = tl.zeros([BLOCK], tl.float32)
    difference = tl.zeros([BLOCK], tl.float32)
    place = cell
    held = ()
    for i in tl.static_range(NUM):
        value = tl.load(members + place, mask=inside, other=0.0) - true
        mean += value
        error += tl.abs(value)
        row = tl.zeros([BLOCK], tl.float32)  # a sum for each i: rounding grows with M, not with M^2
        for j in tl.static_range(i):
            row += tl.abs(value - held[j])
        difference += row
        held = held + (value,)  # type: ignore[assignment]  # noqa: RUF005
        place += cells
    mean = mean / NUM
    variance = tl.zeros([BLOCK], tl.float32)
    for i in tl.static_range(NUM):
        variance += (held[i] - mean) * (held[i] - mean)
    place = cell
    tl.store(moments + place, mean, mask=inside)
    place += cells
    tl.store(moments + place, variance / (NUM - 1), mask=inside)
    place += cells
    tl.store(moments + place, error / NUM, mask=inside)
    place += cells
    tl.store(moments + place, difference * (2.0 / (NUM * (NUM - 1))), mask=inside)


def moments_in_registers(
    members: Float[Tensor, "member *batch lat lon"], truth: Float[Tensor, "*batch lat lon"]
) -> Float[Tensor, "moment *batch lat lon"]:
    """Returns the four moments of `MemberMoments`, of contiguous float32 fields on one GPU."""
    moments = torch.empty((4, *truth.shape), device=truth.device)
    kernel: Any = moments_kernel
    cells = truth.numel()
    blocks = (triton.cdiv(cells, CELLS_A_PROGRAM),)
    with torch.cuda.device_of(members):  # Triton launches on the current GPU
        kernel[blocks](members, truth, moments, cells, NUM=len(members), BLOCK=CELLS_A_PROGRAM)
    return moments
