"""The inner loop of ensemble scores: mean distances of members from the truth and from each other.

On a GPU both come from one pass over the members (`crps_kernel`); elsewhere members are sorted (`sorting`).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ladcast.verification.sorting import moments_in_cache

Members = Float[Tensor, "member *batch lat lon"]
Field = Float[Tensor, "*batch lat lon"]

REGISTER_MEMBERS = 60
"""The most members that one GPU thread holds in its registers (80 of them, as compiled for an H100): 64 would spill."""


class Moments(NamedTuple):
    """Holds what most scores need of the members x_i and the truth y of each cell; one member has no spread."""

    error: Tensor
    """mean_i x_i - y"""
    variance: Tensor
    """sum_i (x_i - mean)^2 / (M - 1)"""
    member_error: Tensor
    """mean_i |x_i - y|"""
    member_difference: Tensor
    """sum_ij |x_i - x_j| / (M (M - 1))"""


def moments(members: Members, truth: Field) -> Moments:
    """Returns the moments from one pass over the members.

    On a GPU in single precision, with up to `REGISTER_MEMBERS` of them, the double sum over pairs is taken in
    registers, where 1225 differences cost less than the reading; on a CPU members are sorted in cache. Elsewhere, and
    for gradients, torch sorts.
    """
    plain = not (members.requires_grad or truth.requires_grad) and members.dtype == truth.dtype
    if plain and members.device.type == "cpu":
        found = moments_in_cache(members.flatten(1).numpy(), truth.flatten().numpy())
        return Moments(*torch.from_numpy(found).reshape(4, *truth.shape))
    if plain and members.dtype == torch.float32 and 2 <= len(members) <= REGISTER_MEMBERS:
        from ladcast.verification.crps_kernel import moments_in_registers

        return Moments(*moments_in_registers(members.contiguous(), truth.contiguous()))
    deviation = members - truth
    variance = deviation.var(0, correction=1) if len(members) > 1 else torch.zeros_like(truth)
    return Moments(deviation.mean(0), variance, member_error(members, truth), member_difference(members, truth))


def member_error(members: Members, truth: Field) -> Field:
    """Returns mean_i |x_i - y|, the first term of the CRPS."""
    return (members - truth).abs().mean(0)


def member_difference(members: Members, truth: Field) -> Field:
    """Returns the mean distance of two different members, sum_ij |x_i - x_j| / (M (M - 1)); zero for one member.

    Computed as 2 sum_i (2 i - M - 1) x_(i) / (M (M - 1)) over sorted members x_(1) <= ... <= x_(M). Taking
    the truth off first keeps single precision accurate: the sum is then over errors, not over full fields.
    """
    num_members = len(members)
    ordered = torch.sort((members - truth).movedim(0, -1).contiguous(), dim=-1).values
    rank = torch.arange(1, num_members + 1, device=ordered.device, dtype=ordered.dtype)
    return ordered @ (2 * (2 * rank - num_members - 1) / max(num_members * (num_members - 1), 1))


def fair_crps(members: Members, truth: Field) -> Field:
    """Returns mean_i |x_i - y| - sum_ij |x_i - x_j| / (2 M (M - 1)), unbiased for M >= 2.

    A single forecast has no fair CRPS. Its ordinary CRPS is its absolute error.
    Source: Ferro (2014), doi:10.1002/qj.2270.
    """
    _, _, distance, difference = moments(members, truth)
    return distance - difference / 2
