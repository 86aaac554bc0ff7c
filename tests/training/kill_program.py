"""Kills a training run after random numbers of steps: kill_program.py FOLDER KILLS INTERVAL BACKGROUND.

Prints a line for each kill: the last step of the log, and the step of the snapshot that the next start takes; at the
end, whether the run ended in the weights of an uninterrupted one. The runs are forks of this process, which start at
once.
"""

import json
import os
import random
import signal
import sys
import time
import traceback
import warnings
from dataclasses import replace
from pathlib import Path

import torch
from ranks_program import Waves, loss, new_model

from ladcast.data.batches import SampleOrder
from ladcast.training.loop import TrainingContext, TrainingState, fit
from ladcast.training.options import OptimizerOptions, TrainingOptions
from ladcast.training.snapshots import Snapshots


def train(folder: Path, options: TrainingOptions) -> None:
    def log(step: int, numbers: dict[str, float]) -> None:
        with (folder / "log").open("a") as file:
            file.write(f"{step}\n")

    weights = fit(new_model(), loss, Waves(), options, TrainingContext(folder / "resume", log))
    torch.save(weights, folder / "weights.pt")


def fork(folder: Path, options: TrainingOptions) -> int:
    """Starts a run in a child process and returns its number."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            warnings.simplefilter("ignore")
            torch.set_num_threads(1)  # PyTorch renews its pool after a fork, which two threads must not ask for
            train(folder, options)
            status = 0
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            os._exit(status)
    return child


def last_step(log: Path) -> int:
    """Returns the last step that a log tells of whole; 0 without one."""
    *lines, _ = log.read_text().split("\n") if log.exists() else [""]
    return int(lines[-1]) if lines else 0


def saved_step(folder: Path, options: TrainingOptions) -> int:
    """Returns the step that the next start goes on from, having loaded all of it; 0 without a snapshot."""
    state = TrainingState(new_model(), options, SampleOrder(len(Waves()), options.batch_size))
    with Snapshots(folder / "resume") as snapshots:
        state.restore(snapshots)
    good = sorted(path.name for path in (folder / "resume").glob("step-*"))
    assert len(good) <= 3, good
    assert state.step == 0 or json.loads((folder / "resume" / good[-1] / "manifest.json").read_text())["sha256"]
    return state.step


def main(folder: Path, kills: int, interval: int, background: bool) -> None:
    warnings.simplefilter("error", UserWarning)  # such as a damaged snapshot
    options = TrainingOptions(
        steps=100_000,
        batch_size=4,
        ema_decay=0.9,
        log_every=1,
        checkpoint_every=interval,
        checkpoint_in_background=background,
        optimizer=OptimizerOptions(learning_rate=0.001, warmup_steps=200_000),  # does not depend on `steps`
    )
    killed, whole, warm = folder / "killed", folder / "whole", folder / "warm"
    for place in (killed, whole, warm):
        place.mkdir()
    train(warm, replace(options, steps=interval))  # imports all that the forks need
    moments, saved, log = random.Random(0), 0, killed / "log"
    for _ in range(kills):
        child, steps = fork(killed, options), moments.randint(1, 3 * interval)
        while last_step(log) < saved + steps and os.waitpid(child, os.WNOHANG) == (0, 0):
            time.sleep(0.002)
        time.sleep(moments.uniform(0, 0.02))  # into the midst of a step or of what is written after it
        os.kill(child, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        reached, saved = last_step(log), saved_step(killed, options)
        print(reached, saved, flush=True)
        log.write_text(f"{saved}\n")
    end = replace(options, steps=saved + interval)
    for place in (killed, whole):
        assert os.waitpid(fork(place, end), 0)[1] == 0
    first, second = (torch.load(place / "weights.pt") for place in (killed, whole))
    same = all(torch.equal(first[name], second[name]) for name in second)
    print("same" if same else "other", "weights")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "true")
