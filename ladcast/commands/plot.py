"""`ladcast plot`: the summary figure of a forecast."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ladcast.data.store import open_store
from ladcast.forecasts.open import open_forecast
from ladcast.grid import Place, grid_of
from ladcast.plots.forecast import draw_forecast
from ladcast.plots.style import save_figure


def plot_forecast(
    forecast_path: Path, output: Path, *, place: str, truth_path: Path | None, lead_days: int | float
) -> Path:
    """Draws ensemble mean and spread on maps at one lead time, and the plume of one place.

    `place` is written as `Name,latitude,longitude` in degrees.
    """
    forecast = open_forecast(forecast_path)
    truth = None if truth_path is None else open_store(truth_path, grid=grid_of(forecast), regular=False)
    lead = np.timedelta64(round(lead_days * 86_400), "s").astype("timedelta64[ns]")
    figure = draw_forecast(forecast, place=Place.parse(place), truth=truth, lead=lead)
    return save_figure(figure, output)
