"""Predicts what a forecast will take before it runs: calls, operations, time, memory and bytes on disk."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ladcast.fields import ChannelSet
from ladcast.forecasting.codec import DECODED_AT_ONCE
from ladcast.forecasting.cost import FLOAT32_BYTES, NetworkCosts
from ladcast.forecasting.ensemble import EnsembleOptions
from ladcast.forecasting.rates import Rates


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
        time = "unknown" if self.seconds is None else f"{describe_seconds(self.seconds)} (networks alone)"
        calls = f"{self.network_calls} network, {self.encoder_calls} encoder, {self.decoded_frames} decoded frames"
        several = f"{self.starts} starts x " if self.starts > 1 else ""
        size = f"{several}{self.members} members x {self.lead_times} lead times"
        lines = [
            f"forecast  {size}, {self.batch_size} members at once",
            f"calls     {calls}",
            f"work      {self.flops / 1e12:.4g} TFLOP",
            f"time      {time}",
            f"memory    {_size(self.host_bytes)} host" + f", {_size(self.device_bytes)} GPU" * bool(self.device_bytes),
            f"disk      {_size(self.field_bytes)} as fields, {_size(self.latent_bytes)} as latents, uncompressed",
        ]
        return "\n".join(lines)


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
    frames = starts * leads
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
        field_bytes=options.members * frames * state_bytes * FLOAT32_BYTES,
        latent_bytes=options.members * frames * latent_bytes * FLOAT32_BYTES,
    )


def decoded_at_once(device: str) -> int:
    """Returns how many frames each call of the decoder has."""
    return DECODED_AT_ONCE.get(device.split(":")[0], 1)


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
