"""ladcast: one analysis of the atmosphere in, a calibrated global ensemble forecast out.

The names below are imported when they are first used, so that `import ladcast` is instant.
"""

from importlib import import_module
from typing import Any

_HOME = {
    "ChannelSet": "fields",
    "Climatology": "verification",
    "EnsembleOptions": "forecasting.ensemble",
    "Grid": "grid",
    "Place": "grid",
    "draw_forecast": "plots.forecast",
    "find_model": "released",
    "forecast_ensemble": "forecasting.ensemble",
    "format_table": "verification",
    "load_forecaster": "forecasting.checkpoints",
    "open_store": "data.store",
    "persistence": "verification",
    "read_analysis": "data.analysis",
    "score": "verification",
    "score_climatology": "verification",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'ladcast' has no attribute '{name}'; it has {', '.join(_HOME)}")
    return getattr(import_module(f"ladcast.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOME]
