"""`ladcast forecast`, `ladcast plan forecast`, `ladcast redraw` and `ladcast analysis`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from ladcast.commands.options import DEFAULT_PLACE, Results, ScoreRequest, Scoring, flat, report_paths
from ladcast.files import require_input, require_outputs
from ladcast.forecasting import ForecastRequest
from ladcast.forecasts.manifest import is_latent_store, read_identity
from ladcast.grid import Place
from ladcast.released import DEFAULT_MODEL, ModelFolder, find_model

DEFAULT_REQUEST = ForecastRequest()


def forecast(
    request: Annotated[ForecastRequest, flat("What is forecast, and from what", 1)] = DEFAULT_REQUEST,
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
        place: place of the plume: a city such as Oslo, or Name,latitude,longitude.
        draw: draw the page beside the forecast.
        dry_run: print what the forecast will take, as `ladcast plan forecast` does, and stop.
    """
    where = Place.parse(place)
    folder, store = find_model(model), request.output
    if dry_run:
        return plan_forecast(request, model=model)
    truth = folder.truth if request.source is None else None
    scores, page = (store.with_suffix(suffix) for suffix in (".scores.nc", ".png"))
    hindrance = _why_no_page(request)
    outputs = _outputs(request, folder, beside=[scores] * (truth is not None) + [page] * (draw and hindrance is None))
    if page in outputs:  # what only the end needs, before the forecast is made, lest it fail then
        from ladcast.plots.forecast import draw_forecast, shown_lead
        from ladcast.plots.style import save_figure
    from ladcast.forecasts.make import make_forecast

    if make_forecast(request, folder) is None:  # another process of this job goes on
        return None
    from ladcast.commands.scoring import open_request, score_forecasts
    from ladcast.forecasts.open import open_forecast

    results = report_paths(forecast=store)
    if is_latent_store(store):
        print(
            f"kept as latents: xr.open_dataset('{store}', engine='ladcast') decodes fields as they are read, and so do "
            f"all commands; `ladcast decode {store} fields.zarr` writes them"
        )
    systems, compared = None, None if truth is None else ScoreRequest(truth, folder.climatology, output=scores)
    if compared is not None and scores in outputs:
        systems, found = score_forecasts([store], compared, Scoring())
        results |= found
    elif compared is not None:
        systems = open_request([store], compared)
    if page in outputs:
        # Of latents, what was decoded to be scored is kept by what was opened for it.
        opened = open_forecast(store) if systems is None else next(iter(systems.whole.values()))
        known = None if systems is None else systems.truth
        figure = draw_forecast(opened, place=where, truth=known, lead=shown_lead(opened))
        results |= report_paths(page=save_figure(figure, page))
    elif draw and hindrance:
        print(f"no page: {hindrance}")
    return results


def _outputs(request: ForecastRequest, model: ModelFolder, *, beside: Sequence[Path]) -> Sequence[Path]:
    """Returns what is to be made, the forecast and what lies beside it; raises FileExistsError where it is there."""
    missing = [path for path in beside if not path.exists()]
    # A forecast that was stopped when its store was complete goes on with what is missing beside it.
    goes_on = bool(missing and read_identity(request.output)) and not request.overwrite
    outputs = missing if goes_on else [request.output, *beside]
    require_outputs(outputs, [request.source, *model.files, model.truth], overwrite=request.overwrite)
    if request.source is not None:
        require_input(request.source)
    return outputs


def _why_no_page(request: ForecastRequest) -> str | None:
    """Says why there can be no page of a forecast, if so."""
    if len(set(request.times)) < 2:
        return None
    return f"it shows a forecast from one start; `ladcast plot {request.output} --time {request.times[0]}` draws it"


def plan_forecast(
    request: Annotated[ForecastRequest, flat("What is forecast, and from what", 1)] = DEFAULT_REQUEST,
    *,
    model: str = DEFAULT_MODEL,
    tflops: float | None = None,
    fit_batch: bool = False,
) -> Results:
    """Predict calls, operations, time, memory and bytes on disk of a forecast; nothing is written.

    A model with several steppers, or one that was measured with several numbers of calls, has a table of their skill,
    which is printed with the seconds that each takes here.

    Args:
        request: the forecast, with the options of `ladcast forecast`.
        model: name of an embedded model, or a checkpoint folder.
        tflops: speed of the device in 10^12 operations a second; by default both networks are timed for a second.
        fit_batch: find the batch size that fits the free memory of the device.
    """
    from ladcast.forecasting.plan import Planner

    planner = Planner(request, find_model(model).path, tflops=tflops, fit_batch=fit_batch)
    chosen = planner.choose()
    prediction, table = planner.plan(chosen), planner.table(chosen)
    print("\n".join([str(prediction), *([table] if table else [])]))
    return {"plan": asdict(prediction)} | ({"choices": table} if table else {})


def redraw(
    record: Path,
    output: Path,
    *,
    members: tuple[int, ...],
    time: Annotated[tuple[str, ...], Parameter(name=("--time", "--times"))] = (),
    source: Path | None = None,
    model: str | None = None,
    keep: Literal["fields", "latents"] | None = None,
    device: str = "cpu",
    overwrite: bool = False,
) -> Results | None:
    """Make members of a past forecast again, bit for bit on a CPU, from what a store or a track file says of it.

    Args:
        record: forecast (fields or latents), what `ladcast export` or `products` wrote of it, or its tracks (.nc).
        output: Zarr store to write; a killed run goes on.
        members: numbers of the members; one beyond the forecast's is the member that a larger ensemble would have had.
        time: initial times, where there are several; by default all.
        source: the states that the forecast started from, where they are no longer where they were.
        model: name or folder of the model that made it, where it is not found by itself.
        keep: write fields or latents; by default what the record is.
        device: cpu, as the forecast was; cuda gives members that differ in their last bits, and grow apart.
        overwrite: replace an existing output.
    """
    if output.suffix != ".zarr":
        raise ValueError(f"Expected an output that ends in .zarr, got '{output.name}'. Rename it.")
    require_outputs([output], [record, source], overwrite=overwrite)

    from ladcast.forecasts.redraw import redraw as make_again

    given: dict[str, Any] = {
        "times": time,
        "source": source,
        "model": model,
        "keep": keep,
        "device": device,
        "overwrite": overwrite,
    }
    made = make_again(record, output, members, **given)
    return None if made is None else report_paths(members=made)  # the first process of a job tells


def analysis(
    time: str,
    *,
    source: tuple[str, ...],
    output: Path | None = None,
    model: str = DEFAULT_MODEL,
    downloads: Path = Path("downloads"),
    overwrite: bool = False,
) -> Results:
    """Put a start state together from several sources; without an output, only say where each channel comes from.

    Args:
        time: initial time in UTC such as 2011-10-11T00.
        source: names of sources (weatherbench2, arco-era5, cds, gfs, ecmwf-open-data, earth2studio:GFS and its like) or
            paths, the preferred first.
        output: Zarr store to write; what must be downloaded needs the network.
        model: name or folder of the model whose channels and grid are wanted.
        downloads: folder of downloaded files, which are kept.
        overwrite: replace an existing output.
    """
    from ladcast.data.sources.initial_state import fetch_start, plan_start
    from ladcast.forecasting.checkpoints import read_description

    if output is not None and output.suffix != ".zarr":
        raise ValueError(f"Expected an output that ends in .zarr, got '{output.name}'. Rename it.")
    require_outputs([output], source, overwrite=overwrite)
    _, channels, grid = read_description(find_model(model).path)
    plan, sources = plan_start(time, source, channels, downloads)
    print(plan)
    return {} if output is None else report_paths(analysis=fetch_start(plan, sources, output, grid))
