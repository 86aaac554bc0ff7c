"""Commands that make forecasts, and what they start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ladcast.cli.common import DEFAULT_PLACE, Results, Several, told
from ladcast.cli.outputs import plot
from ladcast.cli.verify import score
from ladcast.commands.score_options import ScoreRequest
from ladcast.forecasting.options import ForecastRequest
from ladcast.released.registry import DEFAULT_MODEL, find_model

DEFAULT_REQUEST = ForecastRequest()


def forecast(
    request: Annotated[ForecastRequest, Parameter(name="*")] = DEFAULT_REQUEST,
    *,
    model: str = DEFAULT_MODEL,
    place: str = DEFAULT_PLACE,
    draw: bool = True,
    dry_run: bool = False,
) -> Results | None:
    """Make an ensemble forecast and draw it; one from the model's own start states is also scored.

    Args:
        request: what to forecast, from what, and where to write it.
        model: name of an embedded model, or a checkpoint folder.
        place: place of the plume, as Name,latitude,longitude.
        draw: draw the page beside the forecast.
        dry_run: print what the forecast will take, as `ladcast plan forecast` does, and stop.
    """
    from ladcast.commands.forecast import forecast as make_forecast

    hindrance = _no_page(request)
    if draw and hindrance is None:
        from ladcast.grid import Place

        Place.parse(place)  # which is not to fail when the forecast is made
    if dry_run:
        return plan_forecast(request, model=model)
    folder = find_model(model)
    made = make_forecast(request, folder)
    if made is None:  # another process of this job goes on
        return None
    results = told(forecast=made)
    truth = folder.truth if request.source is None else None
    if truth is not None:
        results |= score(request.output, request=ScoreRequest(truth, folder.climatology))
    if draw and hindrance is None:
        results |= plot(request.output, truth=truth, place=place, lead_days=float(min(5, request.days)))
    elif draw:
        print(f"no page: {hindrance}")
    return results


def _no_page(request: ForecastRequest) -> str | None:
    """Says why there can be no page of a forecast, if so."""
    if request.members == 1:
        return "it shows the spread between members; ask for --members 2 or more"
    return "it shows a forecast from one start" if len(set(request.times)) > 1 else None


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

    from ladcast.commands.plan import plan

    prediction = plan(request, find_model(model), tflops=tflops, fit_batch=fit_batch)
    print(prediction)
    return {"plan": asdict(prediction)}


def analysis(
    time: str,
    *,
    source: Annotated[tuple[str, ...], Several],
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
    from ladcast.commands.analysis import fetch_start, model_needs, plan_start

    channels, grid = model_needs(find_model(model).path)
    plan, sources = plan_start(time, source, channels, downloads)
    print(plan)
    if output is not None:
        return told(analysis=fetch_start(plan, sources, output, grid))
    return {}
