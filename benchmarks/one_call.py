"""An ensemble to latents at the released 375M size on a GPU: one call of the network a day beside a diffusion's calls.

`python benchmarks/one_call.py [--members 50] [--days 15] [--calls 20 39]`: random weights, bfloat16, blocks compiled.
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
SIZE = transformer_config(load_config(CONFIGS / "transformer/375m.yaml", dict), AUTOENCODER, GRID)


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
    """Prints the first and the best of three further runs; returns the best."""
    for parameter in stepper.network.parameters():
        nn.init.normal_(parameter, std=0.02)  # new networks end in zeros
    stepper.compile()
    torch.cuda.reset_peak_memory_stats()
    first, *others = (seconds_of(lambda: roll_out(stepper, members, days)) for _ in range(4))
    memory = torch.cuda.max_memory_allocated() / GIB
    print(
        f"{name:22s} {members} members x {days} d: {min(others):7.2f} s, cold {first:6.1f} s, {memory:.1f} GiB",
        flush=True,
    )
    return min(others)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--members", type=int, default=50)
    parser.add_argument("--days", type=int, default=15)
    parser.add_argument("--calls", type=int, nargs="+", default=[20, 39])
    arguments = parser.parse_args()
    torch.set_default_device("cuda")
    size = (arguments.members, arguments.days)
    one = measure("one call a day", OneCallStepper.build(OneCallConfig(SIZE)), *size)
    for calls in arguments.calls:
        # DPM-Solver++ calls the network once a step.
        sampling = SamplingOptions("dpmpp_2m", calls)
        stepper = DiffusionStepper.build(DiffusionConfig(SIZE, sampling=sampling))
        assert stepper.calls == calls
        many = measure(f"diffusion, {calls} calls", stepper, *size)
        print(f"{'':22s} {many / one:.1f} times one call")


if __name__ == "__main__":
    main()
