"""The time axis of a nature run: independent pieces of weather, each in a calendar year of its own."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from itertools import pairwise

import numpy as np
import numpy.typing as npt

FRAME = np.timedelta64(6, "h")
FRAMES_PER_DAY = 4
LONGEST_SEGMENT_DAYS = 364

Times = npt.NDArray[np.datetime64]


@dataclass(frozen=True)
class Timeline:
    """Lays `segments` pieces of `days` days after one another, piece k starting at `start` + k years, 00 UTC.

    A piece is computed and written in blocks of `block_frames` frames.

    Raises:
        ValueError: a piece is no whole number of blocks, `start` is no date that every year has, or pieces
            touch, so that a window of frames could straddle two of them.
    """

    start: str
    days: int
    segments: int
    block_frames: int

    def __post_init__(self) -> None:
        if self.days < 1 or self.segments < 1 or self.block_frames < 1:
            raise ValueError(
                f"Expected days, segments and block_frames of at least 1, "
                f"got {self.days}, {self.segments} and {self.block_frames}."
            )
        if self.days * FRAMES_PER_DAY % self.block_frames:
            raise ValueError(
                f"days={self.days} has {self.days * FRAMES_PER_DAY} frames, which is no multiple of "
                f"block_frames={self.block_frames}. Change either: a block is never split."
            )
        if self.segments > 1 and self.days > LONGEST_SEGMENT_DAYS:
            raise ValueError(
                f"Expected at most days={LONGEST_SEGMENT_DAYS} with several segments, got {self.days}: "
                "segments start a year apart and need a gap between them."
            )
        self.starts  # noqa: B018  (checks the date)

    @property
    def starts(self) -> Times:
        """Returns the first time of each segment."""
        try:
            first = date.fromisoformat(self.start)
            dates = [first.replace(year=first.year + year) for year in range(self.segments)]
        except ValueError as error:
            raise ValueError(
                f"Expected start=YYYY-MM-DD, a date that every year has, got '{self.start}': {error}."
            ) from None
        return np.array(dates, "datetime64[ns]")

    @property
    def segment_frames(self) -> int:
        """Returns the number of frames of one segment."""
        return self.days * FRAMES_PER_DAY

    @property
    def num_blocks(self) -> int:
        """Returns the number of blocks of one segment."""
        return self.segment_frames // self.block_frames

    @property
    def times(self) -> Times:
        """Returns all times, segment after segment."""
        return (self.starts[:, None] + np.arange(self.segment_frames) * FRAME).ravel()

    def block_starts(self, block: int) -> Times:
        """Returns the first time of a block in each segment."""
        return self.starts + block * self.block_frames * FRAME

    def region(self, segment: int, block: int) -> slice:
        """Returns the place of a segment's block on the time axis."""
        first = segment * self.segment_frames + block * self.block_frames
        return slice(first, first + self.block_frames)

    def describe_segments(self) -> list[dict[str, str]]:
        """Lists first and last time of each segment."""
        length = (self.segment_frames - 1) * FRAME
        return [{"first": _text(start), "last": _text(start + length)} for start in self.starts]

    def describe_gaps(self) -> list[tuple[str, str]]:
        """Lists the last time before and the first time after each gap, as `open_store` expects them."""
        segments = self.describe_segments()
        return [(left["last"], right["first"]) for left, right in pairwise(segments)]


def _text(time: np.datetime64) -> str:
    return str(np.datetime_as_string(time, unit="h"))
