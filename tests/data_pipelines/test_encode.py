"""The latents of a store: those of the autoencoder, with its hash and their own statistics."""

import json
import time
from pathlib import Path
from threading import Lock

import numpy as np
import pytest
import xarray as xr

from data_pipelines import StatePeriod, StoreLayout
from data_pipelines.encode import Encoding, encode
from ladcast.checkpoint import checkpoint_hash
from ladcast.data.normalization import pack
from ladcast.forecasting.checkpoints import load_codec, save_codec
from ladcast.forecasting.codec import LatentCodec, LatentScale
from ladcast.types import Latent, Scaled


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


def test_latents_are_not_scaled_by_what_a_forecaster_scales_them_with(store, autoencoder, latents, tmp_path: Path):
    codec = load_codec(autoencoder, "cpu")
    codec.latent_scale = LatentScale((3.0,) * latents.sizes["latent"], (0.1,) * latents.sizes["latent"])
    save_codec(codec, tmp_path / "codec", {})
    period = StatePeriod("2020-01-02", "2020-01-02")
    again = xr.open_zarr(encode(store, tmp_path / "codec", tmp_path / "a.zarr", period=period, device="cpu"))
    np.testing.assert_allclose(again["latent"], latents["latent"].sel(time=again["time"]), rtol=1e-4, atol=1e-5)


def test_the_statistics_are_those_of_the_latents(latents: xr.Dataset):
    values = latents["latent"].values.astype(np.float64)
    np.testing.assert_allclose(latents["latent_mean"], values.mean((0, 2, 3)), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(latents["latent_std"], values.std((0, 2, 3)), rtol=1e-6)


def test_the_latents_name_their_autoencoder_and_store(latents: xr.Dataset, autoencoder: Path):
    assert latents.attrs == {"autoencoder": checkpoint_hash(autoencoder), "store": "world.zarr"}


def test_only_the_period_that_is_asked_for_is_encoded(store, autoencoder, latents, tmp_path: Path):
    path = encode(store, autoencoder, tmp_path / "a.zarr", period=StatePeriod("2020-01-02", "2020-01-03"), device="cpu")
    part = xr.open_zarr(path, chunks=None)
    assert part.sizes["time"] == 5
    np.testing.assert_allclose(part["latent"], latents["latent"].sel(time=part["time"]), rtol=1e-4, atol=1e-5)


def test_an_existing_output_is_left_alone(store: Path, autoencoder: Path, tmp_path: Path):
    (tmp_path / "a.zarr").mkdir()
    with pytest.raises(FileExistsError, match=r"a\.zarr exists already\. Delete it"):
        encode(store, autoencoder, tmp_path / "a.zarr", device="cpu")


@pytest.mark.slow
def test_latents_do_not_depend_on_units_beyond_rounding_and_their_statistics_are_exact(store, autoencoder, tmp_path):
    """Units decide which frames are encoded together, and a matrix product rounds by its size."""
    whole, cut = (
        xr.load_dataset(
            encode(store, autoencoder, tmp_path / f"{frames}.zarr", device="cpu", layout=StoreLayout(3, frames)),
            engine="zarr",
        )
        for frames in (101, 7)
    )
    np.testing.assert_allclose(cut["latent"], whole["latent"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(cut["latent_std"], cut["latent"].std(("time", "y", "x"), dtype=np.float64), rtol=1e-6)


@pytest.mark.slow
def test_shards_that_are_made_side_by_side_are_the_same(store, autoencoder, tmp_path: Path, monkeypatch):
    """As one GPU makes them, whose memory holds what the encoder makes of one batch alone."""
    made, free, encode_raw = [], Lock(), LatentCodec.encode_raw

    def alone(codec: LatentCodec, scaled: Scaled) -> Latent:
        assert free.acquire(blocking=False)
        time.sleep(0.01)
        raw = encode_raw(codec, scaled)
        free.release()
        return raw

    monkeypatch.setattr(LatentCodec, "encode_raw", alone)
    for at_once in (1, 3):
        monkeypatch.setattr(Encoding, "at_once", at_once)
        path = tmp_path / f"{at_once}.zarr"
        encode(store, autoencoder, path, period=StatePeriod("2020-01-02", "2020-01-08"), layout=StoreLayout(3, 4))
        made.append(json.loads((path / "manifest.json").read_text())["blocks"])
    assert len(made[0]) == 7
    assert made[0] == made[1]
