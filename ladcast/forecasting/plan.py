"""Predicts what a forecast will take before it runs: calls, operations, time, memory and bytes on disk."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from ladcast.checkpoint import checkpoint_name
from ladcast.device import find_device
from ladcast.fields import ChannelSet
from ladcast.forecasting import ForecastRequest
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
from ladcast.forecasting.skill import (
    Choice,
    Chosen,
    choose_calls,
    describe_choice,
    list_choices,
    read_table,
    sketch_stepper,
)
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
    """Predicts what a forecast will take; see `Planner`."""
    planner = Planner(request, folder, tflops=tflops, fit_batch=fit_batch)
    return planner.plan(planner.choose())


@dataclass(frozen=True, kw_only=True)
class Planner:
    """Predicts what a forecast will take with each choice of a model, from configurations; no weights are read."""

    request: ForecastRequest = field(kw_only=False)
    """What to forecast; its source is not opened."""
    folder: Path = field(kw_only=False)
    """That of the model."""
    tflops: float | None = None
    """10^12 operations a second of the device; by default both networks are timed for a second."""
    fit_batch: bool = False
    """Take the batch size that fits the free memory of the device in place of the one of the request."""
    rates: dict[tuple[Path, int], Rates] = field(default_factory=dict)
    """What was measured, by the folder of the stepper and the rows of a call."""

    def choose(self, recorded: Mapping[str, Any] = MappingProxyType({})) -> Chosen:
        """Returns the stepper and its settings that the request asks for, see `choose_calls`.

        Within a number of seconds it is the choice with the best scores that is fast enough here. A forecast that was
        begun, whose identity is `recorded`, goes on with the choice that it was begun with.

        Raises:
            ValueError: there is no such choice; the message lists those that there are.
        """
        given, seconds = self.request.stepper_settings, self.request.seconds
        if seconds is None:
            return choose_calls(self.folder, self.request.calls, given)
        choices = [(choice, Chosen(choice.stepper, {**choice.settings, **given})) for choice in self.choices]
        for _, chosen in choices:
            made_with = (recorded.get("model"), recorded.get("options", {}).get("sampling", {}))
            if made_with == (checkpoint_name(self.folder / chosen.stepper), chosen.settings):
                return chosen
        slow = []
        for choice, chosen in choices:
            needed = self.plan(chosen).seconds
            assert needed is not None
            if needed <= seconds:
                return chosen
            slow.append(f"{choice} {needed:.3g} s")
        raise ValueError(
            f"No forecast of {self.folder.name} fits --seconds {seconds:g} here; by network calls a day the networks "
            f"take {', '.join(slow)}. Allow more, or take fewer --members or --days."
        )

    @cached_property
    def choices(self) -> list[Choice]:
        """Returns the choices of the model, the best first."""
        return list_choices(self.folder)

    def table(self, chosen: Chosen) -> str:
        """Writes the table of measured skill beside the seconds here; empty for a model without one."""
        table = read_table(self.folder)
        if table is None:
            return ""
        seconds = [self.plan(choice.chosen).seconds for choice in table.choices]
        return table.describe(seconds, describe_choice(self.folder, chosen))

    def plan(self, chosen: Chosen) -> ForecastPlan:
        """Predicts what the forecast will take with one choice."""
        path, request = self.folder / chosen.stepper, self.request
        config, channels, grid = read_description(path)
        device = request.device or ("cuda" if torch.cuda.is_available() else "cpu")
        costs = network_costs(config, grid, device if torch.cuda.is_available() else "cpu")
        options = ensemble_options(request, config.frames)
        if self.fit_batch or not request.batch_size:
            options = replace(options, batch_size=fitting_batch(costs, request.members, str(find_device(device))))
        starts = max(len(set(request.times)), 1)
        staggered = config.frames.step_hours // request.lead_hours(config.frames)
        return plan_forecast(
            costs,
            channels,
            options,
            calls_per_step=sketch_stepper(path).with_settings(**chosen.settings).calls,
            starts=starts,
            staggered=staggered,
            device=device,
            rates=self._rates(path, options.batch_size, device),
            keeps_latents=request.keeps_latents(config.frames, starts * staggered),
        )

    def _rates(self, path: Path, rows: int, device: str) -> Rates:
        if self.tflops is not None:
            return Rates(self.tflops * 1e12, self.tflops * 1e12)
        if (path, rows) not in self.rates:
            config, _, grid = read_description(path)
            self.rates[path, rows] = measure_rates(config, grid, str(find_device(device)), rows=rows)
        return self.rates[path, rows]


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
    with torch.random.fork_rng(devices=[]), torch.device(device):  # weights that are drawn here count for nothing else
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
