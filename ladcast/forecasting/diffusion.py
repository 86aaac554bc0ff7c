"""The diffusion stepper: samples the frames that follow with a denoiser that is called many times."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from ladcast.diffusion import FEWEST_STEPS, Condition, Denoiser, find_sampler, karras_sigmas
from ladcast.forecasting.stepper import Stepper, TransformerStepperConfig
from ladcast.models.transformer import LatentTransformer
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
class DiffusionConfig(TransformerStepperConfig):
    """Describes the denoiser and the default sampling."""

    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    kind: Literal["diffusion"] = "diffusion"


@dataclass(frozen=True, eq=False)
class DiffusionStepper(Stepper):
    """Solves the probability-flow ODE from noise to the frames that follow (EDM, arXiv 2206.00364)."""

    config: DiffusionConfig
    network: Denoiser

    Config: ClassVar[type] = DiffusionConfig

    @classmethod
    def build(cls, config: DiffusionConfig) -> DiffusionStepper:
        """Builds the stepper of a configuration with new weights, on torch's default device."""
        return cls(config, Denoiser(LatentTransformer(config.transformer), config.sigma_data))

    def __call__(self, past: PastSequence, init_time: Int[Tensor, " batch"], noise: LatentSequence) -> LatentSequence:
        """Samples the frames after `init_time`, one forecast for each row of the unit Gaussian `noise`."""
        sampling, device = self.config.sampling, noise.device.type
        condition = Condition(past, init_time)

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            level = torch.full((len(x),), sigma.item(), dtype=sigma.dtype, device=x.device)
            clean: Tensor = self.network(x, level, condition)
            return clean

        mixed = device == "cuda" and sampling.precision == "bfloat16"
        with torch.autocast(device, torch.bfloat16, enabled=mixed):
            denoised = find_sampler(sampling.sampler)(denoise, noise, sampling.sigmas())
        return self.config.frames_of(denoised, past)

    @property
    def calls(self) -> int:
        """Returns how often one step calls the denoiser, by letting the sampler call another."""
        calls = 0

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            return x

        sampling = self.config.sampling
        with torch.device("cpu"):
            find_sampler(sampling.sampler)(denoise, torch.zeros(1, 1, 1, 1, 1), sampling.sigmas())
        return calls

    def call_network(self, past: PastSequence, init_time: Int[Tensor, " batch"], noise: LatentSequence) -> Tensor:
        """Calls the denoiser once, at noise level 1."""
        clean: Tensor = self.network(noise, torch.ones(len(noise), device=noise.device), Condition(past, init_time))
        return clean

    def noise_shape(self, frame_shape: tuple[int, int, int]) -> tuple[int, ...]:
        """Returns the shape `latent time y x`: the noise is as large as what is made of it."""
        latent, rows, columns = frame_shape
        return latent, self.config.frames.future, rows, columns

    def settings(self) -> dict[str, Any]:
        """Returns the sampling options."""
        return asdict(self.config.sampling)

    def with_settings(self, **settings: Any) -> DiffusionStepper:
        """Returns this stepper with other sampling options, sharing its weights.

        Raises:
            ValueError: an option is unknown, or there cannot be so many steps.
        """
        super().with_settings(**settings)
        sampling = replace(self.config.sampling, **settings)
        sampling.sigmas()
        return replace(self, config=replace(self.config, sampling=sampling))

    def settings_for(self, calls: int) -> dict[str, Any]:
        """Returns the number of sampler steps that call the denoiser so often.

        Raises:
            ValueError: there is none.
        """

        def calls_of(steps: int) -> int:
            return self.with_settings(steps=steps).calls

        steps = bisect_left(range(calls + 2), calls, lo=FEWEST_STEPS, key=calls_of)
        if calls_of(steps) != calls:
            near = sorted({calls_of(max(steps - 1, FEWEST_STEPS)), calls_of(steps)})
            raise ValueError(
                f"The sampler {self.config.sampling.sampler} can call its network {' or '.join(map(str, near))} times "
                f"a step, not {calls}."
            )
        return {"steps": steps}
