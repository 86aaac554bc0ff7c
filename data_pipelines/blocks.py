"""Walks a store block by block, reading ahead in threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import xarray as xr

from ladcast.times import parse_time

Result = TypeVar("Result")
FRAMES_PER_BLOCK = 40


def select_period(ds: xr.Dataset, start: str | None, end: str | None) -> xr.Dataset:
    """Returns the frames from `start` up to and including `end`; raises ValueError where there are none."""
    times = ds["time"].values
    kept = np.ones(len(times), dtype=bool)
    if start is not None:
        kept &= times >= parse_time(start)
    if end is not None:
        kept &= times <= parse_time(end)
    if not kept.any():
        raise ValueError(f"No frames from {start} to {end}: the store holds {times[0]} to {times[-1]}.")
    return ds.isel(time=np.flatnonzero(kept))


def map_blocks(
    ds: xr.Dataset, read: Callable[[xr.Dataset], Result], *, stride: int = 1, threads: int = 12
) -> Iterator[Result]:
    """Yields `read(block)` for blocks of every `stride`-th frame, in order, with a few blocks in flight."""
    frames = np.arange(0, ds.sizes["time"], stride)
    blocks = [frames[first : first + FRAMES_PER_BLOCK] for first in range(0, len(frames), FRAMES_PER_BLOCK)]
    with ThreadPoolExecutor(threads) as pool:
        waiting = [pool.submit(read, ds.isel(time=block)) for block in blocks[: 2 * threads]]
        for following in [*blocks[2 * threads :], *[None] * len(waiting)]:
            ready = waiting.pop(0)
            if following is not None:
                waiting.append(pool.submit(read, ds.isel(time=following)))
            yield ready.result()
