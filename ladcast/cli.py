"""The command `ladcast`: arguments only. Heavy libraries are imported when a command runs, not for `--help`."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from ladcast.tasks.installed import DEFAULT_MODEL, find_model
from ladcast.tasks.interruption import Interruption
from ladcast.tasks.release import DEFAULT_ASSETS, DEFAULT_LOCATION, Assets, Location
from ladcast.tasks.request import ForecastRequest
from ladcast.tasks.slurm import Submission
from ladcast.tasks.trial import NO_TRIAL, Trial

app = App(
    name="ladcast",
    help="Calibrated global ensemble forecasts from one analysis.",
    result_action="return_value",
)
train_app = App(name="train", help="Train a model that a YAML configuration describes.")
weights_app = App(name="weights", help="Install released weights, check them and list what there is.")
submit_app = App(name="submit", help="Hand a job to the SLURM queue of a cluster.")
app.command(train_app)
app.command(submit_app)
app.command(weights_app)

DEFAULT_REQUEST = ForecastRequest()
DEFAULT_PLACE = "Paris,48.9,2.3"
Overrides = Annotated[tuple[str, ...], Parameter(name="--set", consume_multiple=True)]
TrialFlags = Annotated[Trial, Parameter(name="*")]


@app.command
def forecast(
    request: Annotated[ForecastRequest, Parameter(name="*")] = DEFAULT_REQUEST,
    *,
    model: str = DEFAULT_MODEL,
    place: str = DEFAULT_PLACE,
    draw: bool = True,
) -> None:
    """Make an ensemble forecast and draw it; one from the model's own start states is also scored.

    Args:
        request: what to forecast, from what, and where to write it.
        model: name of an embedded model, or a checkpoint folder.
        place: place of the plume, as Name,latitude,longitude.
        draw: draw the page beside the forecast.
    """
    from ladcast.tasks.forecast import forecast as make_forecast

    folder = find_model(model)
    print(f"forecast {make_forecast(request, folder)}")
    truth = folder.truth if request.source is None else None
    if truth is not None:
        score(request.output, truth=truth, climatology=folder.climatology)
    if draw and request.members > 1:
        plot(request.output, truth=truth, place=place, lead_days=min(5, request.days))


@app.command
def score(forecast: Path, *, truth: Path, climatology: Path | None = None, output: Path | None = None) -> None:
    """Score a forecast against the truth, beside persistence and climatology.

    Args:
        forecast: forecast store.
        truth: Zarr store or netCDF file that holds the valid times, on the grid of the forecast.
        climatology: file that `ladcast-data climatology` wrote.
        output: netCDF file for all scores; by default beside the forecast.
    """
    from ladcast.tasks.score import score_forecast, table, write_scores

    metrics = score_forecast(forecast, truth, climatology)
    print(table(metrics))
    print(f"scores {write_scores(metrics, forecast, output or forecast.with_suffix('.scores.nc'))}")


@app.command
def plot(
    forecast: Path,
    *,
    truth: Path | None = None,
    output: Path | None = None,
    place: str = DEFAULT_PLACE,
    lead_days: int = 5,
) -> None:
    """Draw one page: ensemble mean and spread on maps, and the plume of one place.

    Args:
        forecast: forecast store.
        truth: Zarr store or netCDF file to draw beside the plume.
        output: .png, .pdf or .svg file; by default beside the forecast.
        place: place of the plume, as Name,latitude,longitude.
        lead_days: lead time of the maps.
    """
    from ladcast.tasks.plot import plot_forecast

    page = output or forecast.with_suffix(".png")
    print(f"page {plot_forecast(forecast, page, place=place, truth_path=truth, lead_days=lead_days)}")


@app.command
def show(path: str = DEFAULT_MODEL) -> None:
    """Describe a model or a forecast store.

    Args:
        path: name of an embedded model, a checkpoint folder, or a forecast store.
    """
    from ladcast.tasks.show import show as describe

    print(describe(path))


@train_app.command
def autoencoder(
    config: Path, *, overrides: Overrides = (), device: str | None = None, trial: TrialFlags = NO_TRIAL
) -> None:
    """Train an autoencoder; a run that was stopped goes on.

    Args:
        config: YAML file, such as configs/train/nature_autoencoder.yaml.
        overrides: settings that win over the file, such as training.steps=100.
        device: cpu or cuda; a GPU where there is one.
        trial: what to try instead of training.
    """
    with Interruption() as interruption:
        from ladcast.tasks.train_autoencoder import train_autoencoder

        folder = train_autoencoder(config, overrides, device=device, trial=trial, interrupted=interruption)
    if folder is not None:
        print(f"autoencoder {folder}")


@train_app.command
def forecaster(
    config: Path, *, overrides: Overrides = (), device: str | None = None, trial: TrialFlags = NO_TRIAL
) -> None:
    """Train a forecaster on latents; a run that was stopped goes on.

    Args:
        config: YAML file, such as configs/train/nature_forecaster.yaml.
        overrides: settings that win over the file, such as training.steps=100.
        device: cpu or cuda; a GPU where there is one.
        trial: what to try instead of training.
    """
    with Interruption() as interruption:
        from ladcast.tasks.train_forecaster import train_forecaster

        folder = train_forecaster(config, overrides, device=device, trial=trial, interrupted=interruption)
    if folder is not None:
        print(f"forecaster {folder}")


@submit_app.command(name="train")
def submit_train(
    config: Path, *, overrides: Overrides = (), submission: Annotated[Submission, Parameter(name="*")]
) -> None:
    """Check a training run, print its plan and its script, and submit it to SLURM.

    Args:
        config: YAML file, such as configs/train/era5_forecaster_375m.yaml.
        overrides: settings that win over the file, such as training.steps=100.
        submission: how to submit it.
    """
    from ladcast.tasks.submit import submit_training

    print(submit_training(config, overrides, submission))


@weights_app.command
def fetch(
    name: str,
    location: Annotated[Location, Parameter(name="*")] = DEFAULT_LOCATION,
    *,
    assets: Annotated[Assets, Parameter(name="*")] = DEFAULT_ASSETS,
) -> None:
    """Fetch a released model from the Hugging Face hub (needs the network) and install it with all it needs.

    Args:
        name: ladcast-375m, ladcast-1p6b, or a name of your own with --repository.
        location: where the weights lie.
        assets: what the networks need beside their weights.
    """
    from ladcast.tasks.weights import fetch_weights

    print(f"model {fetch_weights(name, location, assets)}")


@weights_app.command(name="import")
def import_(
    name: str,
    *,
    transformer: Path,
    autoencoder: Path,
    assets: Annotated[Assets, Parameter(name="*")] = DEFAULT_ASSETS,
) -> None:
    """Install a released model from two folders on this machine; no network is needed.

    Args:
        name: ladcast-375m, ladcast-1p6b, or a name of your own.
        transformer: folder with config.json and safetensors.
        autoencoder: folder with config.json and safetensors.
        assets: what the networks need beside their weights.
    """
    from ladcast.tasks.weights import import_weights

    print(f"model {import_weights(name, transformer, autoencoder, assets)}")


@weights_app.command
def verify(model: str) -> None:
    """Check every file of a model against its SHA-256, or a folder in the public layout for completeness.

    Args:
        model: name of a model, its folder, or a folder with config.json and safetensors.
    """
    from ladcast.tasks.weights import verify_weights

    print(verify_weights(model))


@weights_app.command(name="show")
def show_weights(repository: str | None = None, *, revision: str | None = None) -> None:
    """List the models at hand, or the networks in a repository of the hub (needs the network).

    Args:
        repository: owner/name of a repository, such as tonyzyl/ladcast.
        revision: branch, tag or commit.
    """
    from ladcast.tasks.weights import show_weights as describe

    print(describe(repository, revision))


def run(application: App, tokens: list[str] | None = None) -> None:
    """Runs an application; a wrong input ends with one message, an interruption with how to go on."""
    warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part in the Zarr format 3")
    try:
        application(tokens)
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        sys.exit(f"{application.name[0]}: {error}")
    except KeyboardInterrupt:
        print(
            "Interrupted. What is written so far is kept: run the same command again to go on.",
            file=sys.stderr,
        )
        sys.exit(130)


def main() -> None:
    """Runs `ladcast`."""
    run(app)


if __name__ == "__main__":
    main()
