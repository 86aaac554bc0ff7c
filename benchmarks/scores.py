"""Fair CRPS of an ensemble: on a GPU beside the public implementation and a copy, on CPUs beside other libraries.

Needs nothing but torch for the GPU; the CPU part skips libraries that are not installed. Every figure is the least of
several runs. Usage: python benchmarks/scores.py [--members 50] [--channels 84] [--cpu-channels 4]
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ladcast.verification.crps import fair_crps, moments

PUBLIC_MS = 17.2
"""Fair CRPS of 50 x 84 x 120 x 240, sorted on an H100 (80 GB), as the public implementation does."""
GOAL_MS = 1.5
LAT, LON = 120, 240


def least_on_gpu(call: Callable[[], object], repeats: int = 20) -> float:
    """Returns the least milliseconds of a call on the GPU, after three that warm it up."""
    times = []
    for _ in range(repeats + 3):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
    return min(times[3:])


def least_on_cpu(call: Callable[[], object], repeats: int = 5) -> float:
    """Returns the least milliseconds of a call, after one that warms it up."""
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - started))
    return min(times[1:])


def sorted_fair_crps(members: Tensor, truth: Tensor) -> Tensor:
    """Sorts in torch, as an implementation without a kernel of its own does."""
    count = len(members)
    rank = torch.arange(1, count + 1, device=members.device, dtype=members.dtype)
    factor = (2 * rank - count - 1).reshape(-1, *[1] * truth.ndim)
    spread = (torch.sort(members, dim=0).values * factor).sum(0) / (count * (count - 1))
    return (members - truth).abs().mean(0) - spread


def time_gpu(members: int, channels: int) -> None:
    generator = torch.Generator("cuda").manual_seed(0)
    forecast = torch.randn(members, channels, LAT, LON, device="cuda", generator=generator)
    truth = torch.randn(channels, LAT, LON, device="cuda", generator=generator)
    exact = sorted_fair_crps(forecast[:, :2].double(), truth[:2].double())
    error = float((fair_crps(forecast, truth)[:2] - exact).abs().max())
    gigabytes = forecast.numel() * 4 / 1e9
    copy = torch.empty_like(forecast)
    copied = least_on_gpu(lambda: copy.copy_(forecast))
    ours, sort = (least_on_gpu(lambda f=f: f(forecast, truth)) for f in (fair_crps, sorted_fair_crps))
    both = least_on_gpu(lambda: moments(forecast, truth))
    reading = copied / 2
    print(
        f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}: {members} x {channels} x {LAT} x {LON}, float32"
    )
    print(f"fair CRPS                    {ours:7.3f} ms   goal {GOAL_MS} ms, largest error {error:.1e}")
    print(f"  all moments, one kernel    {both:7.3f} ms   {gigabytes / both * 1e3:5.0f} GB/s of members")
    print(f"  sorted in torch, this run  {sort:7.3f} ms   {sort / ours:5.1f} times slower")
    print(f"  public implementation      {PUBLIC_MS:7.1f} ms   {PUBLIC_MS / ours:5.1f} times slower (50 x 84, H100)")
    print(f"  reading the members once   {reading:7.3f} ms   half a copy; we take {ours / reading:.1f} times as long")


def others(forecast: np.ndarray, truth: np.ndarray) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yields the libraries that are installed, each in its own best way."""
    import xarray as xr

    # this file is called as one of the libraries is: its folder must not hide that
    sys.path[:] = [path for path in sys.path if Path(path).resolve() != Path(__file__).resolve().parent]
    ensemble = xr.DataArray(forecast, dims=("member", "channel", "latitude", "longitude"))
    observed = xr.DataArray(truth, dims=("channel", "latitude", "longitude"))
    try:
        from scores.probability import crps_for_ensemble

        yield "scores", lambda: crps_for_ensemble(ensemble, observed, "member", method="fair", preserve_dims="all")
    except ImportError:
        print("scores is not installed")
    try:
        import xskillscore

        yield "xskillscore (not fair)", lambda: xskillscore.crps_ensemble(observed, ensemble, dim=[])
    except ImportError:
        print("xskillscore is not installed")
    try:
        import scoringrules

        yield "scoringrules pwm", lambda: scoringrules.crps_ensemble(truth, forecast, m_axis=0, estimator="pwm")
    except ImportError:
        print("scoringrules is not installed")


def time_cpu(members: int, channels: int) -> None:
    random = np.random.default_rng(0)
    forecast = random.normal(size=(members, channels, LAT, LON)).astype(np.float32)
    truth = random.normal(size=(channels, LAT, LON)).astype(np.float32)
    tensors = torch.from_numpy(forecast), torch.from_numpy(truth)
    ours = least_on_cpu(lambda: fair_crps(*tensors))
    print(f"CPU, {torch.get_num_threads()} threads: {members} x {channels} x {LAT} x {LON}, float32")
    print(f"ladcast                      {ours:7.0f} ms")
    for name, call in others(forecast, truth):
        taken = least_on_cpu(call, repeats=3)
        print(f"{name:28} {taken:7.0f} ms   {taken / ours:5.1f} times ours")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--members", type=int, default=50)
    parser.add_argument("--channels", type=int, default=84)
    parser.add_argument("--cpu-channels", type=int, default=4)
    arguments = parser.parse_args()
    if torch.cuda.is_available():
        time_gpu(arguments.members, arguments.channels)
    else:
        print("no GPU: the GPU part is left out")
    time_cpu(arguments.members, arguments.cpu_channels)


if __name__ == "__main__":
    main()
