"""`ladcast train`: autoencoder, forecaster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from ladcast.commands.options import FLAT, Overrides, Results, report_paths
from ladcast.recipes.options import TRAIN, DryRun
from ladcast.training.interruption import Interruption

DryRunFlags = Annotated[DryRun, FLAT]


def autoencoder(
    config: Path, *, overrides: Overrides = (), device: str | None = None, dry_run: DryRunFlags = TRAIN
) -> Results:
    """Train an autoencoder; a run that was stopped goes on.

    Args:
        config: YAML file, such as configs/train/nature_autoencoder.yaml.
        overrides: settings that win over the file, such as training.steps=100.
        device: cpu or cuda; a GPU where there is one.
        dry_run: what to do instead of training.
    """
    with Interruption() as interruption:
        from ladcast.recipes.autoencoder import train_autoencoder

        folder = train_autoencoder(config, overrides, device=device, dry_run=dry_run, interrupted=interruption)
    return {} if folder is None else report_paths(autoencoder=folder)


def forecaster(
    config: Path, *, overrides: Overrides = (), device: str | None = None, dry_run: DryRunFlags = TRAIN
) -> Results:
    """Train a forecaster on latents; a run that was stopped goes on.

    Args:
        config: YAML file, such as configs/train/nature_forecaster.yaml.
        overrides: settings that win over the file, such as training.steps=100.
        device: cpu or cuda; a GPU where there is one.
        dry_run: what to do instead of training.
    """
    with Interruption() as interruption:
        from ladcast.recipes.forecaster import train_forecaster

        folder = train_forecaster(config, overrides, device=device, dry_run=dry_run, interrupted=interruption)
    return {} if folder is None else report_paths(forecaster=folder)
