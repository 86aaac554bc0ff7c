"""What is predicted from the configuration equals what is counted when the networks run."""

import numpy as np
import pytest
import torch

from ladcast import device
from ladcast.data.analysis import Analysis
from ladcast.diffusion import SAMPLERS
from ladcast.forecasting.cost import (
    call_cost,
    decode_call,
    decoded_bytes,
    encode_call,
    largest_batch,
    network_call,
    network_costs,
    require_memory,
)
from ladcast.forecasting.forecaster import Forecaster
from ladcast.forecasts.write import LEADS_AT_ONCE
from ladcast.nn.embedding import year_progress


@pytest.mark.slow
def test_operations_and_memory_of_fake_networks_are_those_of_real_ones_and_leave_nothing_behind(
    forecaster: Forecaster, monkeypatch: pytest.MonkeyPatch
):
    known = network_costs(forecaster.config, forecaster.grid)
    monkeypatch.setattr(device, "COUNTED_FOR_REAL", 0)
    costs = network_costs.__wrapped__(forecaster.config, forecaster.grid)
    assert costs == known
    real = {
        "network": network_call(forecaster.stepper, forecaster.config, forecaster.grid, 1),
        "encode": encode_call(forecaster.codec.autoencoder, forecaster.grid),
        "decode": decode_call(forecaster.codec.autoencoder, forecaster.grid, 1),
    }
    for name, call in real.items():
        predicted, counted = getattr(costs, name), call_cost(call, "cpu")
        assert predicted.flops == counted.flops > 0
        assert predicted.activation_bytes == pytest.approx(counted.activation_bytes, rel=0.1)
    assert float(year_progress(torch.zeros(1, dtype=torch.int64))) == 0.0


@pytest.mark.parametrize("rows", [2, 3, 8])
def test_each_further_row_takes_the_same(rows: int, forecaster: Forecaster):
    costs = network_costs(forecaster.config, forecaster.grid)
    counted = call_cost(network_call(forecaster.stepper, forecaster.config, forecaster.grid, rows), "cpu")
    predicted = costs.network.activation_bytes + (rows - 1) * costs.network_bytes_per_row
    assert counted.flops == rows * costs.network.flops
    assert predicted == pytest.approx(counted.activation_bytes, rel=0.1)


def test_counting_for_real_leaves_the_random_numbers_that_come_later(forecaster: Forecaster):
    before = torch.get_rng_state()
    network_costs.__wrapped__(forecaster.config, forecaster.grid)
    assert torch.equal(torch.get_rng_state(), before)


def test_weights_take_their_bytes(forecaster: Forecaster):
    costs = network_costs(forecaster.config, forecaster.grid)
    assert costs.network_bytes == sum(weight.nbytes for weight in forecaster.stepper.network.parameters())
    assert costs.autoencoder_bytes == sum(weight.nbytes for weight in forecaster.codec.autoencoder.parameters())


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_calls_of_the_network_are_those_of_a_forecast(sampler: str, forecaster: Forecaster, analysis: Analysis):
    sampling, calls = forecaster.with_settings(sampler=sampler, steps=4), []
    hook = forecaster.stepper.network.register_forward_hook(lambda *_: calls.append(1))
    past = forecaster.codec.encode(analysis.state[None])[:, :, None]
    sampling.step(past, np.datetime64("2001-01-01"), torch.randn(1, *forecaster.noise_shape))
    hook.remove()
    assert sampling.stepper.calls == len(calls)


def test_heun_calls_twice_a_step_but_for_the_last(forecaster: Forecaster):
    assert forecaster.with_settings(sampler="heun", steps=20).stepper.calls == 39


def test_the_largest_batch_fits_and_one_more_does_not(forecaster: Forecaster):
    costs = network_costs(forecaster.config, forecaster.grid)
    free = costs.working_bytes(17)
    assert largest_batch(costs, free, 50) == 17
    assert largest_batch(costs, free - 1, 50) == 16
    assert largest_batch(costs, free, 5) == 5
    with pytest.raises(ValueError, match="for one member"):
        largest_batch(costs, costs.working_bytes(1) - 1, 50)


@pytest.mark.slow
def test_members_are_written_lead_by_lead_on_the_host_and_scored_block_by_block_on_the_device(
    forecaster: Forecaster, monkeypatch: pytest.MonkeyPatch
):
    config, grid = forecaster.config, forecaster.grid
    state, future = 4 * len(forecaster.channels) * grid.shape[0] * grid.shape[1], config.frames.future
    assert decoded_bytes(config, grid) == (min(LEADS_AT_ONCE, future) + 1) * state
    assert decoded_bytes(config, grid, scored=True) == 3 * future * state
    free = {"cuda": 10 * decoded_bytes(config, grid, scored=True), "cpu": 2**50}
    monkeypatch.setattr("ladcast.forecasting.cost.free_memory", free.__getitem__)
    with pytest.raises(ValueError, match=r"11 members at once .* on cuda"):
        require_memory(config, grid, 11, "cuda", scored=True)
    free |= {"cuda": 2**50, "cpu": 10 * decoded_bytes(config, grid)}
    require_memory(config, grid, 11, "cuda", scored=True)
    with pytest.raises(ValueError, match=r"11 members at once .* on cpu"):
        require_memory(config, grid, 11, "cuda")
    monkeypatch.setattr("ladcast.forecasting.cost.FEW", 0)
    free["cpu"] = network_costs(config, grid).working_bytes(2) + 2 * decoded_bytes(config, grid)
    require_memory(config, grid, 2, "cpu")
    free["cpu"] -= 1
    with pytest.raises(ValueError, match=r"2 members at once .* on cpu"):
        require_memory(config, grid, 2, "cpu")
