"""The log of a training run: lines to read, a file of JSON lines, maps, trackers."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ladcast.training.trackers import Tracker

if TYPE_CHECKING:
    import xarray as xr


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
        from ladcast.plots.style import save_figure

        figure = draw_comparison(maps, f"{title}, step {step} of the training")
        picture = self.path.parent / f"maps/step-{step:010d}.png"
        save_figure(figure, picture)
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
