"""The `.ladcast` accessor of xarray: `ds.ladcast.map("msl")`, `.meteogram("Oslo")`, `.exceedance(...)`, `.score(...)`.

Each verb is a function of the Python front by another name. Datasets have it where xarray was imported before ladcast,
where a name of ladcast was used, and where xarray has opened a file, as it loads our engine then; `import
ladcast.accessor` registers it for certain. The front is found by name when a verb is used: the engine stands below it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import xarray as xr

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@xr.register_dataset_accessor("ladcast")  # type: ignore[no-untyped-call]
class ForecastAccessor:
    """Draws and scores a forecast, opened by whatever means."""

    def __init__(self, forecast: xr.Dataset) -> None:
        self._forecast, self._front = forecast, import_module("ladcast.api")

    def map(self, field: str = "z500", kind: str = "mean", **options: Any) -> Figure:
        """Draws one field.

        Args:
            field: such as z500, t2m, wind850, tp6h.
            kind: mean, spread, difference, stamps, spaghetti, probability, hovmoller, or the number of a member.
            options: lead_days, time, region, value, below, truth, output; see `ladcast.plot`.
        """
        figure: Figure = self._front.plot(self._forecast, kind, field=field, **options)
        return figure

    def meteogram(self, place: Any = None, **options: Any) -> Figure:
        """Draws what all members say at a place: a city, or Name,latitude,longitude; see `ladcast.plot`."""
        figure: Figure = self._front.plot(self._forecast, "meteogram", place=place, **options)
        return figure

    def exceedance(self, *events: str) -> xr.Dataset:
        """Returns the share of members in which each event happens, such as 't2m > 30 degC' or 'tp6h >= 10 mm'."""
        products, forecast = import_module("ladcast.forecasts.products"), self._front.open_forecast(self._forecast)
        forecast = forecast if products.MEMBERS in forecast.dims else forecast.expand_dims(products.MEMBERS)
        shares: xr.Dataset = products.probabilities(forecast, [products.Event.parse(event) for event in events])
        return shares

    def score(self, truth: Any = None, **options: Any) -> xr.Dataset:
        """Scores the forecast beside persistence and climatology; see `ladcast.score`."""
        scores: xr.Dataset = self._front.score(self._forecast, truth, **options)
        return scores
