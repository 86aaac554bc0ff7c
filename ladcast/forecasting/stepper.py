"""What advances a forecast by one call: the protocol that every kind of model fulfils."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from ladcast.times import DAY, HOUR, lead_times
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


class Stepper(Protocol):
    """Advances latents by one call: past frames, the time of the last of them, and noise make the frames that follow.

    A stepper is a value: its configuration and the network that holds its weights. Times enter as seconds since
    1970-01-01 UTC, one for each row of the batch.
    """

    @property
    def config(self) -> Any:
        """Returns a frozen dataclass with at least `kind` and `frames`, of the class that `build` takes."""
        ...

    @property
    def network(self) -> nn.Module:
        """Returns the module that is trained, averaged, compiled and saved."""
        ...

    def __call__(
        self, past: PastSequence, init_time: Int[Tensor, " batch"], noise: Float[Tensor, "batch ..."]
    ) -> LatentSequence:
        """Returns the frames after `init_time`, one forecast for each row of the unit Gaussian `noise`."""
        ...

    @classmethod
    def build(cls, config: Any) -> Self:
        """Builds the stepper of a configuration with new weights, on torch's default device."""
        ...

    @property
    def calls(self) -> int:
        """Returns how often one step calls the network."""
        ...

    def call_network(
        self, past: PastSequence, init_time: Int[Tensor, " batch"], noise: Float[Tensor, "batch ..."]
    ) -> Any:
        """Calls the network once, as a step does; what a forecast costs is counted and timed on this."""
        ...

    def noise_shape(self, frame_shape: tuple[int, int, int]) -> tuple[int, ...]:
        """Returns the shape of one member's noise, given the shape `latent y x` of a frame."""
        ...

    def settings(self) -> dict[str, Any]:
        """Returns, as plain data, what a step depends on beside its weights and may be set for a forecast."""
        ...

    def with_settings(self, **settings: Any) -> Self:
        """Returns this stepper with other settings, sharing its weights; raises ValueError for one that it lacks."""
        ...

    def compile(self) -> None:
        """Lets torch.compile fuse the network's kernels at its first call."""
        ...

    @classmethod
    def shortened(cls, config: Any) -> Any:
        """Returns the configuration of a network as wide but less deep, to be timed in place of a large one."""
        ...
