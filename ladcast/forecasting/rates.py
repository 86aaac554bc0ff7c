"""How fast this machine runs the networks of a forecast, from calls of a second."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from ladcast.forecasting.codec import decoded_at_once
from ladcast.forecasting.cost import decode_call, forecast_precision, network_call, network_costs, random_networks
from ladcast.forecasting.forecaster import ForecasterConfig, find_stepper
from ladcast.grid import Grid

TIMED_FLOPS = {"cpu": 1e11, "cuda": 2e13}
"""By kind of device: a call that fills a GPU would keep a CPU busy for minutes."""


@dataclass(frozen=True)
class Rates:
    """Holds floating-point operations a second of the two networks on one machine."""

    stepper: float
    autoencoder: float


def measure_rates(config: ForecasterConfig, grid: Grid, device: str, *, rows: int) -> Rates:
    """Times both networks with random weights on the device; of the stepper's a short one.

    At most about `TIMED_FLOPS` operations are timed for each, so that even large networks take seconds.
    """
    kind = device.split(":")[0]
    short = replace(config, stepper=find_stepper(config.stepper.kind).shortened(config.stepper))
    costs = network_costs(short, grid, device)
    timed = max(1, min(rows, int(TIMED_FLOPS[kind] // costs.network.flops)))
    frames = decoded_at_once(device)
    with torch.device(device):
        networks = random_networks(short)
        step = network_call(networks.stepper, short, grid, timed)
        decode = decode_call(networks.autoencoder, grid, frames)
    stepping, decoding = _seconds(step, device), _seconds(decode, device)
    return Rates(timed * costs.network.flops / stepping, frames * costs.decode.flops / decoding)


def _seconds(call: Callable[[], Any], device: str) -> float:
    """Returns how long a call takes, the better of two after one to warm up."""
    finish = partial(torch.cuda.synchronize, device) if device.startswith("cuda") else int
    durations = []
    with torch.no_grad(), forecast_precision(device):
        for _ in range(3):
            finish()
            started = time.perf_counter()
            call()
            finish()
            durations.append(time.perf_counter() - started)
    return min(durations[1:])
