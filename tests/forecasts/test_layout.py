import json
from dataclasses import replace

import numpy as np
import pytest

from ladcast.data.analysis import Analysis
from ladcast.fields import PRECIPITATION
from ladcast.forecasting.ensemble import FORECAST_DIMS, EnsembleOptions
from ladcast.forecasting.forecaster import Forecaster
from ladcast.forecasts.layout import (
    forecast_identity,
    forecast_layout,
    global_attributes,
    start_groups,
)

HOUR, DAY = np.timedelta64(1, "h"), np.timedelta64(1, "D")


@pytest.fixture
def options(forecaster: Forecaster) -> EnsembleOptions:
    return EnsembleOptions(5, 3, 7, batch_size=2)


def later(analysis: Analysis, time: np.timedelta64) -> Analysis:
    return replace(analysis, time=analysis.time + time)


def test_starts_are_grouped_by_initial_time(analysis: Analysis):
    before, tomorrow = later(analysis, -HOUR), later(analysis, DAY)
    assert start_groups(analysis) == [[analysis]]
    assert start_groups([analysis, before]) == [[analysis, before]]
    assert start_groups([[analysis, before], [tomorrow, later(tomorrow, -HOUR)]])[0] == [analysis, before]


def test_a_layout_has_the_dims_of_its_variables(forecaster: Forecaster, analysis: Analysis, options: EnsembleOptions):
    layout = forecast_layout(forecaster, [[analysis], [later(analysis, DAY)]], options)
    assert layout.dims("temperature") == FORECAST_DIMS
    assert layout.shape(FORECAST_DIMS) == (2, 12, 5, 2, 8, 16)
    assert "level" not in layout.dims(PRECIPITATION)
    assert list(layout.coordinates("number", "time")) == ["number", "time"]
    assert layout.coordinates()["prediction_timedelta"].attrs["standard_name"] == "forecast_period"


def test_locating_is_the_inverse_of_the_coordinates(
    forecaster: Forecaster, analysis: Analysis, options: EnsembleOptions
):
    starts = [later(analysis, -2 * step * HOUR) for step in range(3)]
    layout = forecast_layout(forecaster, [starts, [later(start, DAY) for start in starts]], options)
    start, leads, members = layout.locate(layout.init_times[1], layout.lead_times[[1, 4, 7]], range(2, 4))
    assert (start, leads, members) == (1, [1, 4, 7], slice(2, 4))
    assert layout.lead_times[0] == 2 * HOUR


def test_an_identity_is_plain_and_tells_runs_apart(
    forecaster: Forecaster, analysis: Analysis, options: EnsembleOptions
):
    identity = forecast_identity(forecaster, analysis, options)
    assert json.loads(json.dumps(identity)) == identity
    for other in (replace(options, seed=8), replace(options, batch_size=3)):
        assert forecast_identity(forecaster, analysis, other) != identity
    assert forecast_identity(forecaster, later(analysis, DAY), options) != identity
    assert json.loads(global_attributes(identity)["history"]) == identity
