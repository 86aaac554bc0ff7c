"""Peak memory of writing a large forecast at 1.5 degrees, beside the size of what is written; no network runs here."""

import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from ladcast.data.analysis import Analysis
from ladcast.data.normalization import Normalizer
from ladcast.fields import ERA5_CHANNELS
from ladcast.forecasting.codec import LatentCodec
from ladcast.forecasting.diffusion import DiffusionConfig, DiffusionStepper
from ladcast.forecasting.ensemble import EnsembleOptions, staggered
from ladcast.forecasting.forecaster import Forecaster
from ladcast.forecasting.stepper import ForecastStep
from ladcast.forecasts.write import ForecastWriter
from ladcast.grid import Grid
from ladcast.models.autoencoder import Autoencoder, AutoencoderConfig
from ladcast.models.transformer import TransformerConfig
from ladcast.released import Assets

MEMBERS, FRAMES, BLOCK_FRAMES = 50, 60, 4
START = np.datetime64("2018-09-30T00", "ns")


class NoiseCodec(LatentCodec):
    """Decodes every frame to the same noise in physical units."""

    def decode(self, latent: torch.Tensor, ocean: torch.Tensor | None = None) -> torch.Tensor:
        """Returns one field of noise for each latent."""
        if not hasattr(self, "noise"):
            self.noise = self.normalizer.inverse(torch.randn(1, 84, *self.grid.shape), ocean)
        return self.noise.repeat(len(latent), 1, 1, 1)


def description() -> Forecaster:
    """Builds a forecaster of the standard channels and grid whose networks, which are not called, are tiny."""
    assets = Assets()
    grid, kinds = Grid.parse(assets.grid), ("residual",) * 4
    autoencoder = AutoencoderConfig(84, 5, 84, widths=(84,) * 4, blocks=(1,) * 4, kinds=kinds, kernels=((),) * 4)
    transformer = TransformerConfig(84, (-83.25, 84.75), (5.25, 353.25), heads=1)
    normalizer = Normalizer.load(assets.statistics, ERA5_CHANNELS)
    codec = NoiseCodec(Autoencoder(autoencoder), normalizer, grid, static=torch.zeros(5, *grid.shape))
    return Forecaster(codec, DiffusionStepper.build(DiffusionConfig(transformer)), "none")


def main() -> None:
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else FRAMES // BLOCK_FRAMES
    forecaster = description()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    options = EnsembleOptions(MEMBERS, FRAMES // BLOCK_FRAMES, 0)
    grid = forecaster.grid
    analysis = Analysis(torch.zeros(84, *grid.shape), torch.ones(grid.shape, dtype=torch.bool), START, "noise")
    with tempfile.TemporaryDirectory() as folder:
        writer = ForecastWriter(Path(folder) / "fc.zarr", forecaster, staggered([analysis]), options)
        started, written = time.monotonic(), 0
        for batch in writer.start():
            latents = torch.zeros(options.batch_size, *forecaster.noise_shape)
            for number in range(steps):
                leads = (np.arange(BLOCK_FRAMES) + 1 + number * BLOCK_FRAMES) * np.timedelta64(6, "h")
                writer.append(batch, ForecastStep(number, latents, START + leads, latents[:, :, -1:]))
                written += len(batch.members) * BLOCK_FRAMES * 84 * grid.shape[0] * grid.shape[1] * 4
        seconds = time.monotonic() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{MEMBERS} members, {steps * BLOCK_FRAMES} of {FRAMES} frames: {written / 1e9:.1f} GB in {seconds:.0f} s")
    print(f"peak memory {peak:.2f} GiB, {before:.2f} GiB of it before the first step")


if __name__ == "__main__":
    main()
