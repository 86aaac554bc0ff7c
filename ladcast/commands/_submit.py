"""`ladcast submit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from ladcast.commands.common import FLAT, Overrides, Results
from ladcast.training.slurm import Submission


def submit_train(config: Path, *, overrides: Overrides = (), submission: Annotated[Submission, FLAT]) -> Results:
    """Check a training run, print its plan and its script, and submit it to SLURM.

    Args:
        config: YAML file, such as configs/train/era5_375m_forecaster.yaml.
        overrides: settings that win over the file, such as training.steps=100.
        submission: how to submit it.
    """
    from ladcast.commands.submit import submit_training

    report = submit_training(config, overrides, submission)
    print(report)
    return {"submission": report}
