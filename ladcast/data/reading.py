"""Reads ahead of use, in threads: any items, and the blocks of frames of a store."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import numpy as np
import xarray as xr

from ladcast.times import describe, parse_time

Item = TypeVar("Item")
Result = TypeVar("Result")
FRAMES_PER_BLOCK = 40


def prefetch(
    read: Callable[[Item], Result], items: Iterable[Item], *, threads: int, ahead: int
) -> Generator[Result, None, None]:
    """Yields `read(item)` in order, with at most `ahead` results read or being read before their turn.

    An error in `read` is raised when its item's turn comes.
    """
    remaining = iter(items)
    pool = ThreadPoolExecutor(threads)
    try:
        waiting = deque(pool.submit(read, item) for item in islice(remaining, ahead))
        while waiting:
            ready = waiting.popleft().result()
            waiting.extend(pool.submit(read, item) for item in islice(remaining, 1))
            yield ready
    finally:
        pool.shutdown(cancel_futures=True)


def map_blocks(
    ds: xr.Dataset, read: Callable[[xr.Dataset], Result], *, stride: int = 1, threads: int = 12
) -> Iterator[Result]:
    """Yields `read(block)` for blocks of every `stride`-th frame, in order."""
    frames = np.arange(0, ds.sizes["time"], stride)
    blocks = (frames[first : first + FRAMES_PER_BLOCK] for first in range(0, len(frames), FRAMES_PER_BLOCK))
    return prefetch(lambda block: read(ds.isel(time=block)), blocks, threads=threads, ahead=2 * threads)


def select_period(ds: xr.Dataset, start: str | None, end: str | None) -> xr.Dataset:
    """Returns the frames from `start` up to and including `end`; raises ValueError where there are none."""
    times = ds["time"].values
    kept = np.ones(len(times), dtype=bool)
    if start is not None:
        kept &= times >= parse_time(start)
    if end is not None:
        kept &= times <= parse_time(end)
    if not kept.any():
        held = f"{describe(times[0])} to {describe(times[-1])}"
        raise ValueError(f"No frames from {start} to {end}: the store holds {held}. Choose another period.")
    return ds.isel(time=np.flatnonzero(kept))
