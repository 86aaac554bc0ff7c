"""The log of a training run: lines to read, a file of JSON lines, maps, and the trackers that draw its numbers.

Trackers are TensorBoard, Weights & Biases and MLflow.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True)
class Tracker:
    """Takes the numbers of each step, pictures (PNG), and the end of a run: functions of another program."""

    log: Callable[[int, dict[str, float]], None]
    show: Callable[[int, Path], None]
    close: Callable[[], None]


@dataclass(frozen=True)
class Validation:
    """The numbers that a validation has found, and maps (latitude, longitude) by channel and title."""

    numbers: dict[str, float]
    maps: Mapping[str, Mapping[str, xr.DataArray]] = field(default_factory=dict)
    title: str = ""
    """What the maps show."""


class TrainingLog:
    """Prints training numbers, appends them to a JSON-lines file, and hands them to trackers.

    A run that goes on from a checkpoint may write a step again: the last line of a step counts. A silent log, that of
    a rank other than the first, does nothing.
    """

    def __init__(self, path: Path, total_steps: int, *, trackers: Sequence[Tracker] = (), silent: bool = False) -> None:
        self.path, self.total_steps = path, total_steps
        self.trackers, self.silent = trackers, silent
        self.started = time.monotonic()
        self.first: tuple[int, float] | None = None
        """The first step that this run has logged, and when: from there on its speed is measured."""

    def __call__(self, step: int, values: dict[str, float], validation: Validation | None = None) -> None:
        """Records the numbers of one step, and draws the maps of a validation to `maps/` and for the trackers."""
        if self.silent:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        minutes = (time.monotonic() - self.started) / 60
        with self.path.open("a") as file:  # opened anew each time: a killed run leaves whole lines
            file.write(json.dumps({"step": step, "minutes": round(minutes, 3), **values}) + "\n")
        numbers = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        print(f"step {step}/{self.total_steps}  {minutes:.1f} min{self._left(step)}  {numbers}", flush=True)
        for tracker in self.trackers:
            tracker.log(step, values)
        if validation is not None and validation.maps:
            self._draw(step, validation)

    def _left(self, step: int) -> str:
        """Says how long the remaining steps will take, validations included, once there are two steps to tell by."""
        now = time.monotonic()
        first, since = self.first = self.first or (step, now)
        if not first < step < self.total_steps:
            return ""
        minutes = (now - since) / (step - first) * (self.total_steps - step) / 60
        return f", {minutes:.1f} min left" if minutes < 100 else f", {minutes / 60:.1f} h left"

    def _draw(self, step: int, validation: Validation) -> None:
        from ladcast.plots.maps import draw_comparison
        from ladcast.plots.style import save_figure

        figure = draw_comparison(validation.maps, f"{validation.title}, step {step} of the training")
        picture = self.path.parent / f"maps/step-{step:010d}.png"
        save_figure(figure, picture)
        for tracker in self.trackers:
            tracker.show(step, picture)

    def reading(self, done: int, total: int) -> None:
        """Prints now and then how much of the data is in memory."""
        if not self.silent and (done == total or done % max(total // 5, 1) == 0):
            print(f"read {done}/{total} blocks, {time.monotonic() - self.started:.0f} s", flush=True)

    def close(self) -> None:
        """Ends the trackers."""
        for tracker in self.trackers:
            tracker.close()


def open_trackers(names: Sequence[str] | None, folder: Path, settings: dict[str, Any]) -> list[Tracker]:
    """Opens trackers by name for the run in `folder`; with None, TensorBoard where it is installed.

    None of them needs the network, unless its own variables say so: W&B is offline without WANDB_MODE, MLflow writes
    to a file in `folder` without MLFLOW_TRACKING_URI.

    Raises:
        ValueError: an unknown name, or a tracker that is not installed.
    """
    return [TRACKERS[name](folder, settings) for name in find_trackers(names)]


def find_trackers(names: Sequence[str] | None) -> Sequence[str]:
    """Returns the names of the trackers to use, or raises as `open_trackers` does."""
    if names is None:
        return ["tensorboard"] if find_spec("tensorboard") else []
    unknown = sorted(set(names) - set(TRACKERS))
    if unknown:
        raise ValueError(f"Unknown trackers {', '.join(unknown)}. Known trackers: {', '.join(TRACKERS)}.")
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise ValueError(
            f"Trackers that are not installed: {', '.join(missing)}. Run `pip install 'ladcast[track]'`, "
            "or leave them out."
        )
    return names


def tensorboard(folder: Path, settings: dict[str, Any]) -> Tracker:
    """Opens event files in `tensorboard/`."""
    from torch.utils.tensorboard import SummaryWriter

    writer: Any = SummaryWriter(str(folder / "tensorboard"))

    def log(step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, step)
        writer.flush()

    def show(step: int, picture: Path) -> None:
        from matplotlib.image import imread

        writer.add_image(picture.parent.name, imread(picture), step, dataformats="HWC")
        writer.flush()

    return Tracker(log, show, writer.close)


def weights_and_biases(folder: Path, settings: dict[str, Any]) -> Tracker:
    """Opens the W&B run of this folder, which goes on after an interruption."""
    wandb: Any = import_module("wandb")
    mode = os.environ.get("WANDB_MODE", "offline")
    run: Any = wandb.init(
        project="ladcast",
        name="/".join(folder.resolve().parts[-2:]),
        id=_identity(folder / "wandb.id", lambda: uuid4().hex),
        dir=folder,
        config=settings,
        mode=mode,
        resume="allow",
    )
    return Tracker(
        lambda step, values: run.log(values, step=step),
        lambda step, picture: run.log({picture.parent.name: wandb.Image(str(picture))}, step=step),
        run.finish,
    )


def mlflow_run(folder: Path, settings: dict[str, Any]) -> Tracker:
    """Opens an MLflow run of the experiment of this folder."""
    mlflow: Any = import_module("mlflow")
    if "MLFLOW_TRACKING_URI" not in os.environ:
        mlflow.set_tracking_uri(f"sqlite:///{folder.resolve() / 'mlflow.db'}")
        if mlflow.get_experiment_by_name(folder.name) is None:
            mlflow.create_experiment(folder.name, artifact_location=str(folder.resolve() / "mlflow"))
    mlflow.set_experiment(folder.name)

    def begin() -> str:
        with mlflow.start_run() as run:
            return str(run.info.run_id)

    mlflow.start_run(run_id=_identity(folder / "mlflow.id", begin))
    return Tracker(
        lambda step, values: mlflow.log_metrics(values, step=step),
        lambda step, picture: mlflow.log_artifact(str(picture), picture.parent.name),
        mlflow.end_run,
    )


def _identity(path: Path, create: Callable[[], str]) -> str:
    """Returns the name that a tracker knows this run by, which the run keeps when it goes on."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(create())
    return path.read_text()


TRACKERS: dict[str, Callable[[Path, dict[str, Any]], Tracker]] = {
    "tensorboard": tensorboard,
    "wandb": weights_and_biases,
    "mlflow": mlflow_run,
}
