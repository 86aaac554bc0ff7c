import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from ladcast.data.analysis import Analysis
from ladcast.device import FlopCounter
from ladcast.forecasting import ForecastRequest
from ladcast.forecasting.checkpoints import load_forecaster, read_description
from ladcast.forecasting.cost import fitting_batch, free_memory, network_costs
from ladcast.forecasting.ensemble import EnsembleOptions, decode_step, member_batches, staggered
from ladcast.forecasting.forecaster import Forecaster
from ladcast.forecasting.plan import ForecastPlan, Rates, describe_seconds, measure_rates, plan, plan_forecast
from ladcast.released import find_model

MODEL = find_model("nature-t31").path


def predict(forecaster: Forecaster, options: EnsembleOptions, *, starts: int = 1) -> ForecastPlan:
    costs = network_costs(forecaster.config, forecaster.grid)
    return plan_forecast(
        costs,
        forecaster.channels,
        options,
        calls_per_step=forecaster.stepper.calls,
        starts=starts,
        rates=Rates(1e9, 2e9),
    )


@pytest.mark.slow
@pytest.mark.parametrize(("members", "batch_size", "starts"), [(3, 2, 2), (4, 4, 1), (1, 1, 1)])
def test_a_forecast_takes_the_calls_and_operations_of_its_plan(
    members: int, batch_size: int, starts: int, forecaster: Forecaster, analysis: Analysis
):
    forecaster = forecaster.with_settings(steps=2)
    options = EnsembleOptions(members, 2, 0, batch_size=batch_size)
    plan = predict(forecaster, options, starts=starts)
    calls = {"denoiser": 0, "encoder": 0, "decoder": 0}

    def count(name: str, rows: bool):
        def hook(module, inputs, output) -> None:
            calls[name] += len(inputs[0]) if rows else 1

        return hook

    parts = {"denoiser": forecaster.stepper.network, "encoder": forecaster.codec.autoencoder.encoder}
    parts["decoder"] = forecaster.codec.autoencoder.decoder
    hooks = [part.register_forward_hook(count(name, name == "decoder")) for name, part in parts.items()]
    earlier = replace(analysis, time=analysis.time - np.timedelta64(3, "h"))
    with FlopCounter() as operations:
        batches = member_batches(forecaster, staggered([analysis, earlier][:starts]), options)
        frames = [decode_step(batch, step) for batch in batches for step in batch.forecast()]
    for hook in hooks:
        hook.remove()
    assert calls == {
        "denoiser": plan.network_calls,
        "encoder": plan.encoder_calls,
        "decoder": plan.decoded_frames,
    }
    assert operations.flops == plan.flops
    assert sum(made.nbytes - made.coords.to_dataset().nbytes for made in frames) == plan.field_bytes


@pytest.mark.slow
def test_latent_bytes_are_exact(forecaster: Forecaster, analysis: Analysis):
    options = EnsembleOptions(4, 3, 0, batch_size=4)
    (batch,) = member_batches(forecaster, staggered([analysis]), options)
    assert sum(step.latents.numpy().nbytes for step in batch.forecast()) == predict(forecaster, options).latent_bytes


@pytest.mark.slow
def test_latents_that_are_kept_are_not_decoded(forecaster: Forecaster, analysis: Analysis):
    options = EnsembleOptions(3, 2, 0, batch_size=4)
    costs = network_costs(forecaster.config, forecaster.grid)
    plan = plan_forecast(
        costs, forecaster.channels, options, calls_per_step=forecaster.stepper.calls, keeps_latents=True
    )
    with FlopCounter() as operations:
        list(member_batches(forecaster, staggered([analysis]), options)[0].forecast())
    assert plan.decoded_frames == 0
    assert operations.flops == plan.flops


def test_time_is_work_over_rate(forecaster: Forecaster):
    options = EnsembleOptions(4, 3, 0, batch_size=4)
    plan = predict(forecaster, options)
    assert plan.seconds is not None
    assert plan.flops / 2e9 < plan.seconds < plan.flops / 1e9
    faster = plan_forecast(
        network_costs(forecaster.config, forecaster.grid),
        forecaster.channels,
        options,
        calls_per_step=forecaster.stepper.calls,
        rates=Rates(2e9, 4e9),
    )
    assert faster.seconds == pytest.approx(plan.seconds / 2)


def test_the_text_says_what_people_ask(forecaster: Forecaster):
    options = EnsembleOptions(3, 2, 0, batch_size=2)
    text = str(predict(forecaster, options))
    assert "3 members x 8 lead times, 2 members at once" in text
    assert "GPU" not in text


@pytest.mark.parametrize(("seconds", "text"), [(4.2, "4 s"), (600.0, "10 min"), (7200.0, "2.0 h")])
def test_durations_read_well(seconds: float, text: str):
    assert describe_seconds(seconds) == text


@pytest.mark.slow
def test_the_description_is_that_of_the_model():
    forecaster = load_forecaster(MODEL, "cpu")
    assert read_description(MODEL) == (forecaster.config, forecaster.channels, forecaster.grid)


@pytest.mark.slow
def test_a_plan_follows_the_request():
    request = ForecastRequest(members=10, days=5, batch_size=4, keep="fields", device="cpu")
    prediction = plan(request, MODEL, tflops=1.0)
    assert (prediction.members, prediction.lead_times, prediction.batch_size) == (10, 20, 4)
    assert prediction.network_calls == 3 * 5  # batches, days
    assert prediction.field_bytes == 10 * 21 * 84 * 32 * 64 * 4
    assert prediction.latent_bytes == (10 * 20 * 32 * 16 * 32 + 84 * 32 * 64) * 4
    assert prediction.seconds == pytest.approx(prediction.flops / 1e12)
    hourly = plan(replace(request, lead_step=1), MODEL, tflops=1.0)
    assert hourly.flops == 6 * prediction.flops
    twice = plan(replace(request, times=("2001-01-01", "2001-01-02", "2001-01-02")), MODEL, tflops=1.0)
    assert (twice.starts, twice.lead_times, twice.flops) == (2, 20, 2 * prediction.flops)


@pytest.mark.slow
def test_the_batch_fits_the_free_memory(monkeypatch: pytest.MonkeyPatch):
    config, _, grid = read_description(MODEL)
    costs = network_costs(config, grid)
    needed = costs.working_bytes(3) + 3 * costs.host_bytes
    monkeypatch.setattr("ladcast.forecasting.cost.free_memory", lambda device: int(needed / 0.8) + 1)
    assert fitting_batch(costs, 50, "cpu") == 3
    request = ForecastRequest(members=50, days=1, device="cpu")
    assert plan(request, MODEL, tflops=1.0, fit_batch=True).batch_size == 3
    assert plan(replace(request, batch_size=0), MODEL, tflops=1.0).batch_size == 3


@pytest.mark.slow
def test_blocks_of_a_gpu_fit_the_host(monkeypatch: pytest.MonkeyPatch):
    config, _, grid = read_description(MODEL)
    costs = network_costs(config, grid)
    free = {"cuda": 10**12, "cpu": int(7.5 * costs.host_bytes / 0.8)}
    monkeypatch.setattr("ladcast.forecasting.cost.free_memory", lambda device: free[device])
    assert fitting_batch(costs, 50, "cuda") == 7


def test_the_machine_has_free_memory():
    assert free_memory("cpu") > 2**20


@pytest.mark.slow
def test_rates_are_positive_and_measured_in_seconds(forecaster: Forecaster):
    started, before = time.monotonic(), torch.get_rng_state()
    rates = measure_rates(forecaster.config, forecaster.grid, "cpu", rows=2)
    elapsed = time.monotonic() - started
    work = network_costs(forecaster.config, forecaster.grid).network.flops
    assert 0 < work / rates.stepper < elapsed
    assert 0 < rates.autoencoder < 1e15
    assert torch.equal(torch.get_rng_state(), before)
