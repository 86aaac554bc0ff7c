"""Predicts what a forecast will take before it runs: calls, operations, time, memory and bytes on disk."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ladcast.device import find_device
from ladcast.fields import ChannelSet
from ladcast.forecasting.checkpoints import read_description
from ladcast.forecasting.codec import decoded_at_once
from ladcast.forecasting.cost import (
    FLOAT32_BYTES,
    NetworkCosts,
    decode_call,
    fitting_batch,
    forecast_precision,
    network_call,
    network_costs,
    random_networks,
)
from ladcast.forecasting.ensemble import EnsembleOptions, ensemble_options
from ladcast.forecasting.forecaster import ForecasterConfig, find_stepper
from ladcast.forecasting.options import ForecastRequest
from ladcast.grid import Grid

TIMED_FLOPS = {"cpu": 1e11, "cuda": 2e13}
"""By kind of device: a call that fills a GPU would keep a CPU busy for minutes."""


@dataclass(frozen=True)
class Rates:
    """Holds floating-point operations a second of the two networks on one machine."""

    stepper: float
    autoencoder: float


@dataclass(frozen=True)
class ForecastPlan:
    """Holds the prediction for one forecast; `seconds` is None where no rates are known.

    `seconds` covers the networks, bytes on disk are those without compression, and `host_bytes` and `device_bytes` are
    peaks, the former beyond what the process has before the forecast.
    """

    starts: int
    members: int
    lead_times: int
    batch_size: int
    network_calls: int
    encoder_calls: int
    decoded_frames: int
    flops: int
    seconds: float | None
    host_bytes: int
    device_bytes: int
    field_bytes: int
    latent_bytes: int

    def __str__(self) -> str:
        duration = "unknown" if self.seconds is None else f"{describe_seconds(self.seconds)} (networks alone)"
        calls = f"{self.network_calls} network, {self.encoder_calls} encoder, {self.decoded_frames} decoded frames"
        several = f"{self.starts} starts x " if self.starts > 1 else ""
        size = f"{several}{self.members} members x {self.lead_times} lead times"
        lines = [
            f"forecast  {size}, {self.batch_size} members at once",
            f"calls     {calls}",
            f"work      {self.flops / 1e12:.4g} TFLOP",
            f"time      {duration}",
            f"memory    {_size(self.host_bytes)} host" + f", {_size(self.device_bytes)} GPU" * bool(self.device_bytes),
            f"disk      {_size(self.field_bytes)} as fields, {_size(self.latent_bytes)} as latents, uncompressed",
        ]
        return "\n".join(lines)


def plan(
    request: ForecastRequest, folder: Path, *, tflops: float | None = None, fit_batch: bool = False
) -> ForecastPlan:
    """Predicts what a forecast will take, from the model's configuration; its weights are not read.

    Args:
        request: what to forecast; its source is not opened.
        folder: that of the model.
        tflops: 10^12 operations a second of the device; by default both networks are timed for a second.
        fit_batch: take the batch size that fits the free memory of the device in place of the one of the request.
    """
    config, channels, grid = read_description(folder)
    device = request.device or ("cuda" if torch.cuda.is_available() else "cpu")
    costs = network_costs(config, grid, device if torch.cuda.is_available() else "cpu")
    options = ensemble_options(request, config.frames)
    with torch.device("meta"):
        stepper = find_stepper(config.stepper.kind).build(config.stepper)
    stepper = stepper.with_settings(**request.stepper_settings)
    if fit_batch or not request.batch_size:
        options = replace(options, batch_size=fitting_batch(costs, request.members, str(find_device(device))))
    if tflops is None:
        rates = measure_rates(config, grid, str(find_device(device)), rows=options.batch_size)
    else:
        rates = Rates(tflops * 1e12, tflops * 1e12)
    starts = max(len(set(request.times)), 1)
    staggered = config.frames.step_hours // request.lead_hours(config.frames)
    return plan_forecast(
        costs,
        channels,
        options,
        calls_per_step=stepper.calls,
        starts=starts,
        staggered=staggered,
        device=device,
        rates=rates,
        keeps_latents=request.keeps_latents(config.frames, starts * staggered),
    )


def plan_forecast(
    costs: NetworkCosts,
    channels: ChannelSet,
    options: EnsembleOptions,
    *,
    calls_per_step: int,
    starts: int = 1,
    staggered: int = 1,
    device: str = "cpu",
    rates: Rates | None = None,
    keeps_latents: bool = False,
) -> ForecastPlan:
    """Predicts forecasts from `starts` initial times, each with so many staggered analyses.

    They are decoded to fields unless latents are kept. A step calls the network `calls_per_step` times.
    """
    config, grid = costs.config, costs.grid
    streams = starts * staggered
    runs = streams * options.batches
    calls = runs * options.blocks * calls_per_step
    decoded = 0 if keeps_latents else streams * options.blocks * _decoded_frames(options, config.frames.future, device)
    stepping = calls * options.batch_size * costs.network.flops
    coding = runs * costs.encode.flops + decoded * costs.decode.flops
    rows, columns = grid.shape
    state_bytes, latent_bytes = len(channels) * rows * columns, math.prod(config.frame_shape(grid))
    leads = staggered * options.blocks * config.frames.future
    latents = options.members * starts * leads * latent_bytes
    fields = options.members * starts * (leads + options.analysis) * state_bytes
    block = min(options.batch_size, options.members) * costs.host_bytes
    working = costs.working_bytes(options.batch_size, decoded_at_once(device))
    on_gpu = device.startswith("cuda")
    return ForecastPlan(
        starts=starts,
        members=options.members,
        lead_times=leads,
        batch_size=options.batch_size,
        network_calls=calls,
        encoder_calls=runs,
        decoded_frames=decoded,
        flops=stepping + coding,
        seconds=None if rates is None else stepping / rates.stepper + coding / rates.autoencoder,
        host_bytes=block + (0 if on_gpu else working),
        device_bytes=working if on_gpu else 0,
        field_bytes=fields * FLOAT32_BYTES,
        latent_bytes=(latents + options.analysis * starts * state_bytes) * FLOAT32_BYTES,
    )


def describe_seconds(seconds: float) -> str:
    """Writes a duration as people say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _decoded_frames(options: EnsembleOptions, future_frames: int, device: str) -> int:
    """Counts the frames that the decoder sees for one block of all members, the filled-up ones with them."""
    at_once = decoded_at_once(device)
    last = options.members - (options.batches - 1) * options.batch_size
    batches = [options.batch_size] * (options.batches - 1) + [last]
    return sum(-(-members * future_frames // at_once) * at_once for members in batches)


def _size(size: int) -> str:
    return f"{size / 1e9:.3g} GB" if size >= 1e9 else f"{size / 1e6:.3g} MB"


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
