"""Members: noise that is a function of what it is for, and the stream of forecast frames they make."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float
from torch import Tensor

from ladcast.data.analysis import Analysis
from ladcast.data.packing import unpack
from ladcast.forecasting.forecaster import Forecaster
from ladcast.forecasting.rollout import LatentChunk, rollout
from ladcast.times import Times, describe
from ladcast.types import LatentSequence, OceanMask, PastSequence

Starts = Analysis | Sequence[Analysis] | Sequence[Sequence[Analysis]]
"""One start, its staggered starts (see `forecast_blocks`), or those of each of several initial times."""
FIRST_LATENT = 2**32
"""Stands for a block in the key of the noise on the first latent."""
LARGEST_LATENT = 1000.0
"""Standard deviations of latents beyond which a member has failed: more than the noise that it is drawn from has."""
FORECAST_DIMS = ("time", "prediction_timedelta", "number", "level", "latitude", "longitude")


@dataclass(frozen=True)
class EnsembleOptions:
    """Sets the size of an ensemble forecast.

    Members are computed in batches of exactly `batch_size`, the last one filled up and cut: the shape of a matrix
    product can change its last bits, so a fixed shape makes member 7 of 8 equal member 7 of 50.
    """

    members: int
    blocks: int
    seed: int
    batch_size: int = 8
    noise_scale: float = 1.0
    """Factor on the noise that a block starts from: above 1 for more spread."""
    perturbation: float = 0.0
    """Standard deviation of noise on the first latent, whose own is that of the latent scale (0.5)."""
    redraws: int = 0
    """How often a member that is not finite, or far outside all weather, is drawn again before the forecast stops."""

    @property
    def batches(self) -> int:
        """Returns the number of member batches."""
        return -(-self.members // self.batch_size)


@dataclass(frozen=True)
class Position:
    """Says where one member batch stands: its next block, and the frames before it.

    Batches count on over the starts of a forecast with several.
    """

    batch: int
    block: int
    past: PastSequence | None = None


@dataclass(frozen=True)
class LatentBlock:
    """Holds what one call of the forecaster made for the members of one batch: `member latent time y x`."""

    init_time: np.datetime64
    members: range
    chunk: LatentChunk

    @property
    def lead_times(self) -> Times:
        """Returns the time from the initial time to each frame, as timedelta64[ns]."""
        return (self.chunk.valid_times - self.init_time).astype("timedelta64[ns]")


def member_noise(
    shape: tuple[int, ...], *, seed: int, init_time: np.datetime64, member: int, block: int, attempt: int = 0
) -> Tensor:
    """Draws unit Gaussian noise that depends on nothing but its arguments (Philox counter-based generator).

    The key is (seed, initial time), the counter (attempt, block, member): no batch size, device, order or restart
    matters.
    """
    seconds = int(init_time.astype("datetime64[s]").astype(np.int64))
    key = np.array([seed, seconds], dtype=np.int64).view(np.uint64)
    bits = np.random.Philox(key=key, counter=np.array([0, attempt, block, member], dtype=np.uint64))
    return torch.from_numpy(np.random.Generator(bits).standard_normal(shape, dtype=np.float32))


@dataclass(frozen=True)
class MemberBatch:
    """Makes the noise and the blocks of one batch of members; `init_time` is that of the noise."""

    forecaster: Forecaster
    options: EnsembleOptions
    number: int
    init_time: np.datetime64

    @property
    def members(self) -> range:
        """Returns the numbers of its members, those that only fill up the last batch included."""
        first = self.number * self.options.batch_size
        return range(first, first + self.options.batch_size)

    def draw(self, shape: tuple[int, ...], block: int, attempt: int = 0) -> Float[Tensor, "batch ..."]:
        """Draws unit noise for every member."""
        seed, time = self.options.seed, self.init_time
        draws = [
            member_noise(shape, seed=seed, init_time=time, member=member, block=block, attempt=attempt)
            for member in self.members
        ]
        return torch.stack(draws)

    def first_latents(self, analysis: Analysis) -> PastSequence:
        """Encodes the analysis, perturbed for each member where that is asked for."""
        latent = self.forecaster.codec.encode(analysis.state[None]).cpu()
        perturbed: Tensor = latent + self.options.perturbation * self.draw(tuple(latent.shape[1:]), FIRST_LATENT)
        return perturbed[:, :, None]

    def step(self, past: PastSequence, start: np.datetime64, block: int) -> LatentSequence:
        """Advances all members by one block; a member that fails is drawn again as often as the options allow."""
        noise = self.draw(self.forecaster.noise_shape, block)
        for attempt in range(1, self.options.redraws + 2):
            latents = self.forecaster.step(past, start, self.options.noise_scale * noise)
            failed = self._failed(latents)
            if not failed.any():
                return latents
            names = ", ".join(str(self.members[index]) for index in failed.nonzero().flatten().tolist())
            warnings.warn(f"Members {names} failed in the block from {describe(start)}, draw {attempt}.", stacklevel=2)
            redrawn = self.draw(self.forecaster.noise_shape, block, attempt)
            noise = torch.where(failed.reshape(-1, *[1] * (noise.ndim - 1)), redrawn, noise)
        raise FloatingPointError(
            f"Expected latents of weather, got other or infinite ones for the members {names} in the block from "
            f"{describe(start)}, in {self.options.redraws + 1} draws. Check the analysis, or allow more redraws."
        )

    def _failed(self, latents: LatentSequence) -> Bool[Tensor, " batch"]:
        """Says which members are not finite or beyond any weather, leaving out those that only fill up the batch."""
        extent = latents.flatten(1).abs().amax(dim=1).cpu()
        asked = torch.tensor([member < self.options.members for member in self.members])
        return asked & ~(extent < LARGEST_LATENT * self.forecaster.codec.latent_scale.target)


def forecast_latents(
    forecaster: Forecaster,
    analysis: Analysis,
    options: EnsembleOptions,
    position: Position,
    init_time: np.datetime64 | None = None,
) -> Iterator[LatentChunk]:
    """Yields the remaining blocks of one member batch, `options.batch_size` members at once.

    The noise is that of `init_time`, by default the time of the analysis.

    Raises:
        FloatingPointError: a member is not finite or has left all weather behind, also after `options.redraws`.
    """
    batch = MemberBatch(forecaster, options, position.batch, analysis.time if init_time is None else init_time)
    past = batch.first_latents(analysis) if position.past is None else position.past
    start = analysis.time + position.block * forecaster.frames.span
    return rollout(batch.step, past, start, range(position.block, options.blocks), forecaster.frames.step)


def start_groups(starts: Starts) -> list[list[Analysis]]:
    """Returns the analyses of each initial time; the first of each is that of the initial time itself."""
    if isinstance(starts, Analysis):
        return [[starts]]
    together = [start for start in starts if isinstance(start, Analysis)]
    return [together] if together else [list(group) for group in starts if not isinstance(group, Analysis)]


def first_positions(starts: Starts, options: EnsembleOptions) -> list[Position]:
    """Returns where each member batch of each start begins: work that several processes can share."""
    return [Position(number, 0) for number in range(sum(map(len, start_groups(starts))) * options.batches)]


def forecast_ensemble(
    forecaster: Forecaster, starts: Starts, options: EnsembleOptions, positions: Iterable[Position] | None = None
) -> Iterator[tuple[Position, xr.Dataset]]:
    """Yields decoded frames of one member batch and block at a time, each with the position that follows it.

    Datasets are in SI units with the WeatherBench 2 dims `FORECAST_DIMS`; the blocks are those of `forecast_blocks`.
    """
    oceans = {group[0].time: group[0].ocean for group in start_groups(starts)}
    for following, block in forecast_blocks(forecaster, starts, options, positions):
        time = block.init_time
        yield following, decode_chunk(forecaster, block.chunk, block.members, init_time=time, ocean=oceans[time])


def forecast_blocks(
    forecaster: Forecaster, starts: Starts, options: EnsembleOptions, positions: Iterable[Position] | None = None
) -> Iterator[tuple[Position, LatentBlock]]:
    """Yields latents of one member batch and block at a time, each with the position that follows it.

    `positions` says where member batches go on, by default all from their beginning. The initial time is that of the
    first analysis of a group. Further ones, of the hours before it, are staggered starts: their frames fall between
    those of the first, so that six analyses an hour apart give a lead time each hour (arXiv 2506.09193). A member has
    the same noise in all of them, so that its hours belong together.
    """
    streams = [(group[0].time, analysis) for group in start_groups(starts) for analysis in group]
    for position in first_positions(starts, options) if positions is None else positions:
        stream, batch = divmod(position.batch, options.batches)
        init_time, analysis = streams[stream]
        members = range(batch * options.batch_size, min((batch + 1) * options.batch_size, options.members))
        for chunk in forecast_latents(forecaster, analysis, options, replace(position, batch=batch), init_time):
            ends = chunk.block + 1 == options.blocks
            past = None if ends else chunk.latents[:, :, -forecaster.frames.past :].cpu()
            kept = replace(chunk, latents=chunk.latents[: len(members)])
            yield Position(position.batch, chunk.block + 1, past), LatentBlock(init_time, members, kept)


def decode_chunk(
    forecaster: Forecaster, chunk: LatentChunk, members: range, *, init_time: np.datetime64, ocean: OceanMask
) -> xr.Dataset:
    """Decodes the given members of a chunk to the layout of `forecast_ensemble`."""
    latents = chunk.latents[: len(members)].transpose(1, 2)
    states = forecaster.codec.decode(latents.flatten(0, 1), ocean).unflatten(0, latents.shape[:2])
    per_member = [unpack(state, forecaster.channels, forecaster.grid, chunk.valid_times) for state in states]
    frames = xr.concat(per_member, xr.DataArray(list(members), dims="number", name="number"))
    leads = (frames["time"].values - init_time).astype("timedelta64[ns]")
    by_lead = frames.assign_coords(time=leads).rename(time="prediction_timedelta")
    return by_lead.expand_dims(time=[init_time]).transpose(*FORECAST_DIMS, missing_dims="ignore")
