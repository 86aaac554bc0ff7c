"""An ensemble to latents at the released 375M size on a GPU: one call of the network a day beside a diffusion's calls.

`python benchmarks/one_call.py [--members 50] [--days 15] [--calls 20 39]`: random weights, bfloat16, blocks compiled.
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch import nn

from ladcast.forecasting.diffusion import DiffusionConfig, DiffusionStepper, SamplingOptions
from ladcast.forecasting.one_call import OneCallConfig, OneCallStepper
from ladcast.forecasting.stepper import Stepper
from ladcast.models.transformer import TransformerConfig

SIZE = TransformerConfig(84, latitude_deg=(-83.25, 84.75), longitude_deg=(5.25, 353.25))
GIB = 2**30


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
    shape = stepper.noise_shape((84, 15, 30))
    past, start = torch.randn(members, 84, 1, 15, 30), torch.full((members,), 1_540_000_000)
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
