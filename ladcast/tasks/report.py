"""Progress that people and log files can read: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from ladcast.tasks.trackers import Tracker

Item = TypeVar("Item")


class TrainingLog:
    """Prints training numbers, appends them to a JSON-lines file, and hands them to trackers.

    A run that goes on from a checkpoint may write a step again: the last line of a step counts. A silent log, that of
    a rank other than the first, does nothing.
    """

    def __init__(self, path: Path, total_steps: int, *, trackers: Sequence[Tracker] = (), silent: bool = False) -> None:
        self.path, self.total_steps = path, total_steps
        self.trackers, self.silent = trackers, silent
        self.started = time.monotonic()

    def __call__(self, step: int, values: dict[str, float]) -> None:
        """Records the numbers of one step."""
        if self.silent:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        minutes = (time.monotonic() - self.started) / 60
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, "minutes": round(minutes, 3), **values}) + "\n")
        numbers = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        print(f"step {step}/{self.total_steps}  {minutes:.1f} min  {numbers}", flush=True)
        for tracker in self.trackers:
            tracker.log(step, values)

    def reading(self, done: int, total: int) -> None:
        """Tells now and then how much of the data is in memory."""
        if not self.silent and (done == total or done % max(total // 5, 1) == 0):
            print(f"read {done}/{total} blocks, {time.monotonic() - self.started:.0f} s", flush=True)

    def close(self) -> None:
        """Ends the trackers."""
        for tracker in self.trackers:
            tracker.close()


def track(items: Iterable[Item], total: int, label: str) -> Iterator[Item]:
    """Yields the items, showing a progress bar on a terminal and about ten lines elsewhere."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import track as bar

        yield from bar(items, description=label, total=total, console=Console(stderr=True))
        return
    started = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        if done == total or done % max(total // 10, 1) == 0:
            print(f"{label}: {done}/{total}, {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)


def peak_memory() -> str:
    """Says how much memory this process has used at most, of the machine and of its GPU."""
    import resource

    import torch

    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    gpu = f", GPU {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB" if torch.cuda.is_available() else ""
    return f"peak memory {host / 2**30:.2f} GiB{gpu}"
