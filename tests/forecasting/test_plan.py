from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest

from ladcast.data.analysis import Analysis
from ladcast.forecasting.cost import count_flops, network_costs
from ladcast.forecasting.ensemble import EnsembleOptions, decode_step, member_batches, staggered
from ladcast.forecasting.forecaster import Forecaster
from ladcast.forecasting.plan import ForecastPlan, describe_seconds, plan_forecast
from ladcast.forecasting.rates import Rates

costs_of = lru_cache(network_costs)


def predict(forecaster: Forecaster, options: EnsembleOptions, *, starts: int = 1) -> ForecastPlan:
    costs = costs_of(forecaster.config, forecaster.grid)
    return plan_forecast(
        costs,
        forecaster.channels,
        options,
        calls_per_step=forecaster.stepper.calls,
        starts=starts,
        rates=Rates(1e9, 2e9),
    )


@pytest.mark.parametrize(("members", "batch_size"), [(3, 2), (4, 4), (1, 1)])
@pytest.mark.parametrize("starts", [1, 2])
def test_a_forecast_takes_the_calls_and_operations_of_its_plan(
    members: int, batch_size: int, starts: int, forecaster: Forecaster, analysis: Analysis
):
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
    with count_flops() as operations:
        batches = member_batches(forecaster, staggered([analysis, earlier][:starts]), options)
        frames = [decode_step(batch, step) for batch in batches for step in batch.forecast()]
    for hook in hooks:
        hook.remove()
    assert calls == {
        "denoiser": plan.network_calls,
        "encoder": plan.encoder_calls,
        "decoder": plan.decoded_frames,
    }
    assert operations.get_total_flops() == plan.flops
    assert sum(made.nbytes - made.coords.to_dataset().nbytes for made in frames) == plan.field_bytes


def test_latent_bytes_are_exact(forecaster: Forecaster, analysis: Analysis):
    options = EnsembleOptions(4, 3, 0, batch_size=4)
    (batch,) = member_batches(forecaster, staggered([analysis]), options)
    assert sum(step.latents.numpy().nbytes for step in batch.forecast()) == predict(forecaster, options).latent_bytes


def test_latents_that_are_kept_are_not_decoded(forecaster: Forecaster, analysis: Analysis):
    options = EnsembleOptions(3, 2, 0, batch_size=4)
    costs = costs_of(forecaster.config, forecaster.grid)
    plan = plan_forecast(
        costs, forecaster.channels, options, calls_per_step=forecaster.stepper.calls, keeps_latents=True
    )
    with count_flops() as operations:
        list(member_batches(forecaster, staggered([analysis]), options)[0].forecast())
    assert plan.decoded_frames == 0
    assert operations.get_total_flops() == plan.flops


def test_time_is_work_over_rate(forecaster: Forecaster):
    options = EnsembleOptions(4, 3, 0, batch_size=4)
    plan = predict(forecaster, options)
    assert plan.seconds is not None
    assert plan.flops / 2e9 < plan.seconds < plan.flops / 1e9
    faster = plan_forecast(
        costs_of(forecaster.config, forecaster.grid),
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
