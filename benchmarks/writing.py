"""Peak memory of writing a large forecast at 1.5 degrees, beside the size of what is written; no network runs here."""

import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import xarray as xr

from ladcast.data.analysis import Analysis
from ladcast.data.normalization import Normalizer
from ladcast.data.packing import unpack
from ladcast.fields import ERA5_CHANNELS
from ladcast.forecasting.codec import LatentCodec
from ladcast.forecasting.diffusion import DiffusionConfig, DiffusionStepper
from ladcast.forecasting.ensemble import FORECAST_DIMS, EnsembleOptions, Position
from ladcast.forecasting.forecaster import Forecaster
from ladcast.forecasts.write import ForecastWriter
from ladcast.grid import Grid
from ladcast.models.autoencoder import Autoencoder, AutoencoderConfig
from ladcast.models.transformer import TransformerConfig
from ladcast.released.registry import Assets

MEMBERS, FRAMES, BLOCK_FRAMES = 50, 60, 4
START = np.datetime64("2018-09-30T00", "ns")


def description() -> Forecaster:
    """Builds a forecaster of the standard channels and grid whose networks, which are not called, are tiny."""
    assets = Assets()
    grid, kinds = Grid.parse(assets.grid), ("residual",) * 4
    autoencoder = AutoencoderConfig(84, 5, 84, widths=(84,) * 4, blocks=(1,) * 4, kinds=kinds, kernels=((),) * 4)
    transformer = TransformerConfig(84, (-83.25, 84.75), (5.25, 353.25), heads=1)
    normalizer = Normalizer.load(assets.statistics, ERA5_CHANNELS)
    codec = LatentCodec(Autoencoder(autoencoder), normalizer, grid, static=torch.zeros(5, *grid.shape))
    return Forecaster(codec, DiffusionStepper.build(DiffusionConfig(transformer)), "none")


def block(forecaster: Forecaster, members: range, first_lead: int, noise: torch.Tensor) -> xr.Dataset:
    """Makes one block of frames of some members, of noise in physical units."""
    leads = (np.arange(first_lead, first_lead + BLOCK_FRAMES) + 1) * np.timedelta64(6, "h")
    state = forecaster.codec.normalizer.inverse(noise)
    frames = [unpack(state, forecaster.channels, forecaster.grid, START + leads) for _ in members]
    together = xr.concat(frames, xr.DataArray(list(members), dims="number", name="number"))
    by_lead = together.assign_coords(time=leads.astype("timedelta64[ns]")).rename(time="prediction_timedelta")
    return by_lead.expand_dims(time=[START]).transpose(*FORECAST_DIMS)


def main() -> None:
    blocks = int(sys.argv[1]) if len(sys.argv) > 1 else FRAMES // BLOCK_FRAMES
    forecaster = description()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    options = EnsembleOptions(MEMBERS, FRAMES // BLOCK_FRAMES, 0)
    grid = forecaster.grid
    analysis = Analysis(torch.zeros(84, *grid.shape), torch.ones(grid.shape, dtype=torch.bool), START, "noise")
    noise = torch.randn(BLOCK_FRAMES, 84, *grid.shape)
    with tempfile.TemporaryDirectory() as folder:
        writer = ForecastWriter(Path(folder) / "fc.zarr", forecaster, analysis, options)
        writer.start()
        started, written = time.monotonic(), 0
        for number in range(options.batches):
            members = range(number * options.batch_size, min((number + 1) * options.batch_size, MEMBERS))
            for index in range(blocks):
                frames = block(forecaster, members, index * BLOCK_FRAMES, noise)
                writer.append(frames, Position(number, index + 1))
                written += frames.nbytes
        seconds = time.monotonic() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{MEMBERS} members, {blocks * BLOCK_FRAMES} of {FRAMES} frames: {written / 1e9:.1f} GB in {seconds:.0f} s")
    print(f"peak memory {peak:.2f} GiB, {before:.2f} GiB of it before the first block")


if __name__ == "__main__":
    main()
