"""Small worlds that many tests share: a forecaster of a few thousand weights, an analysis, a forecast on disk."""

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from ladcast.data.analysis import Analysis
from ladcast.data.normalization import Normalizer
from ladcast.data.regrid import regrid_dataset
from ladcast.data.store import open_store
from ladcast.diffusion import Denoiser
from ladcast.fields import ChannelSet
from ladcast.forecasting.checkpoints import save_forecaster
from ladcast.forecasting.codec import LatentCodec, LatentScale
from ladcast.forecasting.diffusion import DiffusionConfig, DiffusionStepper, SamplingOptions
from ladcast.forecasting.ensemble import EnsembleOptions, InitialCondition, staggered
from ladcast.forecasting.forecaster import Forecaster
from ladcast.forecasting.one_call import OneCallConfig, OneCallStepper
from ladcast.forecasting.stepper import FrameCounts
from ladcast.forecasts.latents import LatentWriter
from ladcast.forecasts.write import ForecastWriter
from ladcast.grid import Grid
from ladcast.models.autoencoder import Autoencoder, AutoencoderConfig
from ladcast.models.transformer import LatentTransformer, TransformerConfig
from ladcast.released import ModelFolder, find_model

CHANNELS = ChannelSet(
    ("temperature",),
    ("mean_sea_level_pressure", "sea_surface_temperature", "total_precipitation_6hr"),
    (500, 850),
)
GRID = Grid.parse("16x9-south")


NORMALIZER = Normalizer(
    CHANNELS, torch.tensor([250.0, 270.0, 1e5, 285.0, 1e-3]), torch.tensor([10.0, 12.0, 1e3, 8.0, 2e-3])
)
DRAWN = Normalizer(
    ChannelSet(("geopotential",), ("2m_temperature", "mean_sea_level_pressure", "total_precipitation_6hr"), (500,)),
    torch.tensor([55_000.0, 285.0, 1e5, 1e-3]),
    torch.tensor([2_000.0, 12.0, 1e3, 2e-3]),
)
"""Of the channels that a page shows."""
WEATHER = Normalizer(
    ChannelSet(
        ("geopotential", "temperature", "v_component_of_wind"),
        (
            "10m_u_component_of_wind",
            "10m_v_component_of_wind",
            "2m_temperature",
            "mean_sea_level_pressure",
            "sea_surface_temperature",
            "total_precipitation_6hr",
        ),
        (300, 500, 850),
    ),
    torch.tensor([88e3, 54e3, 14e3, 228.0, 252.0, 274.0, 0.0, 0.0, 0.0, 0.0, 0.0, 278.0, 1.01e5, 287.0, 6e-4]),
    torch.tensor([4e3, 3e3, 1.5e3, 11.0, 13.0, 15.0, 12.0, 9.0, 6.0, 6.0, 5.0, 21.0, 1.3e3, 11.0, 1.5e-3]),
)
"""Of a little of all that states have."""


def tiny_forecaster(normalizer: Normalizer = NORMALIZER, *, step_hours: int = 6) -> Forecaster:
    """Returns a forecaster with random weights, the same in every call, which runs in milliseconds."""
    torch.manual_seed(0)
    autoencoder = AutoencoderConfig(
        channels=len(normalizer.channels),
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
    config = DiffusionConfig(transformer, FrameCounts(step_hours=step_hours), sampling=SamplingOptions(steps=3))
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
    return Forecaster(codec.eval(), DiffusionStepper(config, denoiser.eval()), name="tiny@0")


def one_call_of(forecaster: Forecaster, **config: object) -> Forecaster:
    """Returns a diffusion's forecaster with its weights in a one-call stepper, of five random numbers a member."""
    stepper = OneCallStepper.build(OneCallConfig(forecaster.config.stepper.transformer, noise_features=5, **config))
    torch.nn.init.normal_(stepper.network.noise.weight, std=0.5)
    missing, unexpected = stepper.network.load_state_dict(forecaster.stepper.network.state_dict(), strict=False)
    assert (missing, unexpected) == (["noise.weight"], [])
    return replace(forecaster, stepper=stepper)


def tiny_analysis(forecaster: Forecaster) -> Analysis:
    """Returns a random state with land in five columns, on the grid of `tiny_forecaster`."""
    normalizer = forecaster.codec.normalizer
    noise = torch.randn(len(CHANNELS), *GRID.shape, generator=torch.Generator().manual_seed(1))
    ocean = torch.ones(GRID.shape, dtype=torch.bool)
    ocean[:, :5] = False
    state = normalizer.inverse(noise[None], ocean)[0]
    return Analysis(state, ocean, np.datetime64("2001-02-28T12", "ns"), "a test")


@dataclass(frozen=True)
class Kept:
    """The same forecast kept as latents and as fields, and the model that made it."""

    latents: Path
    fields: Path
    model: Path
    forecaster: Forecaster


def keep(
    forecaster: Forecaster,
    model: Path,
    start: Analysis | list[InitialCondition],
    options: EnsembleOptions,
    folder: Path,
) -> Kept:
    """Makes a forecast and writes it to `folder` as latents and as fields; `model` is the forecaster's own folder."""
    conditions = staggered([start]) if isinstance(start, Analysis) else start
    latents = LatentWriter(folder / "fc.latents.zarr", forecaster, conditions, options, folder=model)
    fields = ForecastWriter(folder / "fc.zarr", forecaster, conditions, options)
    fields.start()
    for batch in latents.start():
        for step in batch.forecast():
            latents.append(batch, step)
            fields.append(batch, step)
    return Kept(latents.finish(), fields.finish(), model, forecaster)


@contextmanager
def killed_after_one_step() -> Iterator[None]:
    """Ends a writer of fields, within, when its first step is on the disk."""
    complete = ForecastWriter._complete

    def killed(writer: ForecastWriter, *made: object) -> None:
        complete(writer, *made)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ForecastWriter, "_complete", killed)
        with pytest.raises(KeyboardInterrupt):
            yield


@contextmanager
def full_disk(free_bytes: int) -> Iterator[None]:
    """Lets no file of this process grow beyond this size, which ends writes as a full disk does."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (free_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def own_model(folder: Path, normalizer: Normalizer = DRAWN, *, step_hours: int = 6) -> ModelFolder:
    """Makes the folder of a tiny model that brings start states and the truth after them, those of the embedded one."""
    forecaster, embedded = tiny_forecaster(normalizer, step_hours=step_hours), find_model("nature-t31")
    save_forecaster(forecaster, folder, {}, dtype=None)
    for name in ("starts.nc", "truth.nc"):
        states = open_store(embedded.path / name, regular=False).isel(time=slice(9))
        channels = normalizer.channels  # of which a truth has some
        states = states[[variable for variable in channels.variables if variable in states]]
        states = states.sel(level=[level for level in channels.levels if level in states["level"]]).load()
        regridded = regrid_dataset(states, Grid.parse("16x9")).isel(latitude=slice(1, None))
        regridded.assign_attrs(states.attrs).to_netcdf(folder / name)
    return ModelFolder(folder)


def states_between_starts(path: Path, count: int, model: ModelFolder | None = None) -> Path:
    """Writes a store of 6-hourly states between two start states of a model, by default the embedded one."""
    starts = (model or find_model("nature-t31")).starts
    assert starts is not None
    first, last = (xr.load_dataset(starts).isel(time=index, drop=True) for index in (0, 1))
    share = xr.DataArray(np.linspace(0, 0.3, count), dims="time")
    static = first[[name for name in ("geopotential_at_surface",) if name in first]]
    land = first["sea_surface_temperature"].isnull().astype(np.float32).drop_attrs()
    between = first.drop_vars(static) * (1 - share) + last.drop_vars(static) * share
    times = np.datetime64("2001-01-01", "ns") + np.arange(count) * np.timedelta64(6, "h")
    states = between.assign_coords(time=times).assign(land_sea_mask=land).assign(static.data_vars)
    states.transpose("time", ...).astype(np.float32).chunk(time=4).to_zarr(path, consolidated=False)
    return path
