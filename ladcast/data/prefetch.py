"""Reads ahead of use, in threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def prefetch(
    read: Callable[[Item], Result], items: Iterable[Item], *, threads: int, ahead: int
) -> Generator[Result, None, None]:
    """Yields `read(item)` in order, with at most `ahead` results read or being read before their turn.

    An error in `read` is raised when its item's turn comes.
    """
    remaining = iter(items)
    pool = ThreadPoolExecutor(threads)
    try:
        # Results wait in the order of their items, whichever thread is done first.
        waiting = deque(pool.submit(read, item) for item in islice(remaining, ahead))
        while waiting:
            ready = waiting.popleft().result()
            waiting.extend(pool.submit(read, item) for item in islice(remaining, 1))
            yield ready
    finally:
        # Also where the caller stops early: what nobody will use is not begun.
        pool.shutdown(cancel_futures=True)
