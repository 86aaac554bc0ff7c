"""Trackers get the numbers of the log; they are found by name."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

from ladcast.grid import Grid
from ladcast.plots.style import save_figure
from ladcast.training.logs import Tracker, TrainingLog, Validation, open_trackers

GRID = Grid.parse("24x13")
FIELD = xr.DataArray(
    np.random.default_rng(0).random(GRID.shape),
    {"latitude": list(GRID.latitude), "longitude": list(GRID.longitude)},
    ("latitude", "longitude"),
)


@pytest.mark.slow
def test_the_log_hands_its_numbers_on(tmp_path: Path):
    seen: list[tuple[object, ...]] = []

    def recorder(name: str) -> Tracker:
        return Tracker(
            lambda step, values: seen.append((name, step, values)),
            lambda step, picture: seen.append((name, step, picture)),
            lambda: seen.append((name, "closed")),
        )

    for name in ("told", "silent"):
        log = TrainingLog(tmp_path / "log.jsonl", 3, trackers=[recorder(name)], silent=name == "silent")
        log(2, {"loss": 0.5}, Validation({}, {"z500": {"truth": FIELD}}, "Title"))
        log.close()
    told = [("told", 2, {"loss": 0.5}), ("told", 2, tmp_path / "maps/step-0000000002.png"), ("told", "closed")]
    assert seen == [*told, ("silent", "closed")]
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 1


def test_the_log_says_how_long_it_will_take(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    log = TrainingLog(tmp_path / "log.jsonl", 4)
    log(1, {"loss": 0.5})
    log.first = (1, time.monotonic() - 60)  # a step a minute
    for step in (2, 4):
        log(step, {"loss": 0.5})
    first, second, last = capsys.readouterr().out.splitlines()
    assert "2.0 min left" in second
    assert "left" not in first + last


def test_tensorboard_keeps_every_number(tmp_path: Path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (tracker,) = open_trackers(None, tmp_path, {})
    for step in (1, 2):
        tracker.log(step, {"loss": 1 / step})
    picture = tmp_path / "maps/step-2.png"
    save_figure(Figure(), picture)
    tracker.show(2, picture)
    tracker.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 1.0), (2, 0.5)]
    assert [event.step for event in events.Images("maps")] == [2]


def test_an_unknown_tracker_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match=r"Unknown trackers tensorbord\. Known trackers: tensorboard, wandb, mlflow"):
        open_trackers(["tensorbord"], tmp_path, {})


def test_a_tracker_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ladcast.training.logs.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="not installed: wandb"):
        open_trackers(["wandb"], tmp_path, {})
    assert open_trackers(None, tmp_path, {}) == []


WITHOUT_CARTOPY = """
import sys
sys.modules["cartopy"] = None
from ladcast.cli import app, run
for which in ("autoencoder", "forecaster"):
    try:
        run(app, ["train", which, f"configs/train/nature_{which}.yaml", "--set", "training.steps=1"])
    except SystemExit as end:
        print(which, end.code)
"""


@pytest.mark.slow
def test_a_run_that_could_not_draw_its_validation_ends_before_it_begins():
    """Without cartopy, by exit code 6 (software), not at the first checkpoint; with it, these data are missing."""
    command = [sys.executable, "-c", WITHOUT_CARTOPY]
    answer = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert answer.stdout.splitlines() == ["autoencoder 6", "forecaster 6"], answer.stderr
    assert answer.stderr.count("cartopy") >= 2
