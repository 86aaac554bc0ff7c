"""Members: noise that is a function of what it is for, and the stream of forecast frames they make."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from ladcast.data.analysis import Analysis
from ladcast.data.packing import unpack
from ladcast.forecasting.forecaster import Forecaster, SamplingOptions
from ladcast.forecasting.rollout import LatentChunk, rollout
from ladcast.times import STEP
from ladcast.types import LatentSequence, PastSequence

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
    """Says where in an ensemble a forecast stands: the next block of one member batch, and the frames before it."""

    batch: int
    block: int
    past: PastSequence | None = None


def member_noise(shape: tuple[int, ...], *, seed: int, init_time: np.datetime64, member: int, block: int) -> Tensor:
    """Draws unit Gaussian noise that depends on nothing but its arguments (Philox counter-based generator).

    The key is (seed, initial time), the counter (block, member): no batch size, device, order or restart matters.
    """
    seconds = int(init_time.astype("datetime64[s]").astype(np.int64))
    key = np.array([seed, seconds], dtype=np.int64).view(np.uint64)
    bits = np.random.Philox(key=key, counter=np.array([0, 0, block, member], dtype=np.uint64))
    return torch.from_numpy(np.random.Generator(bits).standard_normal(shape, dtype=np.float32))


def forecast_latents(
    forecaster: Forecaster, analysis: Analysis, options: EnsembleOptions, position: Position
) -> Iterator[LatentChunk]:
    """Yields the remaining blocks of one member batch, `options.batch_size` members at once."""
    members = range(position.batch * options.batch_size, (position.batch + 1) * options.batch_size)

    def step(past: PastSequence, start: np.datetime64, block: int) -> LatentSequence:
        noise = [
            member_noise(forecaster.block_shape, seed=options.seed, init_time=analysis.time, member=member, block=block)
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
    forecaster: Forecaster, analysis: Analysis, options: EnsembleOptions, position: Position | None = None
) -> Iterator[tuple[Position, xr.Dataset]]:
    """Yields decoded frames of one member batch and block at a time, each with the position that follows it.

    Datasets are in SI units with the WeatherBench 2 dims `FORECAST_DIMS`, where `time` is the initial time.
    """
    position = position or Position(0, 0)
    for batch in range(position.batch, options.batches):
        current = position if batch == position.batch else Position(batch, 0)
        first = batch * options.batch_size
        last = min(first + options.batch_size, options.members)
        for chunk in forecast_latents(forecaster, analysis, options, current):
            past = chunk.latents[:, :, -forecaster.config.past_frames :]
            following = Position(batch, chunk.block + 1, past.cpu())
            yield following, decode_chunk(forecaster, analysis, chunk, range(first, last))


def decode_chunk(forecaster: Forecaster, analysis: Analysis, chunk: LatentChunk, members: range) -> xr.Dataset:
    """Decodes the given members of a chunk to the layout of `forecast_ensemble`."""
    latents = chunk.latents[: len(members)].transpose(1, 2)
    states = forecaster.codec.decode(latents.flatten(0, 1), analysis.ocean).unflatten(0, latents.shape[:2])
    per_member = [unpack(state, forecaster.channels, forecaster.grid, chunk.valid_times) for state in states]
    frames = xr.concat(per_member, xr.DataArray(list(members), dims="number", name="number"))
    leads = (frames["time"].values - analysis.time).astype("timedelta64[ns]")
    by_lead = frames.assign_coords(time=leads).rename(time="prediction_timedelta")
    return by_lead.expand_dims(time=[analysis.time]).transpose(*FORECAST_DIMS, missing_dims="ignore")
