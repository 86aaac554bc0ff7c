"""Members: noise that is a function of what it is for, and the forecast steps that they make."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float
from torch import Tensor

from ladcast.data.analysis import Analysis
from ladcast.data.normalization import unpack
from ladcast.forecasting import ForecastRequest
from ladcast.forecasting.forecaster import Forecaster
from ladcast.forecasting.stepper import ForecastStep, FrameCounts, rollout
from ladcast.times import Times, describe
from ladcast.types import LatentSequence, PastSequence

FIRST_LATENT = 2**32
"""Stands for a forecast step in the key of the noise on the first latent."""
LARGEST_LATENT = 1000.0
"""Standard deviations of latents beyond which a member has failed: more than the noise that it is drawn from has."""
FORECAST_DIMS = ("time", "prediction_timedelta", "number", "level", "latitude", "longitude")


@dataclass(frozen=True)
class EnsembleOptions:
    """The size, the length and the randomness of an ensemble forecast.

    Members are computed in batches of exactly `batch_size`, the last one filled up and cut: the shape of a matrix
    product can change its last bits, so a fixed shape makes member 7 of 8 equal member 7 of 50.
    """

    members: int
    blocks: int
    """Forecast steps: calls of the forecaster, each of which makes all its future frames."""
    seed: int
    batch_size: int = 8
    noise_scale: float = 1.0
    """Factor on the noise that a forecast step starts from: above 1 for more spread."""
    perturbation: float = 0.0
    """Standard deviation of noise on the first latent, whose own is that of the latent scale (0.5)."""
    redraws: int = 0
    """How often a member that is not finite, or far outside all weather, is drawn again before the forecast stops."""
    analysis: bool = False
    """Whether a forecast on disk begins with the analysis, at lead time 0."""
    only: tuple[int, ...] = ()
    """Numbers of the members to keep, ascending; empty for all. Their batches are computed whole, so that bits stay."""

    @property
    def kept(self) -> tuple[int, ...]:
        """Returns the numbers of the members that are kept."""
        return self.only or tuple(range(self.members))

    @property
    def batches(self) -> int:
        """Returns the number of member batches."""
        return -(-self.members // self.batch_size)


def ensemble_options(request: ForecastRequest, frames: FrameCounts) -> EnsembleOptions:
    """Returns the ensemble that a request asks for, of a model with these frames a call."""
    names = [field.name for field in fields(EnsembleOptions) if field.name not in ("blocks", "only")]
    return EnsembleOptions(blocks=frames.calls(request.days), **{name: getattr(request, name) for name in names})


class InitialCondition(NamedTuple):
    """The analysis that a forecast starts from, and the initial time that its noise and lead times count from.

    Both times are one, but for the forecasts from the hours before an initial time whose frames fall between those of
    the forecast from the initial time itself: six analyses an hour apart give a lead time each hour (arXiv 2506.09193).
    A member has the same noise in all of them, so that its hours belong together.
    """

    analysis: Analysis
    init_time: np.datetime64


def staggered(analyses: Sequence[Analysis]) -> list[InitialCondition]:
    """Returns the initial conditions of one initial time: that of the first analysis, which knows the ocean for all."""
    first, *_ = analyses
    return [InitialCondition(replace(analysis, ocean=first.ocean), first.time) for analysis in analyses]


def member_noise(
    shape: tuple[int, ...], *, seed: int, init_time: np.datetime64, member: int, step: int, attempt: int = 0
) -> Tensor:
    """Draws unit Gaussian noise that depends on nothing but its arguments (Philox counter-based generator).

    The key is (seed, initial time), the counter (attempt, step, member): no batch size, device, order or restart
    matters.
    """
    seconds = int(init_time.astype("datetime64[s]").astype(np.int64))
    key = np.array([seed, seconds], dtype=np.int64).view(np.uint64)
    bits = np.random.Philox(key=key, counter=np.array([0, attempt, step, member], dtype=np.uint64))
    return torch.from_numpy(np.random.Generator(bits).standard_normal(shape, dtype=np.float32))


@dataclass(frozen=True)
class MemberBatch:
    """The members of one initial condition that are computed at once, and how far their forecast has come."""

    forecaster: Forecaster
    options: EnsembleOptions
    initial: InitialCondition
    condition: int
    """Index of the initial condition among those of the whole forecast."""
    number: int
    """Index of this batch among those of its initial condition."""
    done: int = 0
    """Forecast steps that are made already."""
    past: PastSequence | None = None
    """The frames before the next step; None at the beginning."""

    @property
    def members(self) -> list[int]:
        """Returns the numbers of its members that are kept, without those that only fill up the last batch."""
        return [member for member in self.options.kept if member in self._rows]

    def of_members(self, step: ForecastStep) -> LatentSequence:
        """Returns the latents of the members that are kept."""
        return step.latents[[member - self._rows.start for member in self.members]]

    @property
    def _rows(self) -> range:
        first = self.number * self.options.batch_size
        return range(first, first + self.options.batch_size)

    def forecast(self) -> Iterator[ForecastStep]:
        """Yields the remaining forecast steps; latents have a row for each member that fills up the batch, too.

        Raises:
            FloatingPointError: a member is not finite or has left all weather behind, also after the redraws.
        """
        past = self.first_latents() if self.past is None else self.past
        frames = self.forecaster.frames
        start = self.initial.analysis.time + self.done * frames.span
        return rollout(self.step, past, start, range(self.done, self.options.blocks), frames.step)

    def first_latents(self) -> PastSequence:
        """Encodes the analysis, perturbed for each member where that is asked for."""
        latent = self.forecaster.codec.encode(self.initial.analysis.state[None]).cpu()
        perturbed: Tensor = latent + self.options.perturbation * self.draw(tuple(latent.shape[1:]), FIRST_LATENT)
        return perturbed[:, :, None]

    def step(self, past: PastSequence, start: np.datetime64, number: int) -> LatentSequence:
        """Advances all members by one step; a member that fails is drawn again as often as the options allow."""
        noise = self.draw(self.forecaster.noise_shape, number)
        for attempt in range(1, self.options.redraws + 2):
            latents = self.forecaster.step(past, start, self.options.noise_scale * noise)
            failed = self._failed(latents)
            if not failed.any():
                return latents
            names = ", ".join(str(self._rows[index]) for index in failed.nonzero().flatten().tolist())
            warnings.warn(f"Members {names} failed in the step from {describe(start)}, draw {attempt}.", stacklevel=2)
            redrawn = self.draw(self.forecaster.noise_shape, number, attempt)
            noise = torch.where(failed.reshape(-1, *[1] * (noise.ndim - 1)), redrawn, noise)
        raise FloatingPointError(
            f"Expected latents of weather, got other or infinite ones for the members {names} in the step from "
            f"{describe(start)}, in {self.options.redraws + 1} draws. Check the analysis, or allow more redraws."
        )

    def draw(self, shape: tuple[int, ...], step: int, attempt: int = 0) -> Float[Tensor, "batch ..."]:
        """Draws unit noise for every row."""
        seed, time = self.options.seed, self.initial.init_time
        draws = [
            member_noise(shape, seed=seed, init_time=time, member=member, step=step, attempt=attempt)
            for member in self._rows
        ]
        return torch.stack(draws)

    def _failed(self, latents: LatentSequence) -> Bool[Tensor, " batch"]:
        """Says which members are not finite or beyond any weather, leaving out those that only fill up the batch."""
        extent = latents.flatten(1).abs().amax(dim=1).cpu()
        asked = torch.tensor([member in self.members for member in self._rows])
        return asked & ~(extent < LARGEST_LATENT * self.forecaster.codec.latent_scale.target)


def member_batches(
    forecaster: Forecaster, conditions: Sequence[InitialCondition], options: EnsembleOptions
) -> list[MemberBatch]:
    """Returns the member batches of each initial condition: work that several processes can share."""
    batches = [
        MemberBatch(forecaster, options, initial, condition, number)
        for condition, initial in enumerate(conditions)
        for number in range(options.batches)
    ]
    return [batch for batch in batches if batch.members]


def forecast_ensemble(forecaster: Forecaster, analysis: Analysis, options: EnsembleOptions) -> Iterator[xr.Dataset]:
    """Yields one forecast step after the other: the frames of all members, in SI units.

    They have the WeatherBench 2 dims `FORECAST_DIMS`, so that `xr.concat(forecast_ensemble(...),
    "prediction_timedelta")` is the whole forecast. Memory holds one step; `ladcast.forecast` writes to disk instead.
    """
    batches = member_batches(forecaster, staggered([analysis]), options)
    for steps in zip(*(batch.forecast() for batch in batches), strict=True):
        frames = [decode_step(batch, step) for batch, step in zip(batches, steps, strict=True)]
        yield frames[0] if len(frames) == 1 else xr.concat(frames, "number")


def decode_step(batch: MemberBatch, step: ForecastStep) -> xr.Dataset:
    """Decodes the frames of a batch's members to the layout of `forecast_ensemble`."""
    codec = batch.forecaster.codec
    latents = batch.of_members(step).transpose(1, 2)
    states = codec.decode(latents.flatten(0, 1), batch.initial.analysis.ocean).unflatten(0, latents.shape[:2])
    return _as_forecast(states, batch, step.valid_times)


def _as_forecast(states: Float[Tensor, "member lead channel lat lon"], batch: MemberBatch, valid: Times) -> xr.Dataset:
    frames = unpack(states.transpose(0, 1), batch.forecaster.channels, batch.forecaster.grid, valid)
    leads = (valid - batch.initial.init_time).astype("timedelta64[ns]")
    by_lead = frames.assign_coords(time=leads, number=batch.members).rename(time="prediction_timedelta")
    return by_lead.expand_dims(time=[batch.initial.init_time])
