"""Intervals from resampling storms: positions of one storm err together, so storms are drawn, never single times."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

SAMPLES = 1000
CONFIDENCE = 0.9


def draw_storms(storms: int, generator: np.random.Generator, samples: int = SAMPLES) -> Int[np.ndarray, "sample storm"]:
    """Draws `storms` storms with replacement, `samples` times; returns how often each storm is drawn."""
    return generator.multinomial(storms, np.full(storms, 1 / storms), size=samples)


def interval(values: Float[np.ndarray, "sample ..."], storms: int) -> Float[np.ndarray, "bound ..."]:
    """Returns the lower and upper bound of the central 90 %; NaN for a single storm, which cannot be resampled."""
    if storms < 2:
        return np.full((2, *values.shape[1:]), np.nan)
    tail = (1 - CONFIDENCE) / 2
    return np.asarray(np.nanquantile(values, [tail, 1 - tail], axis=0))
