"""Progress that people and log files can read: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ladcast.tasks.trackers import Tracker

if TYPE_CHECKING:
    import xarray as xr

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

    def draw(self, step: int, maps: Mapping[str, Mapping[str, xr.DataArray]], title: str) -> None:
        """Draws maps, (latitude, longitude) by channel and title, to `maps/` and for the trackers."""
        if self.silent or not maps:
            return
        from ladcast.plots.comparison import draw_comparison
        from ladcast.plots.page import save_page

        figure = draw_comparison(maps, f"{title}, step {step} of the training")
        picture = self.path.parent / f"maps/step-{step:010d}.png"
        save_page(figure, picture)
        for tracker in self.trackers:
            tracker.show(step, picture)

    def reading(self, done: int, total: int) -> None:
        """Tells now and then how much of the data is in memory."""
        if not self.silent and (done == total or done % max(total // 5, 1) == 0):
            print(f"read {done}/{total} blocks, {time.monotonic() - self.started:.0f} s", flush=True)

    def close(self) -> None:
        """Ends the trackers."""
        for tracker in self.trackers:
            tracker.close()


def track(
    items: Iterable[Item],
    total: int,
    label: str,
    *,
    weight: Callable[[Item], int] = lambda item: 1,
    unit: str = "",
) -> Iterator[Item]:
    """Yields the items, showing what is done and the time left: a bar on a terminal, about ten lines elsewhere.

    `total` is the sum of the items' weights, such as the members times lead times in each.
    """
    show = _bar if sys.stderr.isatty() else _lines
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
