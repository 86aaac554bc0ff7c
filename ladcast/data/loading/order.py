"""The order of training samples as a pure function of (seed, step): nothing to store, nothing to replay."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class SampleOrder:
    """Deals out `samples` in batches of `batch_size`, shuffled anew in every epoch.

    Epochs follow each other without a break: sample number n of a run is number n % samples of epoch n // samples, and
    a batch may hold the end of one epoch and the start of the next. So every epoch shows every sample once.
    `batch_size` counts the samples of all ranks together, and rank r takes every `world_size`-th of them: the order
    stays the same when a run goes on with another number of ranks, of workers or of samples a batch.

    Raises:
        ValueError: the samples do not fill a batch, the ranks do not divide it, or a number is out of range.
    """

    samples: int
    batch_size: int
    seed: int = 0
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.batch_size <= self.samples:
            raise ValueError(
                f"{self.samples} training samples do not fill one batch of {self.batch_size}. Lower 'batch_size'."
            )
        if self.seed < 0 or not 0 <= self.rank < self.world_size:
            raise ValueError(
                f"Expected seed >= 0 and 0 <= rank < world_size, got seed={self.seed}, rank={self.rank} of "
                f"{self.world_size}."
            )
        if self.batch_size % self.world_size:
            raise ValueError(
                f"A batch of {self.batch_size} does not divide among {self.world_size} ranks: choose a multiple."
            )

    def batch(self, step: int) -> npt.NDArray[np.int64]:
        """Returns the samples of this rank in training step `step`, which counts from 0."""
        # Numbered through the whole run, so that neither ranks nor the size of a batch change which samples come when.
        numbers = np.arange(step * self.batch_size + self.rank, (step + 1) * self.batch_size, self.world_size)
        epochs, places = np.divmod(numbers, self.samples)
        parts = [shuffle(self.samples, self.seed, e)[places[epochs == e]] for e in np.unique(epochs).tolist()]
        return np.concatenate(parts)

    def state(self, step: int) -> dict[str, int]:
        """Returns what a checkpoint keeps after `step` steps: how many samples were shown, of which order."""
        return {"samples_shown": step * self.batch_size, "samples": self.samples, "seed": self.seed}

    def resume(self, state: dict[str, int]) -> int:
        """Returns the step that follows on a `state`, also of another batch size.

        Raises:
            ValueError: the state is of other samples or another seed, or falls within a batch.
        """
        mine = {"samples": self.samples, "seed": self.seed}
        saved = {name: state[name] for name in mine}
        if saved != mine:
            raise ValueError(
                f"The checkpoint's order of samples is that of {saved}, this run's that of {mine}. Go on with the same "
                "data and seed, or start a new run from the weights ('initial')."
            )
        step, rest = divmod(state["samples_shown"], self.batch_size)
        if rest:
            raise ValueError(
                f"The checkpoint was written after {state['samples_shown']} samples, no multiple of 'batch_size' "
                f"{self.batch_size}. Choose one that divides it."
            )
        return step


@lru_cache(maxsize=4)
def shuffle(samples: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """Returns the samples in the order of one epoch (0.13 s for a million of them, then kept).

    The order is that of 64-bit random numbers (Philox 4x64, Salmon et al. 2011, keyed by seed and epoch): numpy keeps
    the numbers of a bit generator for ever, but not those of `Generator.permutation`.
    """
    order = np.argsort(np.random.Philox(key=[seed, epoch]).random_raw(samples), kind="stable")
    order.setflags(write=False)
    return order
