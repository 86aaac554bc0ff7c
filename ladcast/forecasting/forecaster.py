"""A forecaster: everything between an analysis and the next day's latents."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ladcast.diffusion.denoiser import Condition, Denoiser
from ladcast.diffusion.noise import karras_sigmas
from ladcast.diffusion.samplers import find_sampler
from ladcast.fields import ChannelSet
from ladcast.forecasting.codec import LatentCodec
from ladcast.grid import Grid
from ladcast.models.autoencoder import AutoencoderConfig
from ladcast.models.transformer import TransformerConfig
from ladcast.times import to_epoch_seconds
from ladcast.types import LatentSequence, PastSequence


@dataclass(frozen=True)
class SamplingOptions:
    """Sets how noise becomes a forecast (arXiv 2206.00364): solver, number of steps and range of noise levels.

    `precision` is that of the network on a GPU; a CPU computes in float32.
    """

    sampler: str = "heun"
    steps: int = 20
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0
    precision: Literal["bfloat16", "float32"] = "bfloat16"

    def sigmas(self) -> Tensor:
        """Returns the decreasing noise levels."""
        return karras_sigmas(self.steps, sigma_min=self.sigma_min, sigma_max=self.sigma_max, rho=self.rho)


@dataclass(frozen=True)
class ForecasterConfig:
    """Describes both networks, how many frames go in and out of one call, and the default sampling."""

    autoencoder: AutoencoderConfig
    transformer: TransformerConfig
    past_frames: int = 1
    future_frames: int = 4
    sigma_data: float = 0.5
    sampling: SamplingOptions = field(default_factory=SamplingOptions)


@dataclass(frozen=True)
class Forecaster:
    """Advances latents by one block of frames; carries its channels and grid, so that it needs nothing else."""

    config: ForecasterConfig
    codec: LatentCodec
    denoiser: Denoiser
    name: str = "unnamed"

    @property
    def channels(self) -> ChannelSet:
        """Returns the channels of its states."""
        return self.codec.normalizer.channels

    @property
    def grid(self) -> Grid:
        """Returns the grid of its states."""
        return self.codec.grid

    @property
    def device(self) -> torch.device:
        """Returns the device the networks are on."""
        return self.codec.static.device

    @property
    def block_shape(self) -> tuple[int, int, int, int]:
        """Returns the shape `latent time y x` of the frames that one call makes."""
        rows, columns = self.grid.coarsen(self.config.autoencoder.downsampling).shape
        return self.config.autoencoder.latent_channels, self.config.future_frames, rows, columns

    def compile(self) -> None:
        """Lets torch.compile fuse the network's kernels at its first call, which takes half a minute on a GPU."""
        self.denoiser.network.compile(dynamic=False)

    @torch.no_grad()
    def advance(
        self, past: PastSequence, init_time: np.datetime64, noise: LatentSequence, sampling: SamplingOptions
    ) -> LatentSequence:
        """Samples the frames after `init_time` given the frames up to it; one result for each row of `noise`."""
        seconds = to_epoch_seconds(init_time).to(self.device).expand(len(noise))
        condition = Condition(past.to(self.device), seconds)

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            clean: Tensor = self.denoiser(x, sigma.expand(len(x)), condition)
            return clean

        mixed = self.device.type == "cuda" and sampling.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=mixed):
            sigmas = sampling.sigmas().to(self.device)
            return find_sampler(sampling.sampler)(denoise, noise.to(self.device), sigmas)
