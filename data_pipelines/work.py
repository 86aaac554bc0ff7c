"""Work in pieces: a work unit is what one worker makes at once, what a kill loses, and what is then made again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ladcast.times import Times, describe


@dataclass(frozen=True)
class WorkUnit:
    """Numbers one piece of work: the items `first` up to but not including `stop` of an axis, mostly times.

    `label` is what people call it: its times, or its variable. A unit that `follows` begins from what the unit before
    it left in the product's folder, so that the two are made in this order and in one process.
    """

    number: int
    label: str
    first: int
    stop: int
    follows: bool = False

    @property
    def items(self) -> slice:
        """Returns the place of the unit on its axis."""
        return slice(self.first, self.stop)

    @property
    def part(self) -> str:
        """Returns the file in which a stage keeps an intermediate result, relative to the product's folder."""
        return f"parts/{self.number:06d}.npy"


def time_units(times: Times, frames: int) -> list[WorkUnit]:
    """Cuts a time axis into units of `frames`; the last one may be shorter."""
    return [
        WorkUnit(number, f"{describe(span[0])} to {describe(span[-1])}", first, first + len(span))
        for number, first in enumerate(range(0, len(times), frames))
        for span in [times[first : first + frames]]
    ]


def item_units(names: Sequence[str]) -> list[WorkUnit]:
    """Makes one unit of each name."""
    return [WorkUnit(number, name, number, number + 1) for number, name in enumerate(names)]
