"""Commands that train models, and install released ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ladcast.cli.common import Overrides, Results, told
from ladcast.recipes.trial import NO_TRIAL, Trial
from ladcast.released.registry import DEFAULT_ASSETS, DEFAULT_LOCATION, Assets, Location
from ladcast.training.interruption import Interruption
from ladcast.training.slurm import Submission

TrialFlags = Annotated[Trial, Parameter(name="*")]


def autoencoder(
    config: Path, *, overrides: Overrides = (), device: str | None = None, trial: TrialFlags = NO_TRIAL
) -> Results:
    """Train an autoencoder; a run that was stopped goes on.

    Args:
        config: YAML file, such as configs/train/nature_autoencoder.yaml.
        overrides: settings that win over the file, such as training.steps=100.
        device: cpu or cuda; a GPU where there is one.
        trial: what to try instead of training.
    """
    with Interruption() as interruption:
        from ladcast.recipes.autoencoder import train_autoencoder

        folder = train_autoencoder(config, overrides, device=device, trial=trial, interrupted=interruption)
    return {} if folder is None else told(autoencoder=folder)


def forecaster(
    config: Path, *, overrides: Overrides = (), device: str | None = None, trial: TrialFlags = NO_TRIAL
) -> Results:
    """Train a forecaster on latents; a run that was stopped goes on.

    Args:
        config: YAML file, such as configs/train/nature_forecaster.yaml.
        overrides: settings that win over the file, such as training.steps=100.
        device: cpu or cuda; a GPU where there is one.
        trial: what to try instead of training.
    """
    with Interruption() as interruption:
        from ladcast.recipes.forecaster import train_forecaster

        folder = train_forecaster(config, overrides, device=device, trial=trial, interrupted=interruption)
    return {} if folder is None else told(forecaster=folder)


def submit_train(
    config: Path, *, overrides: Overrides = (), submission: Annotated[Submission, Parameter(name="*")]
) -> Results:
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


def fetch(
    name: str,
    location: Annotated[Location, Parameter(name="*")] = DEFAULT_LOCATION,
    *,
    assets: Annotated[Assets, Parameter(name="*")] = DEFAULT_ASSETS,
) -> Results:
    """Fetch a released model from the Hugging Face hub (needs the network) and install it with all it needs.

    Args:
        name: ladcast-375m, ladcast-1p6b, or a name of your own with --repository.
        location: where the weights lie.
        assets: what the networks need beside their weights.
    """
    from ladcast.released.install import fetch_weights

    return told(model=fetch_weights(name, location, assets))


def import_(
    name: str,
    *,
    transformer: Path,
    autoencoder: Path,
    assets: Annotated[Assets, Parameter(name="*")] = DEFAULT_ASSETS,
) -> Results:
    """Install a released model from two folders on this machine; no network is needed.

    Args:
        name: ladcast-375m, ladcast-1p6b, or a name of your own.
        transformer: folder with config.json and safetensors.
        autoencoder: folder with config.json and safetensors.
        assets: what the networks need beside their weights.
    """
    from ladcast.released.install import import_weights

    return told(model=import_weights(name, transformer, autoencoder, assets))


def verify(model: str) -> Results:
    """Check every file of a model against its SHA-256, or a folder in the public layout for completeness.

    Args:
        model: name of a model, its folder, or a folder with config.json and safetensors.
    """
    from ladcast.released.install import verify_weights

    report = verify_weights(model)
    print(report)
    return {"report": report}


def show_weights(repository: str | None = None, *, revision: str | None = None) -> Results:
    """List the models at hand, or the networks in a repository of the hub (needs the network).

    Args:
        repository: owner/name of a repository, such as tonyzyl/ladcast.
        revision: branch, tag or commit.
    """
    from ladcast.released.install import show_weights as describe

    description = describe(repository, revision)
    print(description)
    return {"description": description}
