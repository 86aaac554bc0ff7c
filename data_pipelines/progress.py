"""Says how far a stage is: a line at first, at last, and every few seconds between."""

from __future__ import annotations

import time
from collections.abc import Callable

INTERVAL_S = 10.0


def report(title: str, total: int) -> Callable[[int], None]:
    """Returns a function to call with the number of units that are done."""
    started = time.monotonic()
    last = -INTERVAL_S

    def show(done: int) -> None:
        nonlocal last
        elapsed = time.monotonic() - started
        if done == total or elapsed - last >= INTERVAL_S:
            last = elapsed
            print(f"{title}: {done} of {total} units, {elapsed:.0f} s", flush=True)

    return show
