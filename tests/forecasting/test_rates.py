import time

from ladcast.forecasting.cost import network_costs
from ladcast.forecasting.forecaster import Forecaster
from ladcast.forecasting.rates import measure_rates


def test_rates_are_positive_and_measured_in_seconds(forecaster: Forecaster):
    started = time.monotonic()
    rates = measure_rates(forecaster.config, forecaster.grid, "cpu", rows=2)
    elapsed = time.monotonic() - started
    work = network_costs(forecaster.config, forecaster.grid).network.flops
    assert 0 < work / rates.stepper < elapsed
    assert 0 < rates.autoencoder < 1e15
