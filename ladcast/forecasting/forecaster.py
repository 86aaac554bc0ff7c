"""A forecaster: a codec and a stepper, everything between an analysis and the frames that follow it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ladcast.fields import ChannelSet
from ladcast.forecasting.codec import LatentCodec
from ladcast.forecasting.diffusion import DiffusionConfig, DiffusionStepper
from ladcast.forecasting.one_call import OneCallStepper
from ladcast.forecasting.stepper import FrameCounts, Stepper
from ladcast.grid import Grid
from ladcast.models.autoencoder import AutoencoderConfig
from ladcast.types import LatentSequence, PastSequence, to_epoch_seconds

STEPPERS: dict[str, Any] = {"diffusion": DiffusionStepper, "one_call": OneCallStepper}
"""The classes of steppers by kind. A class has a `Config`, the frozen dataclass of its configuration."""


def find_stepper(kind: str) -> Any:
    """Returns the class of a kind of stepper; raises ValueError that lists the known ones."""
    if kind not in STEPPERS:
        raise ValueError(f"Unknown kind of stepper '{kind}'. Known kinds: {', '.join(STEPPERS)}.")
    return STEPPERS[kind]


@dataclass(frozen=True)
class ForecasterConfig:
    """Describes the autoencoder and the stepper of a forecaster."""

    autoencoder: AutoencoderConfig
    stepper: Any
    """The configuration of a stepper of `STEPPERS`, such as `DiffusionConfig`."""

    @property
    def frames(self) -> FrameCounts:
        """Returns the frames of one call."""
        frames: FrameCounts = self.stepper.frames
        return frames

    def frame_shape(self, grid: Grid) -> tuple[int, int, int]:
        """Returns the shape `latent y x` of a frame."""
        rows, columns = grid.coarsen(self.autoencoder.downsampling).shape
        return self.autoencoder.latent_channels, rows, columns

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> ForecasterConfig:
        """Builds the configuration from plain data: that of `asdict`, or the one before steppers had kinds.

        Raises:
            ValueError: a key or value does not fit; the kind of stepper is unknown.
        """
        from pydantic import TypeAdapter

        if "stepper" not in content:
            content = _with_stepper(content)
        stepper = content["stepper"]
        schema = find_stepper(stepper.get("kind", DiffusionConfig.kind)).Config
        if unknown := set(content) - {"autoencoder", "stepper"}:
            raise ValueError(f"Expected autoencoder and stepper, got also {', '.join(sorted(unknown))}.")
        autoencoder = TypeAdapter(AutoencoderConfig).validate_python(content["autoencoder"])
        return cls(autoencoder, TypeAdapter(schema).validate_python(stepper))


@dataclass(frozen=True)
class Forecaster:
    """Makes the latents that follow an analysis; carries its channels and grid, so that it needs nothing else."""

    codec: LatentCodec
    stepper: Stepper
    name: str = "unnamed"

    @property
    def config(self) -> ForecasterConfig:
        """Returns what describes both networks."""
        return ForecasterConfig(self.codec.autoencoder.config, self.stepper.config)

    @property
    def frames(self) -> FrameCounts:
        """Returns the frames of one call."""
        return self.config.frames

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
    def frame_shape(self) -> tuple[int, int, int]:
        """Returns the shape `latent y x` of a frame."""
        return self.config.frame_shape(self.grid)

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Returns the shape of one member's noise for one call."""
        return self.stepper.noise_shape(self.frame_shape)

    def with_settings(self, **settings: Any) -> Forecaster:
        """Returns this forecaster with other settings of its stepper; those that are None stay as they are."""
        given = {name: value for name, value in settings.items() if value is not None}
        return replace(self, stepper=self.stepper.with_settings(**given)) if given else self

    @torch.no_grad()
    def step(self, past: PastSequence, init_time: np.datetime64, noise: Float[Tensor, "batch ..."]) -> LatentSequence:
        """Makes the frames after `init_time` given the frames up to it; one result for each row of `noise`."""
        seconds = to_epoch_seconds(init_time).to(self.device).expand(len(noise))
        return self.stepper(past.to(self.device), seconds, noise.to(self.device))


def _with_stepper(content: Mapping[str, Any]) -> dict[str, Any]:
    """Brings a configuration that knows the diffusion stepper alone into the present layout."""
    stepper = {
        name: value for name, value in content.items() if name not in ("autoencoder", "past_frames", "future_frames")
    }
    counts = {name: content[f"{name}_frames"] for name in ("past", "future") if f"{name}_frames" in content}
    return {"autoencoder": content.get("autoencoder"), "stepper": {**stepper, "frames": counts}}
