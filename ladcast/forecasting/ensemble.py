"""Members: noise that is a function of what it is for, and the stream of forecast frames they make."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from ladcast.data.analysis import Analysis
from ladcast.data.packing import unpack
from ladcast.forecasting.forecaster import Forecaster, SamplingOptions
from ladcast.forecasting.rollout import LatentChunk, rollout
from ladcast.times import STEP, Times
from ladcast.types import LatentSequence, OceanMask, PastSequence

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
    sampling: SamplingOptions
    batch_size: int = 8

    @property
    def batches(self) -> int:
        """Returns the number of member batches."""
        return -(-self.members // self.batch_size)


@dataclass(frozen=True)
class Position:
    """Says where an ensemble forecast stands: the next block of one member batch, and the frames before it.

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


def member_noise(shape: tuple[int, ...], *, seed: int, init_time: np.datetime64, member: int, block: int) -> Tensor:
    """Draws unit Gaussian noise that depends on nothing but its arguments (Philox counter-based generator).

    The key is (seed, initial time), the counter (block, member): no batch size, device, order or restart matters.
    """
    seconds = int(init_time.astype("datetime64[s]").astype(np.int64))
    key = np.array([seed, seconds], dtype=np.int64).view(np.uint64)
    bits = np.random.Philox(key=key, counter=np.array([0, 0, block, member], dtype=np.uint64))
    return torch.from_numpy(np.random.Generator(bits).standard_normal(shape, dtype=np.float32))


def forecast_latents(
    forecaster: Forecaster,
    analysis: Analysis,
    options: EnsembleOptions,
    position: Position,
    init_time: np.datetime64 | None = None,
) -> Iterator[LatentChunk]:
    """Yields the remaining blocks of one member batch, `options.batch_size` members at once.

    The noise is that of `init_time`, by default the time of the analysis.
    """
    members = range(position.batch * options.batch_size, (position.batch + 1) * options.batch_size)
    key_time = analysis.time if init_time is None else init_time

    def step(past: PastSequence, start: np.datetime64, block: int) -> LatentSequence:
        noise = [
            member_noise(forecaster.block_shape, seed=options.seed, init_time=key_time, member=member, block=block)
            for member in members
        ]
        return forecaster.advance(past, start, torch.stack(noise), options.sampling)

    past = position.past
    if past is None:
        latent = forecaster.codec.encode(analysis.state[None])
        past = latent[:, :, None].expand(options.batch_size, -1, -1, -1, -1)
    start = analysis.time + position.block * forecaster.config.future_frames * STEP
    return rollout(step, past, start, range(position.block, options.blocks))


def forecast_ensemble(
    forecaster: Forecaster,
    analyses: Analysis | Sequence[Analysis],
    options: EnsembleOptions,
    position: Position | None = None,
) -> Iterator[tuple[Position, xr.Dataset]]:
    """Yields decoded frames of one member batch and block at a time, each with the position that follows it.

    Datasets are in SI units with the WeatherBench 2 dims `FORECAST_DIMS`; the blocks are those of `forecast_blocks`.
    """
    ocean = (analyses if isinstance(analyses, Analysis) else analyses[0]).ocean
    for following, block in forecast_blocks(forecaster, analyses, options, position):
        yield following, decode_chunk(forecaster, block.chunk, block.members, init_time=block.init_time, ocean=ocean)


def forecast_blocks(
    forecaster: Forecaster,
    analyses: Analysis | Sequence[Analysis],
    options: EnsembleOptions,
    position: Position | None = None,
) -> Iterator[tuple[Position, LatentBlock]]:
    """Yields latents of one member batch and block at a time, each with the position that follows it.

    The initial time is that of the first of `analyses`. Further ones, of the hours before it, are staggered starts:
    their frames fall between those of the first, so that six analyses an hour apart give a lead time each hour
    (arXiv 2506.09193). A member has the same noise in all of them, so that its hours belong together.
    """
    starts = [analyses] if isinstance(analyses, Analysis) else list(analyses)
    init_time = starts[0].time
    position = position or Position(0, 0)
    for number in range(position.batch, len(starts) * options.batches):
        start, batch = divmod(number, options.batches)
        current = Position(batch, position.block, position.past) if number == position.batch else Position(batch, 0)
        members = range(batch * options.batch_size, min((batch + 1) * options.batch_size, options.members))
        for chunk in forecast_latents(forecaster, starts[start], options, current, init_time):
            past = chunk.latents[:, :, -forecaster.config.past_frames :].cpu()
            kept = replace(chunk, latents=chunk.latents[: len(members)])
            yield Position(number, chunk.block + 1, past), LatentBlock(init_time, members, kept)


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
