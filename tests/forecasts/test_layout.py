import json
from dataclasses import replace

import numpy as np
import pytest

from ladcast.data.analysis import Analysis
from ladcast.fields import PRECIPITATION
from ladcast.forecasting.ensemble import FORECAST_DIMS, EnsembleOptions, staggered
from ladcast.forecasting.forecaster import Forecaster
from ladcast.forecasts.layout import forecast_identity, forecast_layout, global_attributes

HOUR, DAY = np.timedelta64(1, "h"), np.timedelta64(1, "D")


@pytest.fixture
def options(forecaster: Forecaster) -> EnsembleOptions:
    return EnsembleOptions(5, 3, 7, batch_size=2)


def later(analysis: Analysis, time: np.timedelta64) -> Analysis:
    return replace(analysis, time=analysis.time + time)


def test_a_layout_has_the_dims_of_its_variables(forecaster: Forecaster, analysis: Analysis, options: EnsembleOptions):
    conditions = staggered([analysis]) + staggered([later(analysis, DAY)])
    layout = forecast_layout(forecaster, conditions, options)
    assert layout.dims("temperature") == FORECAST_DIMS
    assert layout.shape(FORECAST_DIMS) == (2, 12, 5, 2, 8, 16)
    assert "level" not in layout.dims(PRECIPITATION)
    assert list(layout.coordinates("number", "time")) == ["number", "time"]
    assert layout.coordinates()["prediction_timedelta"].attrs["standard_name"] == "forecast_period"


def test_forecasts_are_merged_by_lead_time(forecaster: Forecaster, analysis: Analysis, options: EnsembleOptions):
    starts = [later(analysis, -2 * step * HOUR) for step in range(3)]
    both = staggered(starts) + staggered([later(start, DAY) for start in starts])
    layout = forecast_layout(forecaster, both, options)
    np.testing.assert_array_equal(layout.lead_times, np.arange(1, 37) * 2 * HOUR)
    assert len(layout.init_times) == 2
    for wrong in (both[::-1], both[:-1], staggered(starts[:2])):
        with pytest.raises(ValueError, match="initial times that increase, each with the analyses of every"):
            forecast_layout(forecaster, wrong, options)


def test_an_identity_is_plain_and_tells_runs_apart(
    forecaster: Forecaster, analysis: Analysis, options: EnsembleOptions
):
    identity = forecast_identity(forecaster, staggered([analysis]), options)
    assert json.loads(json.dumps(identity)) == identity
    for other in (replace(options, seed=8), replace(options, batch_size=3)):
        assert forecast_identity(forecaster, staggered([analysis]), other) != identity
    assert forecast_identity(forecaster, staggered([later(analysis, DAY)]), options) != identity
    assert json.loads(global_attributes(identity)["history"]) == identity
    twice = forecast_identity(forecaster, staggered([analysis, later(analysis, -HOUR)]), options)
    assert twice["init_times"] == ["2001-02-28T12"]
    assert twice["starts"] == [["2001-02-28T12", "2001-02-28T11"]]
