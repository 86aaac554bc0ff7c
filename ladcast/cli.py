"""The command `ladcast`: arguments only. Heavy libraries are imported when a command runs, not for `--help`."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from ladcast.tasks.installed import DEFAULT_MODEL, find_model
from ladcast.tasks.release import DEFAULT_ASSETS, DEFAULT_LOCATION, Assets, Location
from ladcast.tasks.request import ForecastRequest
from ladcast.tasks.score_request import EvaluationRequest, ScoreRequest, Scoring

app = App(
    name="ladcast",
    help="Calibrated global ensemble forecasts from one analysis.",
    result_action="return_value",
)
train_app = App(name="train", help="Train a model that a YAML configuration describes.")
weights_app = App(name="weights", help="Install released weights, check them and list what there is.")
app.command(train_app)
app.command(weights_app)

DEFAULT_REQUEST = ForecastRequest()
DEFAULT_PLACE = "Paris,48.9,2.3"
DEFAULT_SCORING = Scoring()
Overrides = Annotated[tuple[str, ...], Parameter(name="--set", consume_multiple=True)]


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
        score(request.output, request=ScoreRequest(truth, folder.climatology))
    if draw and request.members > 1:
        plot(request.output, truth=truth, place=place, lead_days=min(5, request.days))


@app.command
def score(
    *forecasts: Path,
    request: Annotated[ScoreRequest, Parameter(name="*")],
    scoring: Annotated[Scoring, Parameter(name="*")] = DEFAULT_SCORING,
) -> None:
    """Score forecasts against the truth, beside persistence, climatology and other systems on the same dates.

    Args:
        forecasts: forecast stores of one system, each with other starts.
        request: what to compare with.
        scoring: what to compute, where, and which share of it.
    """
    from ladcast.tasks.score import score_forecasts
    from ladcast.tasks.score_report import report
    from ladcast.tasks.sums import keep_sums

    if not forecasts:
        raise ValueError("There is nothing to score: name at least one forecast store.")
    systems, notes = score_forecasts(forecasts, request, scoring)
    print("\n".join(notes))
    if scoring.sums is not None:
        label = f"{request.name}-{(scoring.part or '1/1').replace('/', '-of-')}"
        print(f"sums {keep_sums(systems, scoring.sums, label)}")
    if scoring.part is not None:
        return
    output = request.output or forecasts[0].with_suffix(".scores.nc")
    provenance = {"forecast": ", ".join(path.name for path in forecasts), "truth": request.truth.name}
    report(systems, output, request.scorecard, block_days=scoring.block_days, about=provenance, notes=notes)


@app.command
def evaluate(
    store: Path,
    *,
    request: Annotated[EvaluationRequest, Parameter(name="*")],
    scoring: Annotated[Scoring, Parameter(name="*")] = DEFAULT_SCORING,
    model: str = DEFAULT_MODEL,
) -> None:
    """Make forecasts from many starts and score them at once; no fields are stored, and a stopped run goes on.

    Args:
        store: states to start from, which are also the truth.
        request: which forecasts to make.
        scoring: what to compute, where, and which share of it.
        model: name of an embedded model, or a checkpoint folder.
    """
    from ladcast.tasks.evaluate import evaluate as make_and_score
    from ladcast.tasks.score_report import report

    systems = make_and_score(store, find_model(model), request, scoring)
    if scoring.part is not None:
        print(f"sums {scoring.sums}")
        return
    about = {"model": model, "truth": store.name, "members": str(request.members), "seed": str(request.seed)}
    report(systems, request.output, request.scorecard, block_days=scoring.block_days, about=about)


@app.command
def merge(
    sums: Path,
    *,
    first: str | None = None,
    output: Path = Path("scores.nc"),
    scorecard: Path | None = None,
    block_days: float = 10.0,
) -> None:
    """Merge the sums that several processes wrote to one folder: to the bit what one process would have found.

    Args:
        sums: folder that `ladcast score --sums` or `ladcast evaluate --sums` wrote.
        first: system that the others are compared with.
        output: netCDF file for all scores.
        scorecard: .png, .pdf or .svg file for a scorecard; curves by lead time are drawn beside it.
        block_days: length of the blocks of the bootstrap.
    """
    from ladcast.tasks.score_report import report
    from ladcast.tasks.sums import merge_sums

    systems, notes = merge_sums(sums, first)
    print("\n".join(notes))
    report(systems, output, scorecard, block_days=block_days, about={"sums": sums.name}, notes=notes)


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
def autoencoder(config: Path, *, overrides: Overrides = (), device: str | None = None) -> None:
    """Train an autoencoder; a run that was stopped goes on.

    Args:
        config: YAML file, such as configs/train/nature_autoencoder.yaml.
        overrides: settings that win over the file, such as training.steps=100.
        device: cpu or cuda; a GPU where there is one.
    """
    from ladcast.tasks.train_autoencoder import train_autoencoder

    print(f"autoencoder {train_autoencoder(config, overrides, device)}")


@train_app.command
def forecaster(config: Path, *, overrides: Overrides = (), device: str | None = None) -> None:
    """Train a forecaster on latents; a run that was stopped goes on.

    Args:
        config: YAML file, such as configs/train/nature_forecaster.yaml.
        overrides: settings that win over the file, such as training.steps=100.
        device: cpu or cuda; a GPU where there is one.
    """
    from ladcast.tasks.train_forecaster import train_forecaster

    print(f"forecaster {train_forecaster(config, overrides, device)}")


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
