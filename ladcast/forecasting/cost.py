"""What a forecast costs, from its configuration alone: calls, floating-point operations, memory and bytes."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ladcast.device import FlopCounter, PeakMemory, tensors_for_counting
from ladcast.forecasting.codec import decoded_at_once
from ladcast.forecasting.forecaster import ForecasterConfig, find_stepper
from ladcast.forecasting.stepper import Stepper
from ladcast.grid import Grid
from ladcast.models.autoencoder import Autoencoder

FLOAT32_BYTES = 4
LEADS_WRITTEN = 4
"""Decoded lead times on the host while fields are written: `LEADS_AT_ONCE` of the writer, and one of the decoder."""
BLOCKS_SCORED = 3
"""Decoded blocks on the device while they are scored: as the decoder made them, joined, and on the way to scores."""
FEW = 0.05
"""Share of the memory up to which decoded blocks do not matter, nor do the activations of a call of as many rows."""
SHARE_OF_FREE_MEMORY = 0.8
"""What a batch may fill: kernels need work space, and allocators leave gaps."""


@dataclass(frozen=True)
class CallCost:
    """Holds the floating-point operations of one call of a network, and the peak of the tensors it makes on the way."""

    flops: int
    activation_bytes: int


@dataclass(frozen=True)
class NetworkCosts:
    """Holds the costs of the networks of a forecaster on one device, with random weights of the same shapes.

    Operations grow with the number of rows; the memory of a call is `call.activation_bytes` of one row plus
    `bytes_per_row` for each further one.
    """

    config: ForecasterConfig
    grid: Grid
    network: CallCost
    """Of one call of the stepper's network."""
    network_bytes_per_row: int
    encode: CallCost
    decode: CallCost
    decode_bytes_per_row: int
    network_bytes: int
    autoencoder_bytes: int

    @property
    def host_bytes(self) -> int:
        """Returns the memory that the decoded frames of one member take on the host while they are written."""
        return decoded_bytes(self.config, self.grid)

    def working_bytes(self, rows: int, decoded_rows: int = 1) -> int:
        """Returns the memory of weights and activations with `rows` members in a call of the stepper's network."""
        step = self.network.activation_bytes + (rows - 1) * self.network_bytes_per_row
        decode = self.decode.activation_bytes + (decoded_rows - 1) * self.decode_bytes_per_row
        return self.network_bytes + self.autoencoder_bytes + max(step, decode, self.encode.activation_bytes)


def decoded_bytes(config: ForecasterConfig, grid: Grid, *, scored: bool = False) -> int:
    """Returns the memory of the decoded frames of one member: on the host to be written, or on the device, scored."""
    (rows, columns), future = grid.shape, config.frames.future
    frames = BLOCKS_SCORED * future if scored else min(LEADS_WRITTEN, future + 1)
    return frames * config.autoencoder.channels * rows * columns * FLOAT32_BYTES


@cache
def network_costs(config: ForecasterConfig, grid: Grid, device: str = "cpu") -> NetworkCosts:
    """Finds the costs on fake tensors, which have shapes and no values: no memory, no weights, few seconds, once.

    Calls of very small networks on a CPU are made for real, in a tenth of the time. Without a GPU the memory on `cuda`
    is that of float32, which is more than its bfloat16 will need.
    """
    with tensors_for_counting(_elements(config, grid) if device == "cpu" else None), torch.device(device):
        networks = random_networks(config)
        one, two = (call_cost(network_call(networks.stepper, config, grid, rows), device) for rows in (1, 2))
        decode_one, decode_two = (call_cost(decode_call(networks.autoencoder, grid, rows), device) for rows in (1, 2))
        return NetworkCosts(
            config=config,
            grid=grid,
            network=one,
            network_bytes_per_row=two.activation_bytes - one.activation_bytes,
            encode=call_cost(encode_call(networks.autoencoder, grid), device),
            decode=decode_one,
            decode_bytes_per_row=decode_two.activation_bytes - decode_one.activation_bytes,
            network_bytes=_weight_bytes(networks.stepper.network),
            autoencoder_bytes=_weight_bytes(networks.autoencoder),
        )


def _elements(config: ForecasterConfig, grid: Grid) -> int:
    """Returns the number of weights and of values of a state."""
    with torch.device("meta"):
        networks = random_networks(config)
    held = (weight.numel() for net in (networks.stepper.network, networks.autoencoder) for weight in net.parameters())
    return sum(held) + config.autoencoder.channels * math.prod(grid.shape)


def fitting_batch(costs: NetworkCosts, members: int, device: str) -> int:
    """Returns the number of members in a call that fits the memory that is free on the device, and on the host, now.

    Raises:
        ValueError: not even one member fits.
    """
    free, host = (int(SHARE_OF_FREE_MEMORY * free_memory(where)) for where in (device, "cpu"))
    shared = 0 if device.startswith("cuda") else costs.host_bytes  # on a CPU both take of the same memory
    fits = largest_batch(costs, free, members, decoded_rows=decoded_at_once(device), host_bytes=shared)
    return min(fits, max(host // costs.host_bytes, 1))


def require_memory(config: ForecasterConfig, grid: Grid, rows: int, device: str, *, scored: bool = False) -> None:
    """Raises ValueError where that many members at once, written or scored, are more than the memory holds.

    The networks are only looked at where the decoded frames alone take a good part of it.
    """
    place = device if scored and device.startswith("cuda") else "cpu"
    decoded = rows * decoded_bytes(config, grid, scored=scored)
    free = {name: free_memory(name) for name in (device, place)}
    if decoded < FEW * min(free.values()):
        return
    wanted = Counter({place: decoded})
    if decoded < free[place]:
        wanted[device] += network_costs(config, grid, device).working_bytes(rows, decoded_at_once(device))
    for where, size in wanted.items():
        if size > free[where]:
            raise ValueError(
                f"{rows} members at once take at least {size / 2**30:.3g} GiB of memory on {where}, of which "
                f"{free[where] / 2**30:.3g} GiB are free. Take fewer --members, or make a forecast with a "
                "smaller --batch-size (0: as many as fit)."
            )


def free_memory(device: str) -> int:
    """Returns the free bytes of a GPU, or of the machine: what programs may take without swapping."""
    if device.startswith("cuda"):
        free, _ = torch.cuda.mem_get_info(device)
        return int(free)
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/meminfo does not state MemAvailable. Choose a batch size yourself with --batch-size.")


def largest_batch(
    costs: NetworkCosts, free_bytes: int, members: int, *, decoded_rows: int = 1, host_bytes: int = 0
) -> int:
    """Returns the largest number of members in a call whose memory stays within `free_bytes`, at most `members`.

    Each member takes `host_bytes` more.

    Raises:
        ValueError: not even one member fits.
    """

    def needed(rows: int) -> int:
        return costs.working_bytes(rows, decoded_rows) + rows * host_bytes

    fixed = needed(1)
    if fixed > free_bytes:
        raise ValueError(
            f"Expected {fixed / 2**30:.1f} GiB of free memory for one member, got {free_bytes / 2**30:.1f} GiB. "
            "Use another device, or a smaller model."
        )
    return bisect_right(range(1, members + 1), free_bytes, key=needed)


@dataclass(frozen=True)
class Networks:
    """Holds the stepper and the autoencoder of a forecaster."""

    stepper: Stepper
    autoencoder: Autoencoder


def random_networks(config: ForecasterConfig) -> Networks:
    """Builds the networks of a configuration with random weights, on torch's default device."""
    stepper: Stepper = find_stepper(config.stepper.kind).build(config.stepper)
    stepper.network.eval()
    return Networks(stepper, Autoencoder(config.autoencoder).eval())


def network_call(stepper: Stepper, config: ForecasterConfig, grid: Grid, rows: int) -> Callable[[], Any]:
    """Returns a call of the stepper's network with `rows` members, on torch's default device."""
    latent, y, x = config.frame_shape(grid)
    noise = torch.zeros(rows, *stepper.noise_shape((latent, y, x)))
    past = torch.zeros(rows, latent, config.frames.past, y, x)
    seconds = torch.zeros(rows, dtype=torch.int64)
    return lambda: stepper.call_network(past, seconds, noise)


def encode_call(autoencoder: Autoencoder, grid: Grid) -> Callable[[], Tensor]:
    """Returns a call of the encoder with one state."""
    config = autoencoder.config
    state, static = torch.zeros(1, config.channels, *grid.shape), torch.zeros(config.static_channels, *grid.shape)
    return lambda: autoencoder.encode(state, static)


def decode_call(autoencoder: Autoencoder, grid: Grid, rows: int) -> Callable[[], Tensor]:
    """Returns a call of the decoder with `rows` latents."""
    config = autoencoder.config
    latent = torch.zeros(rows, config.latent_channels, *grid.coarsen(config.downsampling).shape)
    return lambda: autoencoder.decode(latent)


def call_cost(call: Callable[[], Any], device: str) -> CallCost:
    """Counts operations and peak memory of a call, as a forecast makes it: bfloat16 on a GPU, without gradients."""
    with torch.no_grad(), forecast_precision(device), PeakMemory() as memory, FlopCounter() as operations:
        call()
    return CallCost(int(operations.flops), memory.peak_bytes)


def forecast_precision(device: str) -> torch.autocast:
    """Returns the precision in which `Forecaster.step` and `LatentCodec` call networks on a device."""
    enabled = device.startswith("cuda") and torch.cuda.is_available()
    return torch.autocast(device.split(":")[0] if enabled else "cpu", torch.bfloat16, enabled=enabled)


def _weight_bytes(network: nn.Module) -> int:
    return sum(weight.nbytes for weight in network.parameters())
