"""Trains a small transformer on the ranks that the environment describes: ranks_program.py FOLDER KEY=VALUE ...

Further runs follow after "--": ranks meet once for all. Writes the averaged weights to FOLDER/weights.pt at the end.
While FOLDER/slow exists, each step lasts 1 s longer.
"""
# ruff: noqa: E402 - signals may come while the rest is imported

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ladcast.training.slurm import Interruption

interruption = Interruption()
if __name__ == "__main__":
    interruption.__enter__()

import numpy as np
import torch
import yaml
from torch import nn

from ladcast.config import parse_config
from ladcast.diffusion import Condition, Denoiser, TrainingNoise, denoising_loss, training_noise_like
from ladcast.models.transformer import LatentTransformer, TransformerConfig
from ladcast.recipes.recipe import Recipe, train
from ladcast.training.distributed import join_ranks
from ladcast.training.options import TrainingOptions

SIZE = TransformerConfig(
    3, (-60.0, 60.0), (45.0, 315.0), heads=2, head_dim=8, dual_blocks=1, single_blocks=1, rope_axes_dim=(2, 2, 4)
)


class Waves:
    """Serves waves that travel eastward, 2 frames on from 1."""

    def __len__(self) -> int:
        return 50

    def batch(self, indices: np.ndarray) -> tuple[torch.Tensor, ...]:
        place = torch.arange(4) * torch.pi / 2
        phase = torch.from_numpy(indices).float()[:, None, None, None, None] + torch.arange(3)[:, None, None]
        wave = (phase + place).sin().expand(-1, 3, -1, 4, -1)
        return wave[:, :, :1], wave[:, :, 1:], torch.from_numpy(indices) * 21_600


def loss(model: nn.Module, batch: tuple[torch.Tensor, ...], generator: torch.Generator) -> torch.Tensor:
    past, future, time_s = batch
    sigma = TrainingNoise().sample(len(future), generator)
    unit = training_noise_like(future, generator)
    return denoising_loss(model, future, Condition(past, time_s), sigma=sigma, noise=unit, weight=torch.ones(4, 1))


def new_model() -> Denoiser:
    torch.manual_seed(0)
    model = Denoiser(LatentTransformer(SIZE))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    return model


@dataclass(frozen=True)
class WavesRun:
    training: TrainingOptions
    output: Path
    trackers: tuple[str, ...] = ()


@dataclass(frozen=True)
class WavesRecipe(Recipe):
    """Trains the small transformer on waves."""

    run: WavesRun
    kind: str = "waves"
    inputs: ClassVar[dict[str, Any]] = {}
    samples = len(Waves())
    sample = Waves().batch(np.zeros(1, np.int64))
    bytes_on_gpu = 0

    @classmethod
    def open(cls, run: WavesRun, device: torch.device) -> "WavesRecipe":
        return cls(run)

    def network(self) -> Denoiser:
        return new_model()

    def loss(self, network: nn.Module, device: torch.device) -> Any:
        def slow_loss(*arguments: Any) -> torch.Tensor:
            if (self.run.output / "slow").exists():
                time.sleep(1)
            return loss(*arguments)

        return slow_loss

    def read(self, device: torch.device, progress: object) -> Waves:
        return Waves()

    def save(self, weights: dict[str, torch.Tensor]) -> Path:
        torch.save(weights, self.run.output / "partial.pt")
        return (self.run.output / "partial.pt").rename(self.run.output / "weights.pt")


def main(runs: list[list[str]], interrupted: Interruption) -> None:
    """Takes for each run its folder and its settings."""
    with join_ranks("cpu") as ranks:
        for folder, *pairs in runs:
            settings = {key: yaml.safe_load(value) for key, value in (pair.split("=", 1) for pair in pairs)}
            options = parse_config({"batch_size": 8, "ema_decay": 0.8, **settings}, TrainingOptions, where="test")
            recipe = WavesRecipe(WavesRun(options, Path(folder)))
            weights = train(recipe, ranks, interrupted)
            if ranks.is_first:
                recipe.save(weights)


def split(words: list[str]) -> list[list[str]]:
    """Splits a command line where "--" stands."""
    runs: list[list[str]] = [[]]
    for word in words:
        if word == "--":
            runs.append([])
        else:
            runs[-1].append(word)
    return runs


if __name__ == "__main__":
    main(split(sys.argv[1:]), interruption)
