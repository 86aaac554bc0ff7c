"""Scores as plain numbers, for JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from ladcast.times import HOUR


def plain_scores(metrics: Mapping[str, xr.Dataset]) -> dict[str, Any]:
    """Returns `system -> channel -> metric -> one number for each of "lead_hours"`, and those lead times.

    These are the lead times of all systems together; a number is NaN (in JSON null) where a system lacks one.
    """
    leads = np.unique(np.concatenate([scores["prediction_timedelta"].values for scores in metrics.values()]))
    systems = {system: _by_channel(scores.reindex(prediction_timedelta=leads)) for system, scores in metrics.items()}
    return {"lead_hours": (leads / HOUR).tolist(), **systems}


def _by_channel(scores: xr.Dataset) -> dict[str, dict[str, list[float]]]:
    by_lead = scores[[name for name, metric in scores.data_vars.items() if "prediction_timedelta" in metric.dims]]
    return {
        str(channel): {
            str(name): metric.sel(channel=channel).values.tolist() for name, metric in by_lead.data_vars.items()
        }
        for channel in scores["channel"].values
    }
