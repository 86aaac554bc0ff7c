"""The released networks with random weights on a GPU: one call, beside what the public implementation needed."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from ladcast.config import complete, load_config
from ladcast.models.autoencoder import Autoencoder, AutoencoderConfig
from ladcast.models.transformer import LatentTransformer, TransformerConfig
from ladcast.nn.block import blocks

CONFIGS = Path(__file__).parents[1] / "configs/model"
RELEASED = {"position": "geo", "rotate_past_in_dual": False, "time_of_day": False}
# Seconds of one call on an H100 (80 GB) with PyTorch 2.11: transformers with 50 members, autoencoder with 8 frames.
PUBLIC_S = {
    ("375m", "float32"): 1.127,
    ("375m", "tf32"): 0.466,
    ("375m", "bfloat16"): 0.252,
    ("1p6b", "float32"): 4.676,
    ("1p6b", "tf32"): 1.691,
    ("1p6b", "bfloat16"): 0.882,
    ("encode", "tf32"): 0.102,  # PyTorch's default: convolutions in TF32
    ("encode", "bfloat16"): 0.073,
    ("decode", "tf32"): 0.107,
    ("decode", "bfloat16"): 0.082,
}
MEMBERS, FRAMES = 50, 8


def seconds(call: Callable[[], object], repeats: int = 5) -> float:
    """Returns the least time of a call on the GPU, after two that warm it up."""
    times = []
    for _ in range(repeats + 2):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    return min(times[2:])


def report(name: str, precision: str, call: Callable[[], object], note: str = "") -> None:
    """Prints the time of a call in one precision, and how many times faster it is than the public one."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision != "float32"
    torch.cuda.reset_peak_memory_stats()
    with torch.no_grad(), torch.autocast("cuda", torch.bfloat16, enabled=precision == "bfloat16"):
        ours = seconds(call)
    public = PUBLIC_S.get((name, precision))
    compared = f"public {public * 1e3:7.1f} ms, {public / ours:4.1f} times faster" if public else ""
    memory = torch.cuda.max_memory_allocated() / 2**30
    print(f"{name:7}{precision:9}{note:15}{ours * 1e3:7.1f} ms  peak {memory:5.1f} GiB  {compared}", flush=True)


def filled(network: nn.Module) -> nn.Module:
    """Gives every weight a random value: new networks end in zeros."""
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.02)
    return network.eval()


def time_transformer(name: str) -> None:
    size = load_config(CONFIGS / f"transformer/{name}.yaml", dict)
    globe = {"latitude_deg": (-83.25, 84.75), "longitude_deg": (5.25, 353.25)}
    config = complete(size, TransformerConfig, where=name, latent_channels=84, **globe, **RELEASED)
    with torch.device("cuda"):
        network = filled(LatentTransformer(config))
        noisy, past = torch.randn(MEMBERS, 84, 4, 15, 30), torch.randn(MEMBERS, 84, 1, 15, 30)
        c_noise, time = torch.randn(MEMBERS), torch.full((MEMBERS,), 1_540_000_000)

    def call() -> object:
        return network(noisy, c_noise, past, time)

    for precision in ("float32", "tf32", "bfloat16"):
        report(name, precision, call)
    for block in blocks(network):
        block.compile(dynamic=False)
    report(name, "bfloat16", call, "compiled")


def time_autoencoder() -> None:
    size = load_config(CONFIGS / "autoencoder/dcae84.yaml", dict)
    released = {"pole_kernel": "mirrored_outermost", "reconstruct_static": True}
    with torch.device("cuda"):
        config = complete(size, AutoencoderConfig, where="", channels=84, static_channels=5, **released)
        network = filled(Autoencoder(config))
        fields, static = torch.randn(FRAMES, 84, 120, 240), torch.randn(5, 120, 240)
        latent = torch.randn(FRAMES, 84, 15, 30)
    for note in ("", "channels last", "and compiled"):
        if note == "channels last":
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        elif note == "and compiled":
            network.encoder.compile(dynamic=False)
            network.decoder.compile(dynamic=False)
        for precision in ("tf32", "bfloat16"):
            report("encode", precision, lambda: network.encode(fields, static), note)
            report("decode", precision, lambda: network.decode(latent), note)


def main() -> None:
    if not torch.cuda.is_available():
        raise SystemExit("This benchmark needs a CUDA GPU.")
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}; {MEMBERS} members, {FRAMES} frames")
    time_autoencoder()
    for name in ("375m", "1p6b"):
        time_transformer(name)


if __name__ == "__main__":
    main()
