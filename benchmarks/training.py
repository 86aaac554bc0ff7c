"""Training steps of the released sizes on random data: time, memory and MFU, beside those of the public implementation.

On one GPU: `python benchmarks/training.py`; on two: `torchrun --nproc-per-node 2 benchmarks/training.py`, which also
prints how much faster they are together. `--cases forecaster-375m` takes some of the cases, `--eager` leaves out
compilation, `--tiny` makes networks of a few thousand weights of them, for a CPU.
"""

import argparse
import gc
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ladcast.config import load_config
from ladcast.data.batches import SampleBatch, SampleOrder
from ladcast.fields import ERA5_CHANNELS
from ladcast.forecasting.diffusion import DiffusionConfig, DiffusionStepper
from ladcast.grid import Grid
from ladcast.models.autoencoder import Autoencoder, AutoencoderConfig
from ladcast.recipes.autoencoder import autoencoder_config, reconstruction_loss
from ladcast.recipes.forecaster import transformer_config
from ladcast.recipes.latents import latent_rows
from ladcast.training.cost import count_flops, peak_flops
from ladcast.training.distributed import Loss, Ranks, join_ranks, parallelize
from ladcast.training.loop import TrainingState, compute_gradient
from ladcast.training.objectives import DiffusionObjective, DiffusionTraining, ReconstructionTraining
from ladcast.training.options import TrainingOptions

CONFIGS = Path(__file__).parents[1] / "configs/model"
FRAMES = (1, 4)
GIB = 2**30
# Seconds and GiB of one step of the public implementation on an H100 (80 GB) with PyTorch 2.11, in bfloat16.
PUBLIC = {("forecaster-375m", 16): (0.246, 28.9), ("autoencoder", 4): (0.330, 15.8)}


@dataclass(frozen=True)
class Case:
    """A training step to be timed: samples on each GPU, and what memory is bought with time."""

    name: str
    batch: int
    compile: bool = False
    recompute: bool = False


CASES = (
    Case("forecaster-375m", 16),
    Case("forecaster-375m", 16, compile=True),
    Case("autoencoder", 4),
    Case("autoencoder", 4, compile=True),
    Case("forecaster-1p6b", 8, compile=True),
    Case("forecaster-1p6b", 16, compile=True, recompute=True),
)


def new_autoencoder(tiny: bool, device: torch.device) -> tuple[nn.Module, Loss, SampleBatch]:
    """Creates the released autoencoder, its loss, and the shapes of a sample."""
    size = load_config(CONFIGS / "autoencoder/dcae84.yaml", dict)
    grid = Grid.parse("48x25-south" if tiny else "240x121-south")
    config = autoencoder_config(size, ERA5_CHANNELS, grid, 5)
    if tiny:
        config = AutoencoderConfig(84, 5, 4, (8, 8), (1, 1), ("residual", "efficientvit"), ((), (5,)), head_dim=8)
    with device:
        model, static = Autoencoder(config), torch.randn(5, *grid.shape)
        valid = torch.ones(84, *grid.shape, dtype=torch.bool)
    loss = reconstruction_loss(
        config, static, grid, valid=valid, channels=ERA5_CHANNELS, options=ReconstructionTraining()
    )
    return model, loss, (torch.randn(1, 84, *grid.shape),)


def new_forecaster(name: str, tiny: bool, device: torch.device) -> tuple[nn.Module, Loss, SampleBatch]:
    """Creates a released transformer, its loss, and the shapes of a sample."""
    size = load_config(CONFIGS / f"transformer/{name}.yaml", dict)
    if tiny:
        size |= {"heads": 1, "head_dim": 8, "dual_blocks": 1, "single_blocks": 1, "rope_axes_dim": (2, 2, 4)}
    grid = Grid.parse("48x25-south" if tiny else "240x121-south")
    autoencoder = AutoencoderConfig(84, 5, 84, (84,) * 4, (1,) * 4, ("residual",) * 4, ((),) * 4)
    with device:
        stepper = DiffusionStepper.build(DiffusionConfig(transformer_config(size, autoencoder, grid)))
    objective = DiffusionObjective(DiffusionTraining(), latent_rows(grid, autoencoder).to(device))
    past, future = (torch.randn(1, 84, frames, *grid.coarsen(8).shape) for frames in FRAMES)
    sample = (past, future, torch.tensor([1_540_000_000]))
    return stepper.network, lambda _, batch, generator: objective(stepper, batch, generator), sample


def step_times(case: Case, ranks: Ranks, *, tiny: bool, steps: int) -> Iterator[tuple[float, float]]:
    """Yields the seconds of each of some steps after three that warm up, and the FLOPs of a sample."""
    kind, _, size = case.name.partition("-")
    new = new_autoencoder(tiny, ranks.device) if kind == "autoencoder" else new_forecaster(size, tiny, ranks.device)
    model, loss, sample = new
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.02)  # new networks end in zeros
    flops = count_flops(model, loss, sample)
    options = TrainingOptions(
        steps=1000, batch_size=case.batch * ranks.size, compile=case.compile, recompute=case.recompute
    )
    batch = tuple(part.expand(case.batch, *part.shape[1:]).contiguous().to(ranks.device) for part in sample)
    work = parallelize(model, loss, options, ranks)
    state = TrainingState(model, options, SampleOrder(options.batch_size, options.batch_size))
    for step in range(steps + 3):
        started = time.perf_counter()
        compute_gradient(work, batch, state, ranks, stop=False)
        for optimizer in state.optimizers:
            optimizer.step()
        state.average.update(model.state_dict())
        model.zero_grad(set_to_none=True)
        state.step += 1
        if ranks.device.type == "cuda":
            torch.cuda.synchronize()
        if step >= 3:
            yield time.perf_counter() - started, flops


def report(case: Case, ranks: Ranks, *, tiny: bool, steps: int) -> float:
    """Prints the median time of a step and what it means; returns the time, that of the slowest rank."""
    on_gpu = ranks.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    measured = sorted(step_times(case, ranks, tiny=tiny, steps=steps))
    seconds, flops = measured[len(measured) // 2]
    rate = case.batch * flops / seconds
    peak = peak_flops(ranks.device)
    memory = torch.cuda.max_memory_allocated() / GIB if on_gpu else float("nan")
    note = " ".join(word for word in ("compile", "recompute") if getattr(case, word))
    text = f"{case.name:16} batch {case.batch:3} x {ranks.size} GPU  {note:18} {seconds:7.3f} s  {memory:5.1f} GiB"
    text += f"  {rate / 1e12:6.1f} TFLOP/s"
    text += f"  MFU {rate / peak:.1%}" if peak else ""
    if (case.name, case.batch) in PUBLIC and not tiny:
        public_s, public_gib = PUBLIC[case.name, case.batch]
        text += f"  (public {public_s:.3f} s, {public_gib:.1f} GiB: {public_s / seconds:.2f} times faster)"
    if ranks.is_first:
        print(text, flush=True)
    gc.collect()
    if on_gpu:
        torch.cuda.empty_cache()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="*", default=[case.name for case in CASES])
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--eager", action="store_true")
    parser.add_argument("--steps", type=int, default=10)
    arguments = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = True
    with join_ranks() as ranks:
        if ranks.is_first:
            name = torch.cuda.get_device_name() if ranks.device.type == "cuda" else "CPU"
            print(f"{name}, PyTorch {torch.__version__}, {ranks.size} ranks", flush=True)
        for case in CASES:
            if case.name not in arguments.cases or (arguments.eager and case.compile):
                continue
            try:
                alone = report(case, Ranks(device=ranks.device), tiny=arguments.tiny, steps=arguments.steps)
                if ranks.size > 1:
                    together = report(case, ranks, tiny=arguments.tiny, steps=arguments.steps)
                    if ranks.is_first:
                        print(
                            f"{ranks.size} GPUs: {ranks.size * alone / together:.2f} times as fast as one", flush=True
                        )
            except torch.OutOfMemoryError as error:
                print(f"{case}: {str(error).splitlines()[0]}", flush=True)


if __name__ == "__main__":
    main()
