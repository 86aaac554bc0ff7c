"""Counts what torch.compile compiles, with graphs that run as they are: prints `name graphs runs difference`.

A program of its own, as functions whose shapes are checked while tests run cannot be traced.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ladcast.device import compiles
from ladcast.diffusion import Condition, Denoiser
from ladcast.models.transformer import LatentTransformer, TransformerConfig
from ladcast.training.distributed import Ranks, parallelize
from ladcast.training.options import TrainingOptions

SIZE = TransformerConfig(
    3, (-60.0, 60.0), (45.0, 315.0), heads=2, head_dim=8, dual_blocks=1, single_blocks=1, rope_axes_dim=(2, 2, 4)
)
COMPILE = torch.compile


class Counter:
    """Stands for torch.compile, without its slow half."""

    def __init__(self) -> None:
        self.graphs, self.runs = 0, 0

    def __call__(self, function: Callable, **options: object) -> Callable:
        return COMPILE(function, backend=self.backend, **options)

    def backend(self, graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable:
        self.graphs += 1

        def run(*arguments: Tensor) -> object:
            self.runs += 1
            return graph(*arguments)

        return run


def loss(model: nn.Module, batch: tuple[Tensor, ...], generator: torch.Generator) -> Tensor:
    noisy, past, time = batch
    return model(noisy, torch.ones(len(noisy)), Condition(past, time)).square().mean()


def gradients(options: TrainingOptions) -> list[Tensor]:
    torch.manual_seed(0)
    model = Denoiser(LatentTransformer(SIZE))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    generator = torch.Generator().manual_seed(0)
    noisy, past = (torch.randn(2, 3, frames, 4, 8, generator=generator) for frames in (4, 1))
    work = parallelize(model, loss, options, Ranks())
    work((noisy, past, torch.arange(2) * 10**8), generator).backward()
    return [parameter.grad for parameter in model.parameters()]


torch.compile = Counter()
compiles(torch.device("cpu"))  # asked once
expected = gradients(TrainingOptions())
for name, options in {
    "whole": TrainingOptions(compile=True),
    "recomputed": TrainingOptions(compile=True, recompute=True),
}.items():
    torch.compile = counter = Counter()
    found = gradients(options)
    off = max(float((ours - theirs).abs().max()) for ours, theirs in zip(found, expected, strict=True))
    print(name, counter.graphs, counter.runs, off)
