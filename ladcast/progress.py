"""Progress that people and log files can read: a bar on a terminal and in a notebook, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")
BAR_WIDTH = 24
"""Characters of the bar in a notebook."""


def show_progress(
    items: Iterable[Item], total: int, label: str, *, weight: Callable[[Item], int] = lambda item: 1, unit: str = ""
) -> Iterator[Item]:
    """Yields the items, showing what is done and the time left: a bar where people look on, else about ten lines.

    `total` is the sum of the items' weights, such as the members times lead times in each.
    """
    in_notebook = "ipykernel" in sys.modules
    show = _bar if sys.stderr.isatty() else _one_line if in_notebook else _lines
    yield from show(((item, weight(item)) for item in items), total, f"{label}:", unit)


def _bar(weighted: Iterable[tuple[Item, int]], total: int, label: str, unit: str) -> Iterator[Item]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), TextColumn(unit))
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        task = progress.add_task(label, total=total)
        for item, weight in weighted:
            yield item
            progress.advance(task, weight)


def _one_line(weighted: Iterable[tuple[Item, int]], total: int, label: str, unit: str) -> Iterator[Item]:
    """Writes the same line again and again, which a notebook shows as one: without widgets, which need an extension."""
    started, done = time.monotonic(), 0
    for item, weight in weighted:
        yield item
        done += weight
        filled, elapsed = BAR_WIDTH * done // max(total, 1), time.monotonic() - started
        bar = "█" * filled + "░" * (BAR_WIDTH - filled)
        counted, left = f"{done}/{total} {unit}".rstrip(), elapsed * (total - done) / max(done, 1)
        end = "\n" if done >= total else ""
        print(f"\r{label} {bar} {counted}, {elapsed:.0f} s, {left:.0f} s left   ", end=end, file=sys.stderr, flush=True)


def _lines(weighted: Iterable[tuple[Item, int]], total: int, label: str, unit: str) -> Iterator[Item]:
    started, done, told = time.monotonic(), 0, 0
    for item, weight in weighted:
        yield item
        done += weight
        if done >= total or (done - told) * 10 >= total:
            told, elapsed = done, time.monotonic() - started
            counted = f"{label} {done}/{total} {unit}".rstrip()
            left = elapsed * (total - done) / done
            print(f"{counted}, {elapsed:.0f} s, {left:.0f} s left", file=sys.stderr, flush=True)


def peak_memory() -> str:
    """Says how much memory this process has used at most, of the machine and of its GPU."""
    import resource

    import torch

    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    gpu = f", GPU {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB" if torch.cuda.is_available() else ""
    return f"peak memory {host / 2**30:.2f} GiB{gpu}"
