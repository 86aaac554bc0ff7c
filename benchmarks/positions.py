"""What each position encoding costs beside GeoRoPE: time of a call and of a training step, and memory beyond weights.

python benchmarks/positions.py [--size tiny] [--batch 8] [--frames 4] [--compile]

It runs on a GPU in bfloat16 where there is one, else on the CPU in float32.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import nn

from ladcast.config import complete, load_config
from ladcast.grid import Grid
from ladcast.models.transformer import LatentTransformer, TransformerConfig
from ladcast.nn.position import POSITION_ENCODINGS

CONFIGS = Path(__file__).parents[1] / "configs/model/transformer"
LATENTS = {"tiny": (32, Grid.parse("64x33-south").coarsen(4)), "375m": (84, Grid.parse("240x121-south").coarsen(8))}
"""Latent channels and grid of the embedded model and of the released one."""
SECONDS_AT_LEAST = 1.0


@dataclass(frozen=True)
class Case:
    """Describes one measurement."""

    encoding: str
    size: str
    batch: int
    frames: int
    compile: bool
    area_weighted: bool = False

    @property
    def name(self) -> str:
        """Returns the encoding as the study calls it."""
        return self.encoding + "+area" * self.area_weighted


def best_seconds(call: Callable[[], object], on_gpu: bool) -> float:
    """Returns the least time of a call, after two that warm it up."""
    times: list[float] = []
    for repeat in range(200):
        started = time.perf_counter()
        call()
        if on_gpu:
            torch.cuda.synchronize()
        if repeat >= 2:
            times.append(time.perf_counter() - started)
        if len(times) >= 5 and sum(times) > SECONDS_AT_LEAST:
            break
    return min(times)


def build(case: Case) -> LatentTransformer:
    """Builds the network with random weights."""
    latents, grid = LATENTS[case.size]
    size = load_config(CONFIGS / f"{case.size}.yaml", dict)
    tokens = grid.coarsen(size.get("patch_size", 1))
    config = complete(
        {**size, "position": case.encoding, "area_weighted": case.area_weighted},
        TransformerConfig,
        where=case.size,
        latent_channels=latents,
        latitude_deg=(tokens.latitude[0], tokens.latitude[-1]),
        longitude_deg=(tokens.longitude[0], tokens.longitude[-1]),
    )
    network = LatentTransformer(config)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.02)
    return network


def measure(case: Case) -> tuple[float, float, float]:
    """Returns seconds of a call, seconds of a training step, and GiB that the step needs beyond the weights."""
    on_gpu = torch.cuda.is_available()
    latents, grid = LATENTS[case.size]
    with torch.device("cuda" if on_gpu else "cpu"):
        network = build(case)
        noisy, past = (torch.randn(case.batch, latents, frames, *grid.shape) for frames in (case.frames, 1))
        c_noise, init_time = torch.randn(case.batch), torch.full((case.batch,), 1_540_000_000)
    if case.compile:
        network.compile(dynamic=False)

    def call() -> torch.Tensor:
        with torch.autocast("cuda", torch.bfloat16, enabled=on_gpu):
            answer: torch.Tensor = network(noisy, c_noise, past, init_time)
            return answer

    def step() -> None:
        call().float().square().mean().backward()
        network.zero_grad(set_to_none=True)

    before = used_gib(on_gpu)
    with torch.no_grad():
        forward = best_seconds(call, on_gpu)
    return forward, best_seconds(step, on_gpu), used_gib(on_gpu) - before


def used_gib(on_gpu: bool) -> float:
    """Returns the peak memory of this process so far: of the GPU, or of the machine."""
    if on_gpu:
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=list(LATENTS), default="tiny")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--frames", type=int, default=4)
    parser.add_argument("--compile", action="store_true")
    options = vars(parser.parse_args())
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    print(f"{where}, PyTorch {torch.__version__}, {options}")
    cases = [Case(name, **options) for name in ("geo", *sorted(POSITION_ENCODINGS.keys() - {"geo"}))]
    cases += [Case(name, **options, area_weighted=True) for name in ("geo_seamless", "alibi")]
    baseline = None
    print(f"{'encoding':18}{'call':>10}{'vs geo':>8}{'step':>10}{'vs geo':>8}{'memory':>12}{'vs geo':>8}")
    for case in cases:
        # A process each: memory and compiled kernels of one encoding do not meet those of another.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            cost = pool.submit(measure, case).result()
        baseline = baseline or cost
        forward, step, memory = (f"{ours / geo:8.2f}" for ours, geo in zip(cost, baseline, strict=True))
        numbers = f"{cost[0] * 1e3:7.1f} ms{forward}{cost[1] * 1e3:7.1f} ms{step}{cost[2]:8.2f} GiB{memory}"
        print(f"{case.name:18}{numbers}", flush=True)


if __name__ == "__main__":
    main()
