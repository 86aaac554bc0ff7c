"""Mean and standard deviation in one pass, bit for bit the same however frames are split over units and workers."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Moments:
    """Holds for each frame and channel the count, the mean and the sum of squared deviations, `(frame, channel)`.

    `a + b` puts frames one after the other. A frame's numbers depend on that frame alone, and the sums over frames are
    exact before their one rounding (Shewchuk 1997), so neither units nor order change a bit of the result.
    """

    count: Values
    mean: Values
    deviations: Values

    @classmethod
    def of(cls, state: npt.NDArray[np.floating]) -> Moments:
        """Computes the moments of `time channel lat lon`, leaving out NaN."""
        rows = [_of_frame(frame) for frame in state]
        count, mean, deviations = np.stack(rows, axis=1)
        return cls(count, mean, deviations)

    def __add__(self, other: Moments) -> Moments:
        return self.concatenate([self, other])

    @classmethod
    def concatenate(cls, parts: Iterable[Moments]) -> Moments:
        """Puts the frames of all parts one after the other."""
        listed = list(parts)
        count, mean, deviations = (
            np.concatenate([getattr(part, name) for part in listed]) for name in ("count", "mean", "deviations")
        )
        return cls(count, mean, deviations)

    def mean_and_std(self) -> tuple[Values, Values]:
        """Returns mean and standard deviation per channel; NaN where a channel has no value.

        var = [sum of deviations within frames + sum of n (mean - overall mean)^2 between frames] / N.
        """
        total = _exact_sums(self.count)
        known = np.where(total > 0, total, np.nan)
        mean = _exact_sums(self.count * self.mean) / known
        between = _exact_sums(self.count * (self.mean - mean) ** 2)
        return mean, np.sqrt((_exact_sums(self.deviations) + between) / known)

    def save(self, path: Path) -> None:
        """Writes a NumPy file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.stack([self.count, self.mean, self.deviations]))

    @classmethod
    def load(cls, path: Path) -> Moments:
        """Reads what `save` wrote."""
        count, mean, deviations = np.load(path)
        return cls(count, mean, deviations)


def _of_frame(frame: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    values = np.array(frame, dtype=np.float64).reshape(len(frame), -1)
    absent = ~np.isfinite(values)
    count = values.shape[1] - absent.sum(1).astype(np.float64)
    values[absent] = 0.0
    mean = values.sum(1) / np.maximum(count, 1)
    values -= mean[:, None]
    values[absent] = 0.0
    np.square(values, out=values)
    return np.stack([count, mean, values.sum(1)])


def _exact_sums(values: Values) -> Values:
    return np.array([math.fsum(column) for column in values.T.tolist()])
