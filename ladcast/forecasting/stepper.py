"""What advances a forecast by one call, and the rollout: the one place that owns the forecast clock."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from ladcast.models.transformer import TransformerConfig
from ladcast.nn.block import blocks
from ladcast.times import DAY, HOUR, Times, lead_times
from ladcast.types import LatentSequence, PastSequence


@dataclass(frozen=True)
class FrameCounts:
    """How many frames go in and out of one call, and how many hours lie between two of them."""

    past: int = 1
    future: int = 4
    step_hours: int = 6

    def __post_init__(self) -> None:
        if min(self.past, self.future, self.step_hours) < 1:
            raise ValueError(f"Expected past, future and step_hours of at least 1, got {self}.")

    @property
    def step(self) -> np.timedelta64:
        """Returns the time from one frame to the next."""
        return self.step_hours * HOUR

    @property
    def span(self) -> np.timedelta64:
        """Returns the time that one call advances a forecast."""
        return self.future * self.step

    def calls(self, days: int) -> int:
        """Returns how many calls reach a lead time of so many days."""
        return int(-(-days * DAY // self.span))

    def lead_times(self, calls: int) -> Shaped[np.ndarray, " lead"]:
        """Returns the lead times of the frames that so many calls make, as timedelta64[ns]."""
        return lead_times(calls * self.future, self.step)


@dataclass(frozen=True)
class TransformerStepperConfig:
    """Describes what every stepper with a latent transformer has: a network, its frames, and what it makes of them."""

    transformer: TransformerConfig
    frames: FrameCounts = field(default_factory=FrameCounts)
    sigma_data: float = 0.5
    change_std: tuple[tuple[float, ...], ...] | None = field(default=None, kw_only=True)
    """Standard deviation, by frame and latent channel, of the change since the last known frame: the network then
    makes such changes, scaled to `sigma_data`. None: it makes the frames themselves."""

    def __post_init__(self) -> None:
        shape = (self.frames.future, self.transformer.latent_channels)
        if self.change_std is not None and np.shape(self.change_std) != shape:
            raise ValueError(
                f"Expected change_std for {shape[0]} frames of {shape[1]} latent channels, got the shape "
                f"{np.shape(self.change_std)}."
            )

    def frames_of(self, made: LatentSequence, past: PastSequence) -> LatentSequence:
        """Returns the frames that what the network makes stands for, given the frames before them."""
        if self.change_std is None:
            return made
        return past[:, :, -1:] + made * change_scale(self.change_std, made) / self.sigma_data

    def shortened(self) -> TransformerStepperConfig:
        """Returns the configuration with one block of each kind in its transformer."""
        counts = ("dual_blocks", "single_blocks", "refiner_blocks")
        depth = {name: min(getattr(self.transformer, name), 1) for name in counts}
        return replace(self, transformer=replace(self.transformer, **depth))


def change_scale(change_std: tuple[tuple[float, ...], ...], like: Tensor) -> Float[Tensor, "latent time 1 1"]:
    """Returns the standard deviations of changes, on the device of `like` and without waiting for it."""
    std = torch.tensor(change_std, dtype=like.dtype).to(like.device, non_blocking=True)
    return std.T[:, :, None, None]


@dataclass(frozen=True, eq=False)
class Stepper(ABC):
    """Advances latents by one call: past frames, the time of the last of them, and noise make the frames that follow.

    A stepper is a value: its configuration and the network that holds its weights. A kind of stepper is a class in
    `forecaster.STEPPERS`; what it does not say itself holds for a network that is called once, without settings.
    """

    config: Any
    """A frozen dataclass with at least `kind` and `frames`, of the class `Config`."""
    network: Any
    """The module that is trained, averaged, compiled and saved."""

    Config: ClassVar[type]
    parents: ClassVar[tuple[str, ...]] = ()
    """Other kinds whose weights training may start from. They have the same names; what they lack starts anew."""

    @classmethod
    @abstractmethod
    def build(cls, config: Any) -> Stepper:
        """Builds the stepper of a configuration with new weights, on torch's default device."""

    @abstractmethod
    def __call__(
        self, past: PastSequence, init_time: Int[Tensor, " batch"], noise: Float[Tensor, "batch ..."]
    ) -> LatentSequence:
        """Returns the frames after `init_time`, in seconds since 1970-01-01 UTC, one forecast for each row.

        `noise` is unit Gaussian, of the shape `noise_shape` in each row. Gradients pass.
        """

    @abstractmethod
    def noise_shape(self, frame_shape: tuple[int, int, int]) -> tuple[int, ...]:
        """Returns the shape of one member's noise, given the shape `latent y x` of a frame."""

    @property
    def calls(self) -> int:
        """Returns how often one step calls the network."""
        return 1

    def call_network(
        self, past: PastSequence, init_time: Int[Tensor, " batch"], noise: Float[Tensor, "batch ..."]
    ) -> Tensor:
        """Calls the network once, as a step does: what a forecast costs is counted and timed on this."""
        return self(past, init_time, noise)

    def settings(self) -> dict[str, Any]:
        """Returns, as plain data, what a step depends on beside its weights and may be set for a forecast."""
        return {}

    def with_settings(self, **settings: Any) -> Stepper:
        """Returns this stepper with other settings, sharing its weights.

        Raises:
            ValueError: it has no such setting, or the value cannot be.
        """
        if unknown := sorted(set(settings) - set(self.settings())):
            known = ", ".join(self.settings()) or "none"
            raise ValueError(
                f"A stepper of the kind '{self.config.kind}' has no setting {', '.join(unknown)}; it has {known}."
            )
        return self

    def settings_for(self, calls: int) -> dict[str, Any]:
        """Returns the settings with which one step calls the network so often.

        Raises:
            ValueError: there are none; the message says how often it can.
        """
        if calls != self.calls:
            raise ValueError(f"Network calls of a step of the kind '{self.config.kind}': {self.calls}, not {calls}.")
        return {}

    def compile(self) -> None:
        """Lets torch.compile fuse the network's kernels at its first call: block by block, where it has blocks.

        That is as fast as the network in one piece, and is compiled in a third of the time (375M on an H200: 14 s).
        """
        for module in list(blocks(self.network)) or [self.network]:
            module.compile(dynamic=False)

    @classmethod
    def shortened(cls, config: Any) -> Any:
        """Returns the configuration of a network as wide but less deep, to be timed in place of a large one."""
        return config.shortened() if isinstance(config, TransformerStepperConfig) else config


Step = Callable[[PastSequence, np.datetime64, int], LatentSequence]
"""Maps (past latents, their last valid time, number of the step) to the following frames."""


@dataclass(frozen=True)
class ForecastStep:
    """The frames that one call of the forecaster made, when they are valid, and the frames that the next call sees."""

    number: int
    latents: LatentSequence
    valid_times: Times
    past: PastSequence


def rollout(
    step: Step, past: PastSequence, start: np.datetime64, numbers: range, frame_step: np.timedelta64
) -> Iterator[ForecastStep]:
    """Yields forecast steps, handing the last frames of each one to the next.

    `past` ends at `start`, where the first of the steps begins; frames are `frame_step` apart. The numbers of steps
    count from the initial time: a rollout that stopped goes on when given its last frames, their valid time and the
    remaining numbers.
    """
    for number in numbers:
        latents = step(past, start, number)
        past = torch.cat([past.to(latents.device), latents], dim=2)[:, :, -past.shape[2] :]
        valid_times = start + lead_times(latents.shape[2], frame_step)
        yield ForecastStep(number, latents, valid_times, past)
        start = start + latents.shape[2] * frame_step
