"""`ladcast plan forecast`: what a forecast will take, and the batch size that fits, before it runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from ladcast.checkpoint import read_document
from ladcast.commands.forecast import ensemble_options, keeps_latents, lead_step_hours, stepper_settings
from ladcast.device import find_device
from ladcast.fields import ChannelSet
from ladcast.forecasting.checkpoints import CHANNELS, GRID, read_config
from ladcast.forecasting.cost import NetworkCosts, largest_batch, network_costs
from ladcast.forecasting.forecaster import ForecasterConfig, find_stepper
from ladcast.forecasting.options import ForecastRequest
from ladcast.forecasting.plan import ForecastPlan, decoded_at_once, plan_forecast
from ladcast.forecasting.rates import Rates, measure_rates
from ladcast.grid import Grid
from ladcast.released.registry import ModelFolder

SHARE_OF_FREE_MEMORY = 0.8
"""What a batch may fill: kernels need work space, and allocators leave gaps."""


def plan(
    request: ForecastRequest, model: ModelFolder, *, tflops: float | None = None, fit_batch: bool = False
) -> ForecastPlan:
    """Predicts what a forecast will take, from the model's configuration; its weights are not read.

    Args:
        request: what to forecast; its source is not opened.
        model: folder of the model.
        tflops: 10^12 operations a second of the device; by default both networks are timed for a second.
        fit_batch: take the batch size that fits the free memory of the device in place of the one of the request.
    """
    config, channels, grid = read_description(model.path)
    device = request.device or ("cuda" if torch.cuda.is_available() else "cpu")
    costs = network_costs(config, grid, device if torch.cuda.is_available() else "cpu")
    options = ensemble_options(request, config.frames)
    with torch.device("meta"):
        stepper = find_stepper(config.stepper.kind).build(config.stepper)
    stepper = stepper.with_settings(**stepper_settings(request))
    if fit_batch or not request.batch_size:
        options = replace(options, batch_size=fitting_batch(costs, request.members, str(find_device(device))))
    if tflops is None:
        rates = measure_rates(config, grid, str(find_device(device)), rows=options.batch_size)
    else:
        rates = Rates(tflops * 1e12, tflops * 1e12)
    starts, staggered = (
        max(len(set(request.times)), 1),
        config.frames.step_hours // lead_step_hours(request, config.frames),
    )
    return plan_forecast(
        costs,
        channels,
        options,
        calls_per_step=stepper.calls,
        starts=starts,
        staggered=staggered,
        device=device,
        rates=rates,
        keeps_latents=keeps_latents(request, options, config.frames.future * starts * staggered),
    )


def fitting_batch(costs: NetworkCosts, members: int, device: str) -> int:
    """Returns the number of members in a call that fits the memory that is free on the device, and on the host, now.

    Raises:
        ValueError: not even one member fits.
    """
    free, host = (int(SHARE_OF_FREE_MEMORY * free_memory(where)) for where in (device, "cpu"))
    shared = 0 if device.startswith("cuda") else costs.host_bytes  # on a CPU both take of the same memory
    fits = largest_batch(costs, free, members, decoded_rows=decoded_at_once(device), host_bytes=shared)
    return min(fits, max(host // costs.host_bytes, 1))


def free_memory(device: str) -> int:
    """Returns the free bytes of a GPU, or of the machine: what programs may take without swapping."""
    if device.startswith("cuda"):
        free, _ = torch.cuda.mem_get_info(device)
        return int(free)
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/meminfo does not state MemAvailable. Choose a batch size yourself with --batch-size.")


def read_description(folder: Path) -> tuple[ForecasterConfig, ChannelSet, Grid]:
    """Reads what a forecaster's folder describes, without its weights."""
    channels = ChannelSet.from_dict(read_document(folder, CHANNELS))
    return read_config(folder), channels, Grid.from_dict(read_document(folder, GRID))
