"""The rollout: the one place that owns the forecast clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from ladcast.times import Times, lead_times
from ladcast.types import LatentSequence, PastSequence

Step = Callable[[PastSequence, np.datetime64, int], LatentSequence]
"""Maps (past latents, their last valid time, number of the step) to the following frames."""


@dataclass(frozen=True)
class ForecastStep:
    """The frames that one call of the forecaster made, when they are valid, and the frames that the next call sees."""

    number: int
    latents: LatentSequence
    valid_times: Times
    past: PastSequence


def rollout(
    step: Step, past: PastSequence, start: np.datetime64, numbers: range, frame_step: np.timedelta64
) -> Iterator[ForecastStep]:
    """Yields forecast steps, handing the last frames of each one to the next.

    `past` ends at `start`, where the first of the steps begins; frames are `frame_step` apart. The numbers of steps
    count from the initial time: a rollout that stopped goes on when given its last frames, their valid time and the
    remaining numbers.
    """
    for number in numbers:
        latents = step(past, start, number)
        past = torch.cat([past.to(latents.device), latents], dim=2)[:, :, -past.shape[2] :]
        valid_times = start + lead_times(latents.shape[2], frame_step)
        yield ForecastStep(number, latents, valid_times, past)
        start = start + latents.shape[2] * frame_step
