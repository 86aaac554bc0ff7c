"""One call of the released networks with random weights on a GPU, beside its floor and the public implementation.

networks.py [--eager]: the floor is the larger of two times: counted operations at the rate of a large product, counted
bytes (every weight read once) at that of a large copy, both measured in this run. The error is that of one member or
frame, relative to the same weights in float32. `--eager` leaves out what is compiled, for comparison.
"""

import argparse
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from ladcast.config import complete, load_config
from ladcast.device import FlopCounter
from ladcast.models.autoencoder import Autoencoder, AutoencoderConfig
from ladcast.models.transformer import LatentTransformer, TransformerConfig
from ladcast.nn.block import blocks

CONFIGS = Path(__file__).parents[1] / "configs/model"
RELEASED = {"position": "geo", "rotate_past_in_dual": False, "time_of_day": False}
# Seconds of one call on an H100 (80 GB) with PyTorch 2.11: transformers with 50 members, autoencoder for 8 frames.
PUBLIC_S = {
    ("375m", "bfloat16"): 0.252,
    ("1p6b", "bfloat16"): 0.882,
    ("encode", "tf32"): 0.102 / 8,  # a frame; PyTorch's default: convolutions in TF32
    ("encode", "bfloat16"): 0.073 / 8,
    ("decode", "tf32"): 0.107 / 8,
    ("decode", "bfloat16"): 0.082 / 8,
}
MEMBERS, FRAMES = 50, 16
Call = Callable[[int], Tensor]
"""Calls a network with so many members or frames."""


class Rates(NamedTuple):
    """What the card does at most: operations and bytes a second."""

    flops: float
    bytes: float


def seconds(call: Callable[[], object], repeats: int = 7) -> float:
    """Returns the median time of a call on the GPU, after two that warm it up."""
    times = []
    for _ in range(repeats + 2):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    return float(sorted(times[2:])[repeats // 2])


def measure_rates() -> Rates:
    size = 8192
    left, right = torch.randn(2, size, size, device="cuda", dtype=torch.bfloat16)
    source, target = torch.empty(2, 2**31, device="cuda", dtype=torch.uint8)
    return Rates(2 * size**3 / seconds(lambda: left @ right), 2 * 2**31 / seconds(lambda: target.copy_(source)))


def precise(name: str) -> None:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = name != "float32"


def report(name: str, call: Call, size: int, exact: Tensor, floor: float, *, precision: str, note: str = "") -> None:
    """Prints the time of a call for each member or frame of it, how near the floor it is, and how far from float32."""
    precise(precision)
    half = precision in ("float16", "bfloat16")
    context = torch.autocast("cuda", getattr(torch, precision)) if half else nullcontext()
    torch.cuda.reset_peak_memory_stats()
    with torch.no_grad(), context:
        started = time.perf_counter()
        made = call(1).float()
        call(size)
        torch.cuda.synchronize()
        cold = time.perf_counter() - started
        ours = seconds(lambda: call(size))
    error = float((made - exact).norm() / exact.norm())
    shared = 1 if name in ("375m", "1p6b") else size
    public = PUBLIC_S.get((name, precision))
    compared = f"; public {public * 1e3:.1f} ms: {public / ours * shared:.1f} times faster" if public else ""
    unit = "a call" if shared == 1 else "a frame"
    memory = torch.cuda.max_memory_allocated() / 2**30
    print(
        f"{name:7}{precision:9}{note:9}{ours / shared * 1e3:8.2f} ms {unit}, floor {floor / shared * 1e3:6.2f} "
        f"({floor / ours:4.0%}), cold {cold:5.1f} s, peak {memory:4.1f} GiB, error {error:.1e}{compared}",
        flush=True,
    )


def filled(network: nn.Module) -> nn.Module:
    """Gives every weight a random value: new networks end in zeros."""
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.02 if parameter.ndim == 1 else parameter[0].numel() ** -0.5)
    return network.eval()


def flops_of(build: Callable[[], Any], call: Callable[[Any], object]) -> float:
    """Counts the operations of a call without computing it."""
    with FakeTensorMode(), torch.no_grad():
        network = build()
        with FlopCounter() as counter:
            call(network)
    return float(counter.flops)


def time_transformer(name: str, rates: Rates, compiled: bool) -> None:
    size = load_config(CONFIGS / f"transformer/{name}.yaml", dict)
    globe = {"latitude_deg": (-83.25, 84.75), "longitude_deg": (5.25, 353.25)}
    config = complete(size, TransformerConfig, where=name, latent_channels=84, **globe, **RELEASED)

    def sample(members: int) -> tuple[Tensor, ...]:
        time = torch.full((members,), 1_540_000_000)
        return torch.randn(members, 84, 4, 15, 30), torch.randn(members), torch.randn(members, 84, 1, 15, 30), time

    flops = MEMBERS * flops_of(lambda: LatentTransformer(config), lambda network: network(*sample(1)))
    with torch.device("cuda"):
        network, everything = filled(LatentTransformer(config)), sample(MEMBERS)
    weights = 2 * sum(parameter.numel() for parameter in network.parameters())
    floor = max(flops / rates.flops, weights / rates.bytes)

    def call(members: int) -> Tensor:
        return cast(Tensor, network(*(part[:members] for part in everything)))

    precise("float32")
    exact = call(1).detach()  # with gradients: the path of training
    arguments = (name, call, MEMBERS, exact, floor)
    report(*arguments, precision="bfloat16")
    if name == "375m" and compiled:
        for block in blocks(network):
            block.compile(dynamic=False)
        report(*arguments, precision="bfloat16", note="compiled")


def time_autoencoder(rates: Rates) -> None:
    size = load_config(CONFIGS / "autoencoder/dcae84.yaml", dict)
    released = {"pole_kernel": "mirrored_outermost", "reconstruct_static": True}
    config = complete(size, AutoencoderConfig, where="", channels=84, static_channels=5, **released)

    def calls(network: Any, device: str = "cuda", frames: int = FRAMES) -> dict[str, Call]:
        with torch.device(device):
            fields, static = torch.randn(frames, 84, 120, 240), torch.randn(5, 120, 240)
            latent = torch.randn(frames, 84, 15, 30)
        return {"encode": lambda n: network.encode(fields[:n], static), "decode": lambda n: network.decode(latent[:n])}

    with torch.device("cuda"):
        network = filled(Autoencoder(config))
    weights = sum(parameter.numel() for parameter in network.parameters())  # half of the network, in half precision
    for name, call in calls(network).items():
        flops = FRAMES * flops_of(partial(Autoencoder, config), lambda fake: calls(fake, "cpu", 1)[name](1))  # noqa: B023
        precise("float32")
        exact = call(1).detach()
        for precision in ("float16", "bfloat16", "tf32"):
            floor = max(flops / rates.flops * (2 if precision == "tf32" else 1), weights / rates.bytes)
            report(name, call, FRAMES, exact, floor, precision=precision)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--eager", action="store_true")
    compiled = not parser.parse_args().eager
    if not torch.cuda.is_available():
        raise SystemExit("This benchmark needs a CUDA GPU.")
    rates = measure_rates()
    print(
        f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}: {rates.flops / 1e12:.0f} TFLOP/s, "
        f"{rates.bytes / 1e12:.2f} TB/s; {MEMBERS} members, {FRAMES} frames",
        flush=True,
    )
    time_autoencoder(rates)
    for name in ("375m", "1p6b"):
        time_transformer(name, rates, compiled)


if __name__ == "__main__":
    main()
