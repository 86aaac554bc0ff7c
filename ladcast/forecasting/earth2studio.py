"""ladcast's forecasters as prognostic models of earth2studio (the protocol `PrognosticModel` of its version 0.19).

    from ladcast import find_model

    model = PrognosticModel.load(find_model("nature-t31").path, seed=0)
    earth2studio.run.ensemble(["2001-01-01"], 10, 8, model, data, io, Zero())

Nothing of earth2studio is imported: its coordinates are ordered mappings of arrays, and its models are known by their
methods. A member is a function of seed, initial time and its number along `ensemble`, as in `ladcast forecast`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ladcast.data.lexicon import EARTH2STUDIO_NAMES
from ladcast.data.normalization import ocean_mask
from ladcast.data.weather import check_state
from ladcast.forecasting.checkpoints import load_forecaster
from ladcast.forecasting.ensemble import member_noise
from ladcast.forecasting.forecaster import Forecaster
from ladcast.forecasting.stepper import rollout
from ladcast.grid import TOLERANCE_DEG
from ladcast.times import HOUR, describe
from ladcast.types import Latent, LatentSequence, PastSequence, State

OWN_DIMS = ("lead_time", "variable", "lat", "lon")
BATCH_SIZE, ENDLESS = 8, 2**31
Coordinates = OrderedDict[str, np.ndarray]


class PrognosticModel:
    """A forecaster as earth2studio calls it: a state in, one frame after the other out, the state itself first.

    Args:
        folder: the model's folder, to load it again on another device.
        forecaster: what makes the forecast.
        seed: of the members.
        batch_size: members that are computed at once; the last bits depend on it, on no other batch.
        settings: of the forecaster's sampler, which it has again on another device.
    """

    def __init__(
        self,
        folder: Path,
        forecaster: Forecaster,
        *,
        seed: int = 0,
        batch_size: int = BATCH_SIZE,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder, self.forecaster, self.seed, self.batch_size = folder, forecaster, seed, batch_size
        self.settings = settings or {}

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        device: str = "cpu",
        seed: int = 0,
        batch_size: int = BATCH_SIZE,
        **settings: Any,
    ) -> PrognosticModel:
        """Loads the model in a folder (`find_model(NAME).path`); settings are those of its sampler."""
        forecaster = load_forecaster(folder, device).with_settings(**settings)
        return cls(folder, forecaster, seed=seed, batch_size=batch_size, settings=settings)

    def to(self, device: Any) -> PrognosticModel:
        """Returns this model with its networks on a device."""
        wanted = torch.device(device)
        if wanted.type == self.forecaster.device.type:
            return self
        return self.load(self.folder, device=str(wanted), seed=self.seed, batch_size=self.batch_size, **self.settings)

    def input_coords(self) -> Coordinates:
        """Returns what a state has: lead times up to 0 h, channels under their names, and the grid."""
        frames, channels, grid = self.forecaster.frames, self.forecaster.channels, self.forecaster.grid
        names = [EARTH2STUDIO_NAMES.get(name, name) for name in channels.names]
        lead = (np.arange(1 - frames.past, 1) * frames.step_hours * HOUR).astype("timedelta64[h]")
        return OrderedDict(
            batch=np.empty(0),
            lead_time=lead,
            variable=np.array(names),
            lat=np.asarray(grid.latitude),
            lon=np.asarray(grid.longitude),
        )

    def output_coords(self, input_coords: Coordinates) -> Coordinates:
        """Returns what the next frame has.

        Raises:
            ValueError: the channels or the grid are not the model's, or the frames are too few.
        """
        own, given = self.input_coords(), OrderedDict(input_coords)
        if tuple(given)[-4:] != OWN_DIMS:
            raise ValueError(f"Expected the last dimensions {', '.join(OWN_DIMS)}, got {', '.join(given)}.")
        if list(given["variable"]) != list(own["variable"]):
            raise ValueError(f"Expected the channels {', '.join(own['variable'])}, got {', '.join(given['variable'])}.")
        for name in ("lat", "lon"):
            if given[name].shape != own[name].shape or abs(given[name] - own[name]).max() > TOLERANCE_DEG:
                raise ValueError(f"Expected '{name}' of {self.forecaster.grid}. Interpolate to `input_coords`.")
        if len(given["lead_time"]) != len(own["lead_time"]):
            raise ValueError(f"Expected {len(own['lead_time'])} frames, got {len(given['lead_time'])}.")
        given["lead_time"] = given["lead_time"][-1:] + np.timedelta64(self.forecaster.frames.step_hours, "h")
        return given

    def __call__(self, x: Tensor, coords: Coordinates) -> tuple[Tensor, Coordinates]:
        """Returns the frame that follows a state."""
        frames = self.create_iterator(x, coords)
        next(frames)
        return next(frames)

    def create_iterator(self, x: Tensor, coords: Coordinates) -> Iterator[tuple[Tensor, Coordinates]]:
        """Yields the state, its last frame alone, and then its forecast frame by frame, without an end.

        Raises:
            ValueError: the coordinates are not those of the model, or there is no `time`; no weather has such a state.
        """
        made = self.output_coords(coords)
        if "time" not in coords:
            raise ValueError(f"Expected a dimension 'time' of initial times, got {', '.join(coords)}.")
        yield x[..., -1:, :, :, :], OrderedDict(coords, lead_time=coords["lead_time"][-1:])
        frames, starts = self.forecaster.frames, self._starts(x, coords)
        rollouts = [rollout(start.step, start.past, start.time, range(ENDLESS), frames.step) for start in starts]
        for steps in zip(*rollouts, strict=True):
            for frame in range(frames.future):
                states = torch.empty(x.flatten(0, -5)[:, -1].shape)
                for start, step in zip(starts, steps, strict=True):
                    states[start.rows] = start.decode(step.latents[:, :, frame])
                yield states.reshape(x[..., -1:, :, :, :].shape).to(x.device), made.copy()
                made["lead_time"] = made["lead_time"] + np.timedelta64(frames.step_hours, "h")

    def _starts(self, x: Tensor, coords: Coordinates) -> list[_Start]:
        """Sorts the rows by initial time, and encodes their states."""
        leading = list(coords)[:-4]
        labels = [dict(zip(leading, row, strict=True)) for row in product(*(coords[name] for name in leading))]
        times = np.array([label["time"] for label in labels], "datetime64[ns]") + coords["lead_time"][-1]
        states, starts = x.flatten(0, -5).float().cpu(), []
        for time in np.unique(times):
            rows = np.flatnonzero(times == time).tolist()
            members = [int(labels[row].get("ensemble", place)) for place, row in enumerate(rows)]
            if len(set(members)) < len(members):
                raise ValueError(f"Expected one state for each time and member, got the dimensions {leading}.")
            starts.append(_Start(self, time, rows, members, states[rows]))
        return starts


class _Start:
    """The members of one initial time: where they stand among all rows, and what they are made with."""

    def __init__(
        self, model: PrognosticModel, time: np.datetime64, rows: list[int], members: list[int], states: Tensor
    ) -> None:
        self.model, self.time, self.rows, self.members = model, time, rows, members
        forecaster = model.forecaster
        for state in states[:, -1]:
            check_state(state.numpy(), forecaster.channels, forecaster.grid, f"the state given at {describe(time)}")
        self.oceans = [ocean_mask(state, forecaster.channels) for state in states[:, -1]]
        encoded = [torch.cat([forecaster.codec.encode(frame[None]).cpu() for frame in state]) for state in states]
        self.past: PastSequence = torch.stack(encoded).transpose(1, 2)

    def step(self, past: PastSequence, start: np.datetime64, number: int) -> LatentSequence:
        """Advances all members, each at its place in its batch; any fills the places of those that are not here."""
        size, row_of = self.model.batch_size, {member: row for row, member in enumerate(self.members)}
        made: dict[int, Tensor] = {}
        for first in sorted({member // size * size for member in row_of}):
            batch = range(first, first + size)
            here = [member for member in batch if member in row_of]
            rows = [row_of.get(member, row_of[here[0]]) for member in batch]
            noise = torch.stack([self._noise(member, number) for member in batch])
            latents = self.model.forecaster.step(past[rows], start, noise).cpu()
            made |= {member: latents[member - first] for member in here}
        return torch.stack([made[member] for member in self.members])

    def _noise(self, member: int, number: int) -> Tensor:
        shape, seed = self.model.forecaster.noise_shape, self.model.seed
        return member_noise(shape, seed=seed, init_time=self.time, member=member, step=number)

    def decode(self, latents: Latent) -> State:
        """Decodes a frame of each member, with its own land."""
        codec, pairs = self.model.forecaster.codec, zip(latents, self.oceans, strict=True)
        return torch.cat([codec.decode(latent[None], ocean) for latent, ocean in pairs])
