from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor

from ladcast.data.analysis import Analysis
from ladcast.forecasting.ensemble import (
    EnsembleOptions,
    decode_step,
    forecast_ensemble,
    member_batches,
    member_noise,
    staggered,
)
from ladcast.forecasting.forecaster import Forecaster
from ladcast.times import STEP

SHAPE = (4, 4, 4, 8)
NOISE = {"seed": 0, "init_time": np.datetime64("2001-02-28T12", "ns")}
KEY = {"seed": 3, "init_time": np.datetime64("2001-01-01T06", "ns"), "member": 7, "step": 2}


def test_noise_depends_on_its_key_alone():
    torch.testing.assert_close(member_noise(SHAPE, **KEY), member_noise(SHAPE, **KEY), rtol=0, atol=0)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 4},
        {"seed": -3},
        {"init_time": np.datetime64("2001-01-01T12", "ns")},
        {"member": 8},
        {"step": 3},
        {"attempt": 1},
    ],
)
def test_noise_is_independent_for_every_other_key(change: dict[str, object]):
    one, other = member_noise(SHAPE, **KEY).flatten(), member_noise(SHAPE, **(KEY | change)).flatten()
    assert abs(torch.corrcoef(torch.stack([one, other]))[0, 1]) < 0.15


def test_noise_is_a_unit_gaussian():
    noise = member_noise((100, 4, 8, 16), **KEY)
    assert abs(noise.mean()) < 0.01
    assert noise.std() == pytest.approx(1, abs=0.01)


@pytest.mark.slow
def test_a_member_does_not_depend_on_the_size_of_the_ensemble(run, forecaster: Forecaster, analysis: Analysis):
    few = run(analysis, EnsembleOptions(8, 2, 5))
    many = run(analysis, EnsembleOptions(50, 2, 5))
    xr.testing.assert_identical(few.sel(number=7), many.sel(number=7))
    assert many.sizes["number"] == 50


def test_members_differ_and_the_seed_matters(run, forecaster: Forecaster, analysis: Analysis):
    one = run(analysis, EnsembleOptions(2, 1, 5))["temperature"]
    other = run(analysis, EnsembleOptions(2, 1, 6))["temperature"]
    assert float(abs(one.isel(number=0) - one.isel(number=1)).max()) > 0
    assert float(abs(one - other).max()) > 0


@pytest.mark.slow
def test_a_batch_goes_on_where_it_stopped(forecaster: Forecaster, hourly: list[Analysis]):
    options = EnsembleOptions(3, 3, 0, batch_size=2)
    for batch in member_batches(forecaster, staggered(hourly[:2]), options):
        first, *rest = batch.forecast()
        resumed = list(replace(batch, done=1, past=first.past).forecast())
        assert [step.number for step in resumed] == [1, 2]
        for expected, found in zip(rest, resumed, strict=True):
            assert torch.equal(expected.latents, found.latents)
            np.testing.assert_array_equal(expected.valid_times, found.valid_times)


@pytest.mark.slow
def test_a_forecast_is_the_decoded_steps_of_its_batches(forecaster: Forecaster, analysis: Analysis):
    options = EnsembleOptions(3, 2, 0, batch_size=2)
    made = [frames.sel(number=[2]) for frames in forecast_ensemble(forecaster, analysis, options)]
    batch = member_batches(forecaster, staggered([analysis]), options)[1]
    for step, frames in zip(batch.forecast(), made, strict=True):
        assert frames.identical(decode_step(batch, step))
        state = forecaster.codec.decode(step.latents[0].transpose(0, 1), analysis.ocean)
        np.testing.assert_array_equal(frames["mean_sea_level_pressure"].values[0, :, 0], state[:, 2])
        np.testing.assert_array_equal(frames["temperature"].values[0, :, 0], state[:, :2])


@pytest.mark.slow
def test_the_steps_of_many_batches_put_together_are_the_forecast(run, forecaster: Forecaster, analysis: Analysis):
    """Each lead time and member once and nothing missing, however many batches the members are computed in."""
    options = EnsembleOptions(3, 2, 0, batch_size=2)
    together = xr.concat(forecast_ensemble(forecaster, analysis, options), "prediction_timedelta")
    xr.testing.assert_identical(together, run(analysis, options))
    assert together["prediction_timedelta"].to_index().is_unique
    assert together["mean_sea_level_pressure"].notnull().all()


def test_frames_have_the_weatherbench_layout(run, forecaster: Forecaster, analysis: Analysis):
    forecast = run(analysis, EnsembleOptions(2, 2, 0))
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


@pytest.fixture
def hourly(analysis: Analysis) -> list[Analysis]:
    """The analysis and two before it, two hours apart, with slightly other weather."""
    hours = (0, 2, 4)
    return [
        replace(analysis, state=analysis.state * (1 + 1e-4 * hour), time=analysis.time - np.timedelta64(hour, "h"))
        for hour in hours
    ]


@pytest.mark.slow
def test_forecasts_from_the_hours_before_give_the_leads_between(run, forecaster: Forecaster, hourly: list[Analysis]):
    options = EnsembleOptions(3, 2, 0, batch_size=2)
    plain = run(hourly[0], options)
    dense = run(hourly, options)
    leads = np.arange(1, 25) * np.timedelta64(2, "h")
    np.testing.assert_array_equal(dense["prediction_timedelta"].values, leads)
    xr.testing.assert_identical(dense.sel(prediction_timedelta=plain["prediction_timedelta"]), plain)


@pytest.mark.slow
def test_forecasts_from_the_hours_before_share_the_noise_of_a_member(run, forecaster: Forecaster, hourly):
    """The same state at other hours gives nearly the same member, but not another one."""
    same = [replace(start, state=hourly[0].state) for start in hourly]
    dense = run(same, EnsembleOptions(2, 1, 0))["temperature"]
    two_hours_on = abs(dense.isel(prediction_timedelta=2) - dense.isel(prediction_timedelta=1)).mean()
    other_member = abs(dense.isel(number=1) - dense.isel(number=0)).mean()
    assert float(two_hours_on) < 0.2 * float(other_member)


def test_forecasts_from_the_hours_before_have_the_ocean_of_the_initial_time(hourly: list[Analysis]):
    dry = replace(hourly[1], ocean=~hourly[1].ocean)
    assert all(torch.equal(initial.analysis.ocean, hourly[0].ocean) for initial in staggered([hourly[0], dry]))


def test_fields_are_physical(run, forecaster: Forecaster, analysis: Analysis):
    forecast = run(analysis, EnsembleOptions(2, 1, 0))
    assert float(forecast["total_precipitation_6hr"].min()) >= 0
    masked = forecast["sea_surface_temperature"].isnull().isel(time=0, prediction_timedelta=0, number=0)
    np.testing.assert_array_equal(masked.values, ~analysis.ocean.numpy())


@pytest.fixture
def fragile(forecaster: Forecaster, monkeypatch: pytest.MonkeyPatch) -> Forecaster:
    """A forecaster whose member 1 turns to NaN in its second step, unless it is drawn again."""
    advance, unlucky = Forecaster.step, member_noise((4, 4, 4, 8), **NOISE, member=1, step=1)

    def sometimes(self: Forecaster, past: Tensor, start: np.datetime64, noise: Tensor) -> Tensor:
        latents = advance(self, past, start, noise)
        hit = (noise == unlucky).flatten(1).all(dim=1)
        return latents.masked_fill(hit.reshape(-1, 1, 1, 1, 1), torch.nan)

    monkeypatch.setattr(Forecaster, "step", sometimes)
    return forecaster


def test_a_member_that_fails_stops_the_forecast_and_is_named(run, fragile: Forecaster, analysis: Analysis):
    options = EnsembleOptions(3, 2, 0, batch_size=2)
    with (
        pytest.warns(UserWarning, match="Members 1 failed in the step from 2001-03-01T12, draw 1"),
        pytest.raises(FloatingPointError, match=r"members 1 in the step from 2001-03-01T12, in 1 draws"),
    ):
        run(analysis, options)


@pytest.mark.slow
def test_a_member_that_fails_can_be_drawn_again_without_touching_others(run, fragile: Forecaster, analysis: Analysis):
    options = EnsembleOptions(3, 2, 0, batch_size=2, redraws=1)
    with pytest.warns(UserWarning, match="Members 1 failed"):
        redrawn = run(analysis, options)
    assert redrawn["temperature"].notnull().all()
    few = run(analysis, replace(options, members=1))
    xr.testing.assert_identical(few, redrawn.sel(number=[0]))


def test_members_that_only_fill_up_a_batch_cannot_fail_it(run, fragile: Forecaster, analysis: Analysis):
    assert run(analysis, EnsembleOptions(1, 2, 0, batch_size=2)).sizes["number"] == 1


def test_spread_controls_are_off_by_default_and_widen_the_ensemble(run, forecaster: Forecaster, analysis: Analysis):
    plain = EnsembleOptions(8, 1, 0)
    assert (plain.noise_scale, plain.perturbation) == (1.0, 0.0)

    def spread(options: EnsembleOptions) -> float:
        return float(run(analysis, options)["temperature"].std("number").mean())

    assert spread(replace(plain, noise_scale=1.2)) > spread(plain)
    first = {
        size: member_batches(forecaster, staggered([analysis]), replace(plain, perturbation=size))[0].first_latents()
        for size in (0.0, 0.3)
    }
    assert (first[0.0] == first[0.0][:1]).all()
    assert float((first[0.3] - first[0.0]).std()) == pytest.approx(0.3, rel=0.1)
