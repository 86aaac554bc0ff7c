"""The one-call stepper: one call of a latent transformer, with a few random numbers a member, makes the next frames."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Gt
from jaxtyping import Float, Int
from torch import Tensor, nn

from ladcast.forecasting.stepper import Stepper, TransformerStepperConfig
from ladcast.models.transformer import LatentTransformer
from ladcast.types import LatentSequence, PastSequence

MemberNoise = Float[Tensor, "batch *numbers"]

FIRST_PERTURBATION = 0.1
"""Standard deviation of a new network's perturbation of its condition. Not zero: of equal members the distance has no
gradient, and the mean gradient of their errors is none either, so that their spread could not begin to grow."""


@dataclass(frozen=True)
class OneCallConfig(TransformerStepperConfig):
    """Describes the network, the random numbers of a member, and the noise level that the network is told."""

    noise_features: Annotated[int, Ge(0)] = 32
    """Unit Gaussian numbers that make a member of a forecast. 0: a member is made of a field of them in the shape of
    the frames, which the network sees in the place of noisy ones."""
    sigma_start: Annotated[float, Gt(0)] = 2.0
    """The noise level that the network believes to see. A denoiser that is shown nothing but noise far larger than the
    latents (0.5) answers with the mean of all forecasts: its weights are a start for these. Still larger levels are
    rare in its training."""
    kind: Literal["one_call"] = "one_call"


class OneCall(nn.Module):
    """Makes frames, or their changes, of the known ones and of unit Gaussian numbers z: c_out F(0; c_noise, A z).

    F is a backbone as in `Denoiser`, with weights of the same names, called with no noisy frames at a fixed noise
    level; A z perturbs the condition that modulates all of its blocks (FGN, arXiv 2506.10772). With z = 0 this is
    D(0; sigma_start) of the denoiser. Where z is a field there is no A: c_out F(z; c_noise).
    """

    def __init__(self, network: LatentTransformer, config: OneCallConfig) -> None:
        super().__init__()
        self.network = network
        self.noise = None
        if config.noise_features:
            self.noise = nn.Linear(config.noise_features, config.transformer.dim, bias=False)
            nn.init.normal_(self.noise.weight, std=FIRST_PERTURBATION / math.sqrt(config.noise_features))
        self.frames = config.frames.future
        self.c_noise = math.log(config.sigma_start) / 4
        self.c_out = config.sigma_start * config.sigma_data / math.hypot(config.sigma_start, config.sigma_data)

    def forward(self, past: PastSequence, init_time: Int[Tensor, " batch"], noise: MemberNoise) -> LatentSequence:
        """Returns what one call makes, scaled to `sigma_data`, in the dtype of `past`."""
        batch, latent, _, *sides = past.shape
        c_noise, perturbation = past.new_full((batch,), self.c_noise), None
        if self.noise is not None:
            perturbation, noise = self.noise(noise), past.new_zeros(batch, latent, self.frames, *sides)
        made: LatentSequence = self.network(noise, c_noise, past, init_time, perturbation)
        return self.c_out * made.to(past.dtype)


@dataclass(frozen=True, eq=False)
class OneCallStepper(Stepper):
    """Makes the frames that follow by one call of its network."""

    config: OneCallConfig
    network: OneCall

    Config: ClassVar[type] = OneCallConfig
    parents: ClassVar[tuple[str, ...]] = ("diffusion",)

    @classmethod
    def build(cls, config: OneCallConfig) -> OneCallStepper:
        """Builds the stepper of a configuration with new weights, on torch's default device."""
        return cls(config, OneCall(LatentTransformer(config.transformer), config))

    def __call__(self, past: PastSequence, init_time: Int[Tensor, " batch"], noise: MemberNoise) -> LatentSequence:
        """Makes the frames after `init_time`, one forecast for each row of `noise`; in bfloat16 on a GPU.

        A CPU makes one row after the other: it is as fast, and a member has the same bits in a batch of any size.
        """
        if noise.device.type == "cpu":
            rows = zip(past.split(1), init_time.split(1), noise.split(1), strict=True)
            # Copies, since where a row begins in memory can change the last bits of its products.
            return torch.cat([self.call_network(*(part.clone() for part in row)) for row in rows])
        with torch.autocast(noise.device.type, torch.bfloat16):
            return self.call_network(past, init_time, noise)

    def call_network(self, past: PastSequence, init_time: Int[Tensor, " batch"], noise: MemberNoise) -> LatentSequence:
        """Makes the frames in the precision that the caller has chosen."""
        return self.config.frames_of(self.network(past, init_time, noise), past)

    def noise_shape(self, frame_shape: tuple[int, int, int]) -> tuple[int, ...]:
        """Returns the number of random numbers of a member, or the shape `latent time y x` of its field of them."""
        latent, *sides = frame_shape
        numbers = self.config.noise_features
        return (numbers,) if numbers else (latent, self.config.frames.future, *sides)
