from dataclasses import replace

import pytest

from ladcast.commands.plan import fitting_batch, free_memory, plan, read_description
from ladcast.forecasting.checkpoints import load_forecaster
from ladcast.forecasting.cost import network_costs
from ladcast.forecasting.options import ForecastRequest
from ladcast.released.registry import find_model

MODEL = find_model("nature-t31")


def test_the_description_is_that_of_the_model():
    forecaster = load_forecaster(MODEL.path, "cpu")
    assert read_description(MODEL.path) == (forecaster.config, forecaster.channels, forecaster.grid)


def test_a_plan_follows_the_request():
    request = ForecastRequest(members=10, days=5, steps=4, batch_size=4, keep="fields", device="cpu")
    prediction = plan(request, MODEL, tflops=1.0)
    assert (prediction.members, prediction.lead_times, prediction.batch_size) == (10, 20, 4)
    assert prediction.network_calls == 3 * 5 * 7  # batches, days, calls of Heun in 4 steps
    assert prediction.field_bytes == 10 * 20 * 84 * 32 * 64 * 4
    assert prediction.latent_bytes == 10 * 20 * 32 * 8 * 16 * 4
    assert prediction.seconds == pytest.approx(prediction.flops / 1e12)
    hourly = plan(replace(request, lead_step=1), MODEL, tflops=1.0)
    assert hourly.flops == 6 * prediction.flops
    twice = plan(replace(request, times=("2001-01-01", "2001-01-02", "2001-01-02")), MODEL, tflops=1.0)
    assert (twice.starts, twice.lead_times, twice.flops) == (2, 20, 2 * prediction.flops)


def test_the_batch_fits_the_free_memory(monkeypatch: pytest.MonkeyPatch):
    config, _, grid = read_description(MODEL.path)
    costs = network_costs(config, grid)
    needed = costs.working_bytes(3) + 3 * costs.host_bytes
    monkeypatch.setattr("ladcast.commands.plan.free_memory", lambda device: int(needed / 0.8) + 1)
    assert fitting_batch(costs, 50, "cpu") == 3
    request = ForecastRequest(members=50, days=1, device="cpu")
    assert plan(request, MODEL, tflops=1.0, fit_batch=True).batch_size == 3
    assert plan(replace(request, batch_size=0), MODEL, tflops=1.0).batch_size == 3


def test_blocks_of_a_gpu_fit_the_host(monkeypatch: pytest.MonkeyPatch):
    config, _, grid = read_description(MODEL.path)
    costs = network_costs(config, grid)
    free = {"cuda": 10**12, "cpu": int(7.5 * costs.host_bytes / 0.8)}
    monkeypatch.setattr("ladcast.commands.plan.free_memory", lambda device: free[device])
    assert fitting_batch(costs, 50, "cuda") == 7


def test_the_machine_has_free_memory():
    assert free_memory("cpu") > 2**20
