"""ladcast: one analysis of the atmosphere in, a calibrated global ensemble forecast out.

    >>> forecast = ladcast.forecast(members=8, days=5)
    >>> ladcast.show(ladcast.score(forecast))
    >>> ladcast.plot(forecast, place="Oslo")

The names below are imported when they are first used, so that `import ladcast` is instant. Datasets of xarray have the
accessor `.ladcast` (`ladcast/forecasts/engine.py`).
"""

import os
import sys
import warnings
from importlib import import_module
from typing import Any

# Threads that wait for each other sleep, unless the user says otherwise: OpenMP, which torch loads, lets them spin, and
# beside one other busy program a forecast of 2 days on two cores took 63 s so instead of 6 s.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Zarr says so of each store that is opened, also of those that others wrote.
warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part in the Zarr format 3")

_HOME = {
    "ask": "forecasts.ask",
    "forecast": "api",
    "open_forecast": "forecasts.open",
    "plot": "api",
    "redraw": "api",
    "score": "api",
    "show": "api",
    "track": "api",
    "Climatology": "verification",
    "EnsembleOptions": "forecasting.ensemble",
    "Grid": "grid",
    "Place": "grid",
    "find_model": "released",
    "forecast_ensemble": "forecasting.ensemble",
    "load_forecaster": "forecasting.checkpoints",
    "open_store": "data.store",
    "read_analysis": "data.analysis",
}

__all__ = list(_HOME)
_PARTS = ("Climatology", "EnsembleOptions", "forecast_ensemble")
"""What tab completion leaves out: parts for programs that do by themselves what the others do in one line."""


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("ladcast")
    if name not in _HOME:
        raise AttributeError(f"module 'ladcast' has no attribute '{name}'; it has {', '.join(_HOME)}")
    found = getattr(import_module(f"ladcast.{_HOME[name]}"), name)
    _register_accessor()
    return found


def _register_accessor() -> None:
    """Gives datasets `.ladcast`, where there is xarray already: to import it takes longer than to import ladcast."""
    if "xarray" in sys.modules:
        import_module("ladcast.forecasts.engine")


_register_accessor()


def __dir__() -> list[str]:
    return ["__version__", *(name for name in _HOME if name not in _PARTS)]
