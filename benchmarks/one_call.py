"""An ensemble to latents at the released 375M size on a GPU: one call of the network a day beside a diffusion's calls.

`python benchmarks/one_call.py [--members 50] [--days 15] [--calls 20 39] [--size 375m]`: random weights, bfloat16. The
public implementation of the 375M needs 661 s for 50 members and 15 days with 39 calls a day on an H100.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from ladcast.config import load_config
from ladcast.fields import ERA5_CHANNELS
from ladcast.forecasting.diffusion import DiffusionConfig, DiffusionStepper, SamplingOptions
from ladcast.forecasting.one_call import OneCallConfig, OneCallStepper
from ladcast.forecasting.stepper import Stepper
from ladcast.grid import Grid
from ladcast.recipes.autoencoder import autoencoder_config
from ladcast.recipes.forecaster import transformer_config

CONFIGS = Path(__file__).parents[1] / "configs/model"
GRID = Grid.parse("240x121-south")
GIB = 2**30
AUTOENCODER = autoencoder_config(load_config(CONFIGS / "autoencoder/dcae84.yaml", dict), ERA5_CHANNELS, GRID, 5)


def seconds_of(work: Callable[[], object]) -> float:
    """Returns how long a work of the GPU takes."""
    torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - started


@torch.no_grad()
def roll_out(stepper: Stepper, members: int, days: int) -> torch.Tensor:
    """Makes the latents of an ensemble, a day a step."""
    rows, columns = GRID.coarsen(AUTOENCODER.downsampling).shape
    channels = AUTOENCODER.latent_channels
    shape = stepper.noise_shape((channels, rows, columns))
    past, start = torch.randn(members, channels, 1, rows, columns), torch.full((members,), 1_540_000_000)
    for day in range(days):
        past = stepper(past, start + 86_400 * day, torch.randn(members, *shape))[:, :, -1:]
    return past


def measure(name: str, stepper: Stepper, members: int, days: int) -> float:
    """Prints how long a forecast takes cold, its first day alone in this process, and warm; returns the latter."""
    for parameter in stepper.network.parameters():
        nn.init.normal_(parameter, std=0.02)  # new networks end in zeros
    torch.cuda.reset_peak_memory_stats()
    first = seconds_of(lambda: roll_out(stepper, members, 1))
    warm = seconds_of(lambda: roll_out(stepper, members, days))
    memory = torch.cuda.max_memory_allocated() / GIB
    print(
        f"{name:28s} {members} members x {days} d: {warm:7.2f} s warm, first day {first:5.2f} s, {memory:.1f} GiB",
        flush=True,
    )
    return warm


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--members", type=int, default=50)
    parser.add_argument("--days", type=int, default=15)
    parser.add_argument("--calls", type=int, nargs="+", default=[20, 39])
    parser.add_argument("--size", choices=["375m", "1p6b"], default="375m")
    arguments = parser.parse_args()
    torch.set_default_device("cuda")
    size = (arguments.members, arguments.days)
    network = transformer_config(load_config(CONFIGS / f"transformer/{arguments.size}.yaml", dict), AUTOENCODER, GRID)
    one = measure(f"{arguments.size}, one call a day", OneCallStepper.build(OneCallConfig(network)), *size)
    for calls in arguments.calls:
        # DPM-Solver++ calls the network once a step.
        sampling = SamplingOptions("dpmpp_2m", calls)
        stepper = DiffusionStepper.build(DiffusionConfig(network, sampling=sampling))
        assert stepper.calls == calls
        many = measure(f"{arguments.size}, {calls} calls a day", stepper, *size)
        print(f"{'':28s} {many / one:.1f} times one call a day")


if __name__ == "__main__":
    main()
