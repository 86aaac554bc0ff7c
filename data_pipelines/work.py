"""Work in pieces: a unit is what one worker makes at once, what is lost by a kill, and what is done again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ladcast.times import Times, describe


@dataclass(frozen=True)
class WorkUnit:
    """Numbers one piece of work: items `first` up to but not including `stop` of an axis, mostly frames.

    `label` is what people call it: its times, or its variable.
    """

    number: int
    label: str
    first: int
    stop: int

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
    return list(_cut(times, frames))


def item_units(names: Sequence[str]) -> list[WorkUnit]:
    """Makes one unit of each name."""
    return [WorkUnit(number, name, number, number + 1) for number, name in enumerate(names)]


def _cut(times: Times, frames: int) -> Iterator[WorkUnit]:
    for number, first in enumerate(range(0, len(times), frames)):
        stop = min(first + frames, len(times))
        yield WorkUnit(number, f"{describe(times[first])} to {describe(times[stop - 1])}", first, stop)
