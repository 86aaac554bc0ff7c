"""Trains the same forecaster with each position encoding and several seeds, and measures what each is good for.

    python scripts/position_study.py configs/study/positions.yaml [--minutes 9] [--device cuda] [--set key=value]

position_study.sh makes the data first and starts several processes.

Every finished cell (encoding, seed) is a line of OUTPUT/results.jsonl: the same command goes on where it stopped, also
in the middle of a training, and then draws the table and the figure anew (position_table.py). Several processes of the
same command, on one GPU or more, share the cells.
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
from position_measures import MeasureOptions, Measures
from position_table import read_rows, write_report

from ladcast.config import ConfigError, load_config, to_plain
from ladcast.data.loading.datasets import LatentDataset
from ladcast.forecasting.checkpoints import load_codec
from ladcast.forecasting.codec import LatentCodec
from ladcast.forecasting.forecaster import Forecaster
from ladcast.nn.position import POSITION_ENCODINGS
from ladcast.recipes.forecaster import ForecasterRun, forecast_loss, new_forecaster, read_latents, token_rows
from ladcast.training.distributed import Ranks
from ladcast.training.logs import TrainingLog
from ladcast.training.loop import Surroundings, fit
from ladcast.training.push_forward import DiffusionObjective

AREA = "+area"
ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class PositionStudy:
    """Describes the study: what is trained, with which encodings and seeds, and how it is measured."""

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


def build(run: ForecasterRun, codec: LatentCodec, encoding: str) -> Forecaster:
    """Builds a forecaster with fresh weights and this encoding."""
    position, weighted = encoding.removesuffix(AREA), encoding.endswith(AREA)
    torch.manual_seed(run.training.seed)
    return new_forecaster(replace(run, model=replace(run.model, position=position, area_weighted=weighted)), codec)


def train(run: ForecasterRun, forecaster: Forecaster, data: LatentDataset, folder: Path) -> dict[str, float]:
    """Trains the forecaster in place, going on from `folder`; returns what it cost."""
    log = TrainingLog(folder / "log.jsonl", run.training.steps)
    on_gpu = forecaster.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(forecaster.device)
    rows = token_rows(forecaster.grid, forecaster.config.autoencoder).to(forecaster.device)
    loss = forecast_loss(DiffusionObjective(run.noise, rows, run.push_forward))
    around = Surroundings(folder / "resume", log, Ranks(device=forecaster.device))
    weights = fit(forecaster.stepper.network, loss, data, run.training, around)
    forecaster.stepper.network.load_state_dict(weights)
    forecaster.stepper.network.eval()
    cost = {"parameters": float(sum(parameter.numel() for parameter in forecaster.stepper.network.parameters()))}
    return {**cost, "gib": torch.cuda.max_memory_allocated(forecaster.device) / 2**30} if on_gpu else cost


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


def run_cell(study: PositionStudy, encoding: str, seed: int, folder: Path, device: str | None) -> dict[str, Any]:
    """Trains and measures one cell."""
    torch.compiler.reset()  # each encoding brings kernels of its own, and torch keeps few of them
    run = load_config(study.forecaster, ForecasterRun, [*study.overrides, f"training.seed={seed}"])
    codec = load_codec(run.autoencoder, device)
    data, codec.latent_scale = read_latents(run, codec.static.device if run.data_on_gpu else torch.device("cpu"))
    forecaster = build(run, codec, encoding)
    started = time.monotonic()
    cost = train(run, forecaster, data, folder)
    trained = time.monotonic()
    measures = Measures(study.measures, run, forecaster, data)
    row = {**cost, **measures.losses(), "train_s": trained - started}
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
