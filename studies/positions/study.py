"""Trains the same forecaster with each position encoding and several seeds, and measures what each is good for.

    python -m studies.positions.study studies/positions/positions.yaml [--minutes 9] [--device cuda] [--set key=value]

runs from the folder of the repository; scripts/position_study.sh makes the data first and starts several processes.

Every finished cell (encoding, seed) is a line of OUTPUT/results.jsonl: the same command goes on where it stopped, also
in the middle of a training, and then draws the table and the figure anew (report.py). Several processes of the same
command, on one GPU or more, share the cells.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ladcast.config import ConfigError, load_config, to_plain
from ladcast.device import find_device
from ladcast.nn.position import POSITION_ENCODINGS
from ladcast.recipes.forecaster import ForecasterRecipe, ForecasterRun
from ladcast.recipes.recipe import prepare
from ladcast.training.distributed import Ranks
from ladcast.training.logs import TrainingLog
from ladcast.training.loop import TrainingContext, fit
from studies.positions.measures import MeasureOptions, Measures
from studies.positions.report import read_rows, write_report

AREA = "+area"
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class PositionStudy:
    """The configuration of the study: what is trained, with which encodings and seeds, and how it is measured."""

    forecaster: Path
    """Configuration of the training run."""
    encodings: tuple[str, ...]
    """Names in `POSITION_ENCODINGS`; the suffix `+area` weighs attention by cell area."""
    seeds: tuple[int, ...]
    measures: MeasureOptions
    output: Path
    overrides: tuple[str, ...] = ()
    """Settings of the training run that win over its file."""

    def __post_init__(self) -> None:
        known = {name + suffix for name in POSITION_ENCODINGS for suffix in ("", AREA)}
        if unknown := sorted(set(self.encodings) - known):
            raise ConfigError(f"Expected encodings out of {sorted(known)}, got {unknown}.")

    @property
    def digest(self) -> str:
        """Returns a short name of what is trained and how it is measured, wherever the repository lies."""
        run = to_plain(load_config(self.forecaster, ForecasterRun, self.overrides))
        del run["output"], run["training"]["seed"]
        # Of settings that are younger than the first results, the study has the one value that those were made with.
        del run["stepper"], run["objective"], run["frames"]["step_hours"]
        settings = json.dumps(_portable([run, to_plain(self)["measures"]]), sort_keys=True)
        return hashlib.sha256(settings.encode()).hexdigest()[:12]

    def cells(self) -> Iterator[tuple[str, int]]:
        """Yields (encoding, seed), so that the first seeds of all encodings come first."""
        return ((encoding, seed) for seed in self.seeds for encoding in self.encodings)


def _portable(settings: Any) -> Any:
    """Returns the settings with paths as seen from the repository."""
    if isinstance(settings, dict):
        return {key: _portable(value) for key, value in settings.items()}
    if isinstance(settings, list | tuple):
        return [_portable(value) for value in settings]
    if isinstance(settings, str) and "/" in settings:
        return os.path.relpath(settings, ROOT)
    return settings


@contextmanager
def claimed(folder: Path) -> Iterator[bool]:
    """Keeps other processes from a cell, and says whether none of them has it; a killed process lets go."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = True
        except BlockingIOError:
            free = False
        yield free


def recipe_of(study: PositionStudy, encoding: str, seed: int, device: torch.device) -> ForecasterRecipe:
    """Opens the training run of one cell."""
    run = load_config(study.forecaster, ForecasterRun, [*study.overrides, f"training.seed={seed}"])
    assert run.model is not None, "the study trains diffusion steppers"
    choice = {"position": encoding.removesuffix(AREA), "area_weighted": encoding.endswith(AREA)}
    size = {**(run.model or {}), **choice}
    return ForecasterRecipe.open(replace(run, model=size, validation=None), device)


def run_cell(study: PositionStudy, encoding: str, seed: int, folder: Path, device: str | None) -> dict[str, Any]:
    """Trains and measures one cell."""
    torch.compiler.reset()  # each encoding brings kernels of its own, and torch keeps few of them
    ranks = Ranks(device=find_device(device))
    on_gpu = ranks.device.type == "cuda"
    recipe = recipe_of(study, encoding, seed, ranks.device)
    log = TrainingLog(folder / "log.jsonl", recipe.run.training.steps)
    ready, started = prepare(recipe, ranks, log), time.monotonic()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(ranks.device)
    context = TrainingContext(folder / "resume", log, ranks)
    ready.network.load_state_dict(fit(ready.network, ready.loss, ready.data, recipe.run.training, context))
    ready.network.eval()
    row: dict[str, Any] = {"parameters": float(sum(parameter.numel() for parameter in ready.network.parameters()))}
    row |= {"gib": torch.cuda.max_memory_allocated(ranks.device) / 2**30} if on_gpu else {}
    trained = time.monotonic()
    measures = Measures(study.measures, recipe, recipe.forecaster(ready.network), ready.data)
    row |= {**measures.losses(), "train_s": trained - started}
    try:
        row |= measures.forecasts()
    except FloatingPointError as error:  # of a network that has not learned enough
        row["failed"] = str(error)
    shutil.rmtree(folder / "resume")
    return {**row, "measure_s": time.monotonic() - trained}


def main() -> None:
    """Runs the cells that are missing, then writes the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("--minutes", type=float, default=np.inf, help="begin no further cell after this time")
    parser.add_argument("--device")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    started = time.monotonic()
    study = load_config(arguments.config, PositionStudy, arguments.set)
    results = study.output / "results.jsonl"
    for encoding, seed in study.cells():
        if time.monotonic() - started > 60 * arguments.minutes:
            print(f"Stopped after {arguments.minutes:g} minutes: the same command goes on.")
            break
        folder = study.output / f"{encoding}-{seed}-{study.digest}"
        with claimed(folder) as free:
            done = {(row["encoding"], row["seed"]) for row in read_rows(results, study.digest)}
            if free and (encoding, seed) not in done:
                print(f"== {encoding}, seed {seed}", flush=True)
                values = run_cell(study, encoding, seed, folder, arguments.device)
                with results.open("a") as file:
                    file.write(json.dumps({"study": study.digest, "encoding": encoding, "seed": seed, **values}) + "\n")
    order = {encoding: index for index, encoding in enumerate(study.encodings)}
    rows = [row for row in read_rows(results, study.digest) if row["encoding"] in order]
    print(write_report(sorted(rows, key=lambda row: (order[row["encoding"]], row["seed"])), study.output))


if __name__ == "__main__":
    main()
