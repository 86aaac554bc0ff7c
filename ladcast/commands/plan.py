"""`ladcast plan`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from ladcast.commands.common import FLAT, Results
from ladcast.forecasting.options import ForecastRequest
from ladcast.released.registry import DEFAULT_MODEL, find_model

DEFAULT_REQUEST = ForecastRequest()


def plan_forecast(
    request: Annotated[ForecastRequest, FLAT] = DEFAULT_REQUEST,
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
    from ladcast.forecasting.plan import plan

    prediction = plan(request, find_model(model).path, tflops=tflops, fit_batch=fit_batch)
    print(prediction)
    return {"plan": asdict(prediction)}
