"""`ladcast forecast`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import numpy as np

from ladcast.commands.common import DEFAULT_PLACE, FLAT, Results, report_paths
from ladcast.commands.options import ScoreRequest, Scoring
from ladcast.forecasting.options import ForecastRequest
from ladcast.released.registry import DEFAULT_MODEL, find_model

DEFAULT_REQUEST = ForecastRequest()
SHOWN_DAYS = 5
"""Lead time of the maps, unless the forecast is shorter."""


def forecast(
    request: Annotated[ForecastRequest, FLAT] = DEFAULT_REQUEST,
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
    from ladcast.forecasting.plan import plan
    from ladcast.forecasts.make import make_forecast
    from ladcast.grid import Place

    hindrance = _why_no_page(request)
    where = Place.parse(place) if draw and hindrance is None else None  # before the forecast is made, lest it fail then
    folder = find_model(model)
    if dry_run:
        prediction = plan(request, folder.path)
        print(prediction)
        return {"plan": asdict(prediction)}
    if make_forecast(request, folder) is None:  # another process of this job goes on
        return None
    from ladcast.commands.scoring import score_forecasts
    from ladcast.forecasts.open import open_forecast
    from ladcast.plots.forecast import draw_forecast
    from ladcast.plots.style import save_figure

    results, truth = report_paths(forecast=request.output), None
    if request.source is None and folder.truth is not None:
        systems, scores = score_forecasts([request.output], ScoreRequest(folder.truth, folder.climatology), Scoring())
        results, opened, truth = results | scores, next(iter(systems.forecasts.values())), systems.truth
    elif where is not None:
        opened = open_forecast(request.output)
    if where is not None:
        lead = np.timedelta64(min(SHOWN_DAYS, request.days), "D").astype("timedelta64[ns]")
        figure = draw_forecast(opened, place=where, truth=truth, lead=lead)
        results |= report_paths(page=save_figure(figure, request.output.with_suffix(".png")))
    elif draw:
        print(f"no page: {hindrance}")
    return results


def _why_no_page(request: ForecastRequest) -> str | None:
    """Says why there can be no page of a forecast, if so."""
    if request.members == 1:
        return "it shows the spread between members; ask for --members 2 or more"
    return "it shows a forecast from one start" if len(set(request.times)) > 1 else None
