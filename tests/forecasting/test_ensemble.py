import numpy as np
import pytest
import torch
import xarray as xr

from ladcast.data.analysis import Analysis
from ladcast.forecasting.ensemble import EnsembleOptions, Position, forecast_ensemble, member_noise
from ladcast.forecasting.forecaster import Forecaster
from ladcast.times import STEP

SHAPE = (4, 4, 4, 8)
KEY = {"seed": 3, "init_time": np.datetime64("2001-01-01T06", "ns"), "member": 7, "block": 2}


def run(forecaster: Forecaster, analysis: Analysis, options: EnsembleOptions) -> xr.Dataset:
    frames = [frame for _, frame in forecast_ensemble(forecaster, analysis, options)]
    return xr.combine_by_coords(frames)


def test_noise_depends_on_its_key_alone():
    torch.testing.assert_close(member_noise(SHAPE, **KEY), member_noise(SHAPE, **KEY), rtol=0, atol=0)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 4},
        {"seed": -3},
        {"init_time": np.datetime64("2001-01-01T12", "ns")},
        {"member": 8},
        {"block": 3},
    ],
)
def test_noise_is_independent_for_every_other_key(change: dict[str, object]):
    one, other = member_noise(SHAPE, **KEY).flatten(), member_noise(SHAPE, **(KEY | change)).flatten()
    assert abs(torch.corrcoef(torch.stack([one, other]))[0, 1]) < 0.15


def test_noise_is_a_unit_gaussian():
    noise = member_noise((100, 4, 8, 16), **KEY)
    assert abs(noise.mean()) < 0.01
    assert noise.std() == pytest.approx(1, abs=0.01)


def test_a_member_does_not_depend_on_the_size_of_the_ensemble(forecaster: Forecaster, analysis: Analysis):
    sampling = forecaster.config.sampling
    few = run(forecaster, analysis, EnsembleOptions(8, 2, 5, sampling))
    many = run(forecaster, analysis, EnsembleOptions(50, 2, 5, sampling))
    xr.testing.assert_identical(few.sel(number=7), many.sel(number=7))
    assert many.sizes["number"] == 50


def test_members_differ_and_the_seed_matters(forecaster: Forecaster, analysis: Analysis):
    sampling = forecaster.config.sampling
    one = run(forecaster, analysis, EnsembleOptions(2, 1, 5, sampling))["temperature"]
    other = run(forecaster, analysis, EnsembleOptions(2, 1, 6, sampling))["temperature"]
    assert float(abs(one.isel(number=0) - one.isel(number=1)).max()) > 0
    assert float(abs(one - other).max()) > 0


def test_a_forecast_goes_on_where_it_stopped(forecaster: Forecaster, analysis: Analysis):
    options = EnsembleOptions(3, 3, 0, forecaster.config.sampling, batch_size=2)
    whole = list(forecast_ensemble(forecaster, analysis, options))
    position = whole[1][0]
    assert (position.batch, position.block) == (0, 2)
    resumed = list(forecast_ensemble(forecaster, analysis, options, position))
    assert len(resumed) == len(whole) - 2
    for (_, expected), (_, found) in zip(whole[2:], resumed, strict=True):
        xr.testing.assert_identical(expected, found)


def test_frames_have_the_weatherbench_layout(forecaster: Forecaster, analysis: Analysis):
    forecast = run(forecaster, analysis, EnsembleOptions(2, 2, 0, forecaster.config.sampling))
    assert forecast["temperature"].dims == (
        "time",
        "prediction_timedelta",
        "number",
        "level",
        "latitude",
        "longitude",
    )
    assert forecast["time"].values.tolist() == [analysis.time.astype(np.int64)]
    np.testing.assert_array_equal(forecast["prediction_timedelta"].values, np.arange(1, 9) * STEP)


def test_fields_are_physical(forecaster: Forecaster, analysis: Analysis):
    forecast = run(forecaster, analysis, EnsembleOptions(2, 1, 0, forecaster.config.sampling))
    assert float(forecast["total_precipitation_6hr"].min()) >= 0
    masked = forecast["sea_surface_temperature"].isnull().isel(time=0, prediction_timedelta=0, number=0)
    np.testing.assert_array_equal(masked.values, ~analysis.ocean.numpy())


def test_position_starts_at_the_beginning():
    assert Position(0, 0).past is None
