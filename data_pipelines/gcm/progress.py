"""Progress of a simulation: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def progress(total_days: float, title: str, done_days: float = 0) -> Iterator[Callable[[float], None]]:
    """Yields a function to call after each step with the days it simulated, summed over all trajectories."""
    console = Console()
    last, done = time.monotonic(), done_days

    def rate(days: float) -> str:
        nonlocal last, done
        now = time.monotonic()
        per_minute = days / max(now - last, 1e-9) * 60
        last, done = now, done + days
        return f"{per_minute:,.0f} simulated days per minute"

    if not console.is_terminal:
        yield lambda days: print(f"{title}: {rate(days)}, {done:g} of {total_days:g} days", flush=True)
        return
    speed = TextColumn("{task.fields[rate]}")
    with Progress(TextColumn(title), BarColumn(), speed, TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task(title, total=total_days, rate="compiling")
        bar.advance(task, done_days)
        yield lambda days: bar.update(task, advance=days, rate=rate(days))
