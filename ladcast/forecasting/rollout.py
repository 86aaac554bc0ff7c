"""The rollout: the one place that owns the forecast clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ladcast.times import Times, lead_times
from ladcast.types import LatentSequence, PastSequence

Step = Callable[[PastSequence, np.datetime64, int], LatentSequence]
"""Maps (past latents, their last valid time, block number) to the following frames."""


@dataclass(frozen=True)
class LatentChunk:
    """Holds the frames that one call of the forecaster produced, and when they are valid."""

    block: int
    latents: LatentSequence
    valid_times: Times


def rollout(
    step: Step, past: PastSequence, start: np.datetime64, blocks: range, frame_step: np.timedelta64
) -> Iterator[LatentChunk]:
    """Yields blocks of forecast frames, handing the last frames of each block to the next.

    `past` ends at `start`, where the first of `blocks` begins; frames are `frame_step` apart.
    Block numbers count from the initial time: a rollout
    that stopped goes on when given its last frames, their valid time and the remaining block numbers.
    """
    for block in blocks:
        latents = step(past, start, block)
        valid_times = start + lead_times(latents.shape[2], frame_step)
        yield LatentChunk(block, latents, valid_times)
        past = latents[:, :, -past.shape[2] :]
        start = start + latents.shape[2] * frame_step
