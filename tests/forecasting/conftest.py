"""A forecaster with random weights, small enough to run in milliseconds."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
import xarray as xr

from ladcast.data.analysis import Analysis
from ladcast.data.normalization import Normalizer
from ladcast.diffusion.denoiser import Denoiser
from ladcast.fields import ChannelSet
from ladcast.forecasting.codec import LatentCodec, LatentScale
from ladcast.forecasting.ensemble import EnsembleOptions, forecast_ensemble
from ladcast.forecasting.forecaster import Forecaster, ForecasterConfig, SamplingOptions
from ladcast.grid import Grid
from ladcast.models.autoencoder import Autoencoder, AutoencoderConfig
from ladcast.models.transformer import LatentTransformer, TransformerConfig

CHANNELS = ChannelSet(
    ("temperature",),
    ("mean_sea_level_pressure", "sea_surface_temperature", "total_precipitation_6hr"),
    (500, 850),
)
GRID = Grid.parse("16x9-south")


@pytest.fixture
def forecaster() -> Forecaster:
    torch.manual_seed(0)
    autoencoder = AutoencoderConfig(
        channels=len(CHANNELS),
        static_channels=1,
        latent_channels=4,
        widths=(8, 8),
        blocks=(1, 1),
        kinds=("residual", "residual"),
        kernels=((), ()),
    )
    transformer = TransformerConfig(
        latent_channels=4,
        latitude_deg=(-70.0, 70.0),
        longitude_deg=(20.0, 340.0),
        heads=2,
        head_dim=16,
        dual_blocks=1,
        single_blocks=1,
        patch_size=2,
        rope_axes_dim=(4, 6, 6),
    )
    config = ForecasterConfig(autoencoder, transformer, sampling=SamplingOptions(steps=3))
    normalizer = Normalizer(
        CHANNELS, torch.tensor([250.0, 270.0, 1e5, 285.0, 1e-3]), torch.tensor([10.0, 12.0, 1e3, 8.0, 2e-3])
    )
    codec = LatentCodec(
        Autoencoder(autoencoder),
        normalizer,
        GRID,
        static=torch.randn(1, *GRID.shape),
        latent_scale=LatentScale((0.1,) * 4, (2.0,) * 4),
    )
    denoiser = Denoiser(LatentTransformer(transformer))
    for parameter in denoiser.parameters():
        torch.nn.init.normal_(parameter, std=0.05)  # new networks end in zeros, which would hide errors
    return Forecaster(config, codec.eval(), denoiser.eval(), name="tiny@0")


@pytest.fixture
def analysis(forecaster: Forecaster) -> Analysis:
    normalizer = forecaster.codec.normalizer
    noise = torch.randn(len(CHANNELS), *GRID.shape, generator=torch.Generator().manual_seed(1))
    ocean = torch.ones(GRID.shape, dtype=torch.bool)
    ocean[:, :5] = False
    state = normalizer.inverse(noise[None], ocean)[0]
    return Analysis(state, ocean, np.datetime64("2001-02-28T12", "ns"), "a test")


Run = Callable[[Analysis | Sequence[Analysis], EnsembleOptions], xr.Dataset]


@pytest.fixture
def run(forecaster: Forecaster) -> Run:
    """Makes a whole forecast in memory."""

    def make(analyses: Analysis | Sequence[Analysis], options: EnsembleOptions) -> xr.Dataset:
        rows: dict[int, list[xr.Dataset]] = {}
        for _, frames in forecast_ensemble(forecaster, analyses, options):
            rows.setdefault(int(frames["number"].values[0]), []).append(frames)
        leads = [xr.concat(row, "prediction_timedelta").sortby("prediction_timedelta") for row in rows.values()]
        return xr.concat(leads, "number")

    return make
