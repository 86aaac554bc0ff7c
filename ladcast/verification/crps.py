"""The inner loop of ensemble scores: mean distances of members from the truth and from each other.

On a GPU both come from one pass over the members (`crps_kernel`). On a CPU members are sorted by a network whose every
step is one vector instruction over thousands of cells: a library sorts the members of one cell after the other, here a
fixed list of pairs of members is put in order for all cells of a chunk at once, which stays in the cache meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

Members = Float[Tensor, "member *batch lat lon"]
CellField = Float[Tensor, "*batch lat lon"]
MemberRows = Float[np.ndarray, "member cell"]

REGISTER_MEMBERS = 60
"""The most members that one GPU thread holds in its registers (80 of them, as compiled for an H100): 64 would spill."""
CELLS_IN_CACHE = 8192
"""50 members of so many cells are 1.6 MB in single precision, which a core's own cache holds."""


class MemberMoments(NamedTuple):
    """What most scores need of the members x_i and the truth y of each cell; one member has no spread."""

    error: Tensor
    """mean_i x_i - y"""
    variance: Tensor
    """sum_i (x_i - mean)^2 / (M - 1)"""
    member_error: Tensor
    """mean_i |x_i - y|"""
    member_difference: Tensor
    """sum_ij |x_i - x_j| / (M (M - 1))"""


def moments(members: Members, truth: CellField) -> MemberMoments:
    """Returns the moments from one pass over the members.

    On a GPU in single precision, with up to `REGISTER_MEMBERS` of them, the double sum over pairs is taken in
    registers, where 1225 differences cost less than the reading; on a CPU members are sorted in cache. Elsewhere, and
    for gradients, torch sorts.
    """
    plain = not (members.requires_grad or truth.requires_grad) and members.dtype == truth.dtype
    if plain and members.device.type == "cpu":
        found = moments_in_cache(members.flatten(1).numpy(), truth.flatten().numpy())
        return MemberMoments(*torch.from_numpy(found).reshape(4, *truth.shape))
    if plain and members.dtype == torch.float32 and 2 <= len(members) <= REGISTER_MEMBERS:
        from ladcast.verification.crps_kernel import moments_in_registers

        return MemberMoments(*moments_in_registers(members.contiguous(), truth.contiguous()))
    deviation = members - truth
    variance = deviation.var(0, correction=1) if len(members) > 1 else torch.zeros_like(truth)
    return MemberMoments(deviation.mean(0), variance, member_error(members, truth), member_difference(members, truth))


def member_error(members: Members, truth: CellField) -> CellField:
    """Returns mean_i |x_i - y|, the first term of the CRPS."""
    return (members - truth).abs().mean(0)


def member_difference(members: Members, truth: CellField) -> CellField:
    """Returns the mean distance of two different members, sum_ij |x_i - x_j| / (M (M - 1)); zero for one member.

    Computed as 2 sum_i (2 i - M - 1) x_(i) / (M (M - 1)) over sorted members x_(1) <= ... <= x_(M). Taking
    the truth off first keeps single precision accurate: the sum is then over errors, not over full fields.
    """
    num_members = len(members)
    ordered = torch.sort((members - truth).movedim(0, -1).contiguous(), dim=-1).values
    rank = torch.arange(1, num_members + 1, device=ordered.device, dtype=ordered.dtype)
    return ordered @ (2 * (2 * rank - num_members - 1) / max(num_members * (num_members - 1), 1))


def fair_crps(members: Members, truth: CellField) -> CellField:
    """Returns mean_i |x_i - y| - sum_ij |x_i - x_j| / (2 M (M - 1)), unbiased for M >= 2.

    A single forecast has no fair CRPS. Its ordinary CRPS is its absolute error.
    Source: Ferro (2014), doi:10.1002/qj.2270.
    """
    _, _, distance, difference = moments(members, truth)
    return distance - difference / 2


def moments_in_cache(members: MemberRows, truth: Float[np.ndarray, " cell"]) -> Float[np.ndarray, "moment cell"]:
    """Returns the four moments of `MemberMoments` in their order; members are read once.

    The last is summed as 2 sum_i (M + 1 - 2 i) (x_(M + 1 - i) - x_(i)) / (M (M - 1)), i <= M / 2, over sorted
    members: all terms are positive, so nothing cancels.
    """
    count = len(members)
    moments = np.empty((4, len(truth)), truth.dtype)
    for first in range(0, len(truth), CELLS_IN_CACHE):
        chunk = slice(first, first + CELLS_IN_CACHE)
        deviations = [member[chunk] - truth[chunk] for member in members]
        zero = np.zeros_like(truth[chunk])
        moments[0, chunk] = sum(deviations, zero) / count
        moments[1, chunk] = sum(((row - moments[0, chunk]) ** 2 for row in deviations), zero) / max(count - 1, 1)
        moments[2, chunk] = sum((np.abs(row) for row in deviations), zero) / count
        moments[3, chunk] = _spread(sort_members(deviations)) * (2 / max(count * (count - 1), 1))
    return moments


def sort_members(values: Sequence[Float[np.ndarray, " cell"]]) -> list[Float[np.ndarray, " cell"]]:
    """Puts rows in order, so that they increase in every cell; the rows themselves are used up."""
    # one spare row, which changes places with the lower of each pair: nothing is allocated in the loop
    rows, spare = list(values), np.empty_like(values[0])
    for low, high in sorting_network(len(rows)):
        np.minimum(rows[low], rows[high], out=spare)
        np.maximum(rows[low], rows[high], out=rows[high])
        rows[low], spare = spare, rows[low]
    return rows


@lru_cache
def sorting_network(count: int) -> tuple[tuple[int, int], ...]:
    """Returns the pairs to put in order, one after the other, to sort `count` values.

    Batcher's odd-even merge sort (1968, doi:10.1145/1468075.1468121), in the form of Knuth, algorithm 5.2.2 M.
    """
    return tuple(_merge_exchange(count))


def _merge_exchange(count: int) -> Iterator[tuple[int, int]]:
    top = 1 << max((count - 1).bit_length() - 1, 0)
    step = top
    while step > 0:
        width, rest, distance = top, 0, step
        while True:
            yield from ((low, low + distance) for low in range(count - distance) if low & step == rest)
            if width == step:
                break
            distance, width, rest = width - step, width // 2, step
        step //= 2


def _spread(rows: list[npt.NDArray[np.floating]]) -> npt.NDArray[np.floating]:
    members = len(rows)
    total = np.zeros_like(rows[0])
    for low in range(members // 2):
        total += (rows[members - 1 - low] - rows[low]) * (members - 1 - 2 * low)
    return total
