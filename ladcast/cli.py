"""The command `ladcast`: arguments only. Heavy libraries are imported when a command runs, not for `--help`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from ladcast.tasks.export_request import ExportFormat
from ladcast.tasks.installed import DEFAULT_MODEL, find_model
from ladcast.tasks.outcome import JSON_FLAG, run
from ladcast.tasks.release import DEFAULT_ASSETS, DEFAULT_LOCATION, Assets, Location
from ladcast.tasks.request import ForecastRequest
from ladcast.tasks.selection import Selection
from ladcast.tasks.track_request import TrackRequest

app = App(
    name="ladcast",
    help="Calibrated global ensemble forecasts from one analysis.",
    help_epilogue=f"{JSON_FLAG} with any command: results become one JSON object on stdout, all else goes to stderr.",
    result_action="return_value",
    suppress_keyboard_interrupt=False,
)
plan_app = App(name="plan", help="Predict what a command will take, before it runs.")
products_app = App(name="products", help="Mean and spread, quantiles, probabilities, and series at places.")
train_app = App(name="train", help="Train a model that a YAML configuration describes.")
weights_app = App(name="weights", help="Install released weights, check them and list what there is.")
app.command(plan_app)
app.command(products_app)
app.command(train_app)
app.command(weights_app)
app.register_install_completion_command(help="Install completion of commands and options for your shell.")

DEFAULT_REQUEST = ForecastRequest()
WHOLE = Selection()
DEFAULT_FORMAT = ExportFormat()
Results = dict[str, Any]
"""What a command hands to machines that ask for JSON; people read what it prints."""
DEFAULT_TRACK = TrackRequest()
DEFAULT_PLACE = "Paris,48.9,2.3"
Several = Parameter(consume_multiple=True)
Overrides = Annotated[tuple[str, ...], Parameter(name="--set", consume_multiple=True)]


@app.command
def forecast(
    request: Annotated[ForecastRequest, Parameter(name="*")] = DEFAULT_REQUEST,
    *,
    model: str = DEFAULT_MODEL,
    place: str = DEFAULT_PLACE,
    draw: bool = True,
    dry_run: bool = False,
) -> Results:
    """Make an ensemble forecast and draw it; one from the model's own start states is also scored.

    Args:
        request: what to forecast, from what, and where to write it.
        model: name of an embedded model, or a checkpoint folder.
        place: place of the plume, as Name,latitude,longitude.
        draw: draw the page beside the forecast.
        dry_run: print what the forecast will take, as `ladcast plan forecast` does, and stop.
    """
    from ladcast.tasks.forecast import forecast as make_forecast

    if dry_run:
        return plan_forecast(request, model=model)
    folder = find_model(model)
    results = told(forecast=make_forecast(request, folder))
    truth = folder.truth if request.source is None else None
    if truth is not None:
        results |= score(request.output, truth=truth, climatology=folder.climatology)
    if draw and request.members > 1:
        results |= plot(request.output, truth=truth, place=place, lead_days=min(5, request.days))
    return results


@plan_app.command(name="forecast")
def plan_forecast(
    request: Annotated[ForecastRequest, Parameter(name="*")] = DEFAULT_REQUEST,
    *,
    model: str = DEFAULT_MODEL,
    tflops: float | None = None,
    fit_batch: bool = False,
) -> Results:
    """Predict calls, operations, time, memory and bytes on disk of a forecast; nothing is written.

    Args:
        request: the forecast, with the options of `ladcast forecast`.
        model: name of an embedded model, or a checkpoint folder.
        tflops: speed of the device in 10^12 operations a second; by default both networks are timed for a second.
        fit_batch: find the batch size that fits the free memory of the device.
    """
    from dataclasses import asdict

    from ladcast.tasks.plan import plan

    prediction = plan(request, find_model(model), tflops=tflops, fit_batch=fit_batch)
    print(prediction)
    return {"plan": asdict(prediction)}


@app.command
def analysis(
    time: str,
    *,
    source: tuple[str, ...],
    output: Path | None = None,
    model: str = DEFAULT_MODEL,
    downloads: Path = Path("downloads"),
) -> Results:
    """Put a start state together from several sources; without an output, only say where each channel comes from.

    Args:
        time: initial time in UTC such as 2011-10-11T00.
        source: names of sources (weatherbench2, arco-era5, cds, gfs, ecmwf-open-data) or paths, the preferred first.
        output: Zarr store to write; what must be downloaded needs the network.
        model: name or folder of the model whose channels and grid are wanted.
        downloads: folder of downloaded files, which are kept.
    """
    from ladcast.tasks.plan_sources import fetch_start, model_needs, plan_start

    channels, grid = model_needs(find_model(model).path)
    plan, sources = plan_start(time, source, channels, downloads)
    print(plan)
    if output is not None:
        return told(analysis=fetch_start(plan, sources, output, grid))
    return {}


@app.command
def export(
    forecast: Path,
    output: Path,
    selection: Annotated[Selection, Parameter(name="*")] = WHOLE,
    *,
    form: Annotated[ExportFormat, Parameter(name="*")] = DEFAULT_FORMAT,
) -> Results:
    """Write a forecast, or a part of it, as netCDF4 (.nc), GRIB2 (.grib2, extra [grib]) or Zarr (.zarr).

    Args:
        forecast: forecast store.
        output: file or store to write; its suffix says the format.
        selection: which part.
        form: details of the format.
    """
    from ladcast.tasks.export import export as write

    return told(export=write(forecast, output, selection, form))


@app.command
def decode(
    forecast: Path,
    output: Path,
    selection: Annotated[Selection, Parameter(name="*")] = WHOLE,
    *,
    times: Annotated[tuple[str, ...], Several] = (),
    model: str | None = None,
    device: str | None = None,
    form: Annotated[ExportFormat, Parameter(name="*")] = DEFAULT_FORMAT,
) -> Results:
    """Decode a forecast that was kept as latents, or a part of it, to Zarr, netCDF4 or GRIB2.

    Args:
        forecast: latent store.
        output: file or store to write; its suffix says the format. A Zarr store of a killed run is completed.
        selection: which part.
        times: initial times, such as 2011-10-11T00.
        model: name or folder of the model that made the latents, where it is not found by itself.
        device: cpu or cuda; a GPU where there is one.
        form: details of the format.
    """
    from ladcast.tasks.decode import decode as write

    path = write(forecast, output, selection, times=times, form=form, model=model, device=device)
    print(f"fields {path}")
    return {"fields": path}


@products_app.command
def mean(forecast: Path, output: Path, selection: Annotated[Selection, Parameter(name="*")] = WHOLE) -> Results:
    """Write the ensemble mean and spread (standard deviation, divisor members - 1).

    Args:
        forecast: forecast store, of latents or of fields.
        output: .nc or .zarr.
        selection: which part.
    """
    from ladcast.tasks.products import write_mean

    path = write_mean(forecast, output, selection)
    print(f"mean {path}")
    return {"mean": path}


@products_app.command
def quantiles(
    forecast: Path,
    output: Path,
    selection: Annotated[Selection, Parameter(name="*")] = WHOLE,
    *,
    level: Annotated[tuple[float, ...], Several] = (0.1, 0.25, 0.5, 0.75, 0.9),
) -> Results:
    """Write quantiles of the members.

    Args:
        forecast: forecast store, of latents or of fields.
        output: .nc or .zarr.
        selection: which part.
        level: fractions of the members, from 0 to 1.
    """
    from ladcast.tasks.products import write_quantiles

    path = write_quantiles(forecast, output, selection, fractions=level)
    print(f"quantiles {path}")
    return {"quantiles": path}


@products_app.command
def probability(
    forecast: Path,
    output: Path,
    selection: Annotated[Selection, Parameter(name="*")] = WHOLE,
    *,
    event: Annotated[tuple[str, ...], Several],
) -> Results:
    """Write the share of members in which something happens.

    Args:
        forecast: forecast store, of latents or of fields.
        output: .nc or .zarr.
        selection: which part.
        event: such as 't2m > 30 degC', 'tp6h >= 10 mm', 'z500 < 5200 m' or '10m_wind_speed > 34 kt'.
    """
    from ladcast.tasks.products import write_probabilities

    path = write_probabilities(forecast, output, selection, events=event)
    print(f"probability {path}")
    return {"probability": path}


@products_app.command
def points(
    forecast: Path,
    output: Path,
    selection: Annotated[Selection, Parameter(name="*")] = WHOLE,
    *,
    place: Annotated[tuple[str, ...], Several] = (DEFAULT_PLACE,),
    method: Literal["bilinear", "nearest"] = "bilinear",
) -> Results:
    """Write series of all members at places as CSV.

    Args:
        forecast: forecast store, of latents or of fields.
        output: .csv.
        selection: which part.
        place: places as Name,latitude,longitude.
        method: weight the four grid points around a place, or take the nearest.
    """
    from ladcast.tasks.products import write_points

    path = write_points(forecast, output, selection, places=place, method=method)
    print(f"points {path}")
    return {"points": path}


@app.command
def score(forecast: Path, *, truth: Path, climatology: Path | None = None, output: Path | None = None) -> Results:
    """Score a forecast against the truth, beside persistence and climatology.

    Args:
        forecast: forecast store.
        truth: Zarr store or netCDF file that holds the valid times, on the grid of the forecast.
        climatology: file that `ladcast-data climatology` wrote.
        output: netCDF file for all scores; by default beside the forecast.
    """
    from ladcast.tasks.score import score_forecast, table, write_scores
    from ladcast.verification.plain import plain_scores

    metrics = score_forecast(forecast, truth, climatology)
    print(table(metrics))
    path = write_scores(metrics, forecast, output or forecast.with_suffix(".scores.nc"))
    print(f"scores {path}")
    return {"scores_file": path, "scores": plain_scores(metrics)}


@app.command
def plot(
    forecast: Path,
    *,
    truth: Path | None = None,
    output: Path | None = None,
    place: str = DEFAULT_PLACE,
    lead_days: int = 5,
) -> Results:
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
    return told(page=plot_forecast(forecast, page, place=place, truth_path=truth, lead_days=lead_days))


@app.command
def track(forecast: Path, request: Annotated[TrackRequest, Parameter(name="*")] = DEFAULT_TRACK) -> Results:
    """Track cyclones in every member; one storm is also verified against its best track and drawn.

    Args:
        forecast: forecast store, or a series of analyses (Zarr or netCDF).
        request: which storms, by which rules, and where to write them.
    """
    from ladcast.tasks.track import track as track_cyclones

    report = track_cyclones(forecast, request)
    print(report)
    return {"tracks": str(report)}


@app.command
def show(path: str = DEFAULT_MODEL) -> Results:
    """Describe a model or a forecast store.

    Args:
        path: name of an embedded model, a checkpoint folder, or a forecast store.
    """
    from ladcast.tasks.show import show as describe

    description = describe(path)
    print(description)
    return {"description": description}


@train_app.command
def autoencoder(config: Path, *, overrides: Overrides = (), device: str | None = None) -> Results:
    """Train an autoencoder; a run that was stopped goes on.

    Args:
        config: YAML file, such as configs/train/nature_autoencoder.yaml.
        overrides: settings that win over the file, such as training.steps=100.
        device: cpu or cuda; a GPU where there is one.
    """
    from ladcast.tasks.train_autoencoder import train_autoencoder

    return told(autoencoder=train_autoencoder(config, overrides, device))


@train_app.command
def forecaster(config: Path, *, overrides: Overrides = (), device: str | None = None) -> Results:
    """Train a forecaster on latents; a run that was stopped goes on.

    Args:
        config: YAML file, such as configs/train/nature_forecaster.yaml.
        overrides: settings that win over the file, such as training.steps=100.
        device: cpu or cuda; a GPU where there is one.
    """
    from ladcast.tasks.train_forecaster import train_forecaster

    return told(forecaster=train_forecaster(config, overrides, device))


@weights_app.command
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
    from ladcast.tasks.weights import fetch_weights

    return told(model=fetch_weights(name, location, assets))


@weights_app.command(name="import")
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
    from ladcast.tasks.weights import import_weights

    return told(model=import_weights(name, transformer, autoencoder, assets))


@weights_app.command
def verify(model: str) -> Results:
    """Check every file of a model against its SHA-256, or a folder in the public layout for completeness.

    Args:
        model: name of a model, its folder, or a folder with config.json and safetensors.
    """
    from ladcast.tasks.weights import verify_weights

    report = verify_weights(model)
    print(report)
    return {"report": report}


@weights_app.command(name="show")
def show_weights(repository: str | None = None, *, revision: str | None = None) -> Results:
    """List the models at hand, or the networks in a repository of the hub (needs the network).

    Args:
        repository: owner/name of a repository, such as tonyzyl/ladcast.
        revision: branch, tag or commit.
    """
    from ladcast.tasks.weights import show_weights as describe

    description = describe(repository, revision)
    print(description)
    return {"description": description}


def told(**results: Path) -> Results:
    """Prints what was written, and returns it for machines."""
    for name, path in results.items():
        print(f"{name} {path}")
    return dict(results)


def main() -> None:
    """Runs `ladcast`."""
    run(app)
