"""The latents of a store: those of the autoencoder, with its hash and their own statistics."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from data_pipelines.encode import encode
from ladcast.checkpoint import weights_hash
from ladcast.data.normalization import Normalizer
from ladcast.data.packing import pack
from ladcast.fields import ChannelSet
from ladcast.forecasting.checkpoints import load_codec, save_codec
from ladcast.forecasting.codec import LatentCodec
from ladcast.grid import Grid
from ladcast.models.autoencoder import Autoencoder, AutoencoderConfig

GRID = Grid.parse("16x9-south")


@pytest.fixture(scope="module")
def autoencoder(world: xr.Dataset, channels: ChannelSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder of a small autoencoder with random weights."""
    torch.manual_seed(0)
    config = AutoencoderConfig(
        channels=len(channels),
        static_channels=1,
        latent_channels=4,
        widths=(8, 8),
        blocks=(1, 1),
        kinds=("residual", "residual"),
        kernels=((), ()),
        pole_rows=GRID.pole_rows,
    )
    state = pack(world, channels).numpy()
    mean, std = (torch.from_numpy(f(state, axis=(0, 2, 3))) for f in (np.nanmean, np.nanstd))
    normalizer = Normalizer(channels, mean, std)
    codec = LatentCodec(Autoencoder(config), normalizer, GRID, static=torch.randn(1, *GRID.shape))
    folder = tmp_path_factory.mktemp("model") / "autoencoder"
    save_codec(codec, folder, {})
    return folder


@pytest.fixture(scope="module")
def latents(store: Path, autoencoder: Path, tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    path = tmp_path_factory.mktemp("latents") / "latents.zarr"
    assert encode(store, autoencoder, path, device="cpu") == path
    assert json.loads((path / "manifest.json").read_text())["status"] == "complete"
    assert [file.name for file in path.parent.iterdir()] == ["latents.zarr"]
    return xr.open_zarr(path, chunks=None).load()


def test_every_frame_is_encoded_at_its_time(latents, world, channels, autoencoder):
    codec = load_codec(autoencoder, "cpu")
    expected = codec.encode(pack(world.isel(latitude=slice(1, None)), channels))
    np.testing.assert_allclose(latents["latent"].values, expected.numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(latents["time"].values, world["time"].values)


def test_the_statistics_are_those_of_the_latents(latents: xr.Dataset):
    values = latents["latent"].values.astype(np.float64)
    np.testing.assert_allclose(latents["latent_mean"], values.mean((0, 2, 3)), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(latents["latent_std"], values.std((0, 2, 3)), rtol=1e-6)


def test_the_latents_name_their_autoencoder_and_store(latents: xr.Dataset, autoencoder: Path):
    assert latents.attrs == {"autoencoder": weights_hash(autoencoder), "store": "world.zarr"}


def test_only_the_period_that_is_asked_for_is_encoded(store, autoencoder, latents, tmp_path: Path):
    path = encode(store, autoencoder, tmp_path / "a.zarr", start="2020-01-02", end="2020-01-03", device="cpu")
    part = xr.open_zarr(path, chunks=None)
    assert part.sizes["time"] == 5
    np.testing.assert_allclose(part["latent"], latents["latent"].sel(time=part["time"]), rtol=1e-4, atol=1e-5)


def test_an_existing_output_is_left_alone(store: Path, autoencoder: Path, tmp_path: Path):
    (tmp_path / "a.zarr").mkdir()
    with pytest.raises(FileExistsError, match=r"a\.zarr exists already\. Delete it"):
        encode(store, autoencoder, tmp_path / "a.zarr", device="cpu")
