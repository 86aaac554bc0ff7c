"""`ladcast plot`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ladcast.commands.common import DEFAULT_PLACE, Results, report_paths


def plot(
    forecast: Path,
    *,
    truth: Path | None = None,
    output: Path | None = None,
    place: str = DEFAULT_PLACE,
    lead_days: float = 5.0,
) -> Results:
    """Draw one page: ensemble mean and spread on maps, and the plume of one place.

    Args:
        forecast: forecast store.
        truth: Zarr store or netCDF file to draw beside the plume.
        output: .png, .pdf or .svg file; by default beside the forecast.
        place: place of the plume, as Name,latitude,longitude.
        lead_days: lead time of the maps, such as 5, or 0.25 for 6 hours.
    """
    from ladcast.data.store import open_store
    from ladcast.forecasts.open import open_forecast
    from ladcast.grid import Place, grid_of
    from ladcast.plots.forecast import draw_forecast
    from ladcast.plots.style import save_figure

    opened = open_forecast(forecast)
    analyses = None if truth is None else open_store(truth, grid=grid_of(opened), regular=False)
    lead = np.timedelta64(round(lead_days * 86_400), "s").astype("timedelta64[ns]")
    figure = draw_forecast(opened, place=Place.parse(place), truth=analyses, lead=lead)
    return report_paths(page=save_figure(figure, output or forecast.with_suffix(".png")))
