"""Sorts members on a CPU: a sorting network whose every step is one vector instruction over thousands of cells.

A library sorts the members of one cell after the other. Here a fixed list of pairs of members is put in order, for all
cells of a block at once, and the block stays in the cache meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from jaxtyping import Float

CELLS_AT_ONCE = 8192
"""50 members of so many cells are 1.6 MB in single precision, which a core's own cache holds."""

Rows = Float[np.ndarray, "member cell"]


def moments_in_cache(members: Rows, truth: Float[np.ndarray, " cell"]) -> Float[np.ndarray, "moment cell"]:
    """Returns the four moments of `ladcast.verification.crps.Moments` in their order; members are read once.

    The last is summed as 2 sum_i (M + 1 - 2 i) (x_(M + 1 - i) - x_(i)) / (M (M - 1)), i <= M / 2, over sorted
    members: all terms are positive, so nothing cancels.
    """
    count = len(members)
    moments = np.empty((4, len(truth)), truth.dtype)
    for first in range(0, len(truth), CELLS_AT_ONCE):
        block = slice(first, first + CELLS_AT_ONCE)
        deviations = [member[block] - truth[block] for member in members]
        zero = np.zeros_like(truth[block])
        moments[0, block] = sum(deviations, zero) / count
        moments[1, block] = sum(((row - moments[0, block]) ** 2 for row in deviations), zero) / max(count - 1, 1)
        moments[2, block] = sum((np.abs(row) for row in deviations), zero) / count
        moments[3, block] = _spread(sort_rows(deviations)) * (2 / max(count * (count - 1), 1))
    return moments


def sort_rows(values: Sequence[Float[np.ndarray, " cell"]]) -> list[Float[np.ndarray, " cell"]]:
    """Puts rows in order, so that they increase in every cell; the rows themselves are used up."""
    rows, spare = list(values), np.empty_like(values[0])
    for low, high in comparisons(len(rows)):
        np.minimum(rows[low], rows[high], out=spare)
        np.maximum(rows[low], rows[high], out=rows[high])
        rows[low], spare = spare, rows[low]
    return rows


@lru_cache
def comparisons(count: int) -> tuple[tuple[int, int], ...]:
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
