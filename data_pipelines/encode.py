"""Stage `encode`: the latents of a whole store, with the autoencoder's hash and their statistics."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import xarray as xr

from data_pipelines.statistics import Moments
from ladcast.checkpoint import weights_hash
from ladcast.data.packing import pack
from ladcast.data.reading import map_blocks, select_period
from ladcast.data.store import open_store
from ladcast.forecasting.checkpoints import load_codec


def encode(
    store: Path,
    autoencoder: Path,
    output: Path,
    *,
    start: str | None = None,
    end: str | None = None,
    device: str | None = None,
) -> Path:
    """Encode every frame of a store to unscaled latents in a Zarr store.

    Args:
        store: Zarr store in the WeatherBench 2 layout.
        autoencoder: checkpoint folder that `ladcast train autoencoder` wrote.
        output: Zarr store to write: `latent(time, latent, y, x)`, and its mean and std per channel.
        start: first time, such as 1979-01-01.
        end: last time, inclusive.
        device: cpu or cuda; a GPU where there is one.
    """
    if output.exists():
        raise FileExistsError(f"{output} exists already. Delete it, or choose another output.")
    codec = load_codec(autoencoder, device)
    channels = codec.normalizer.channels
    ds = select_period(open_store(store, channels, codec.grid), start, end)
    parts, moments = [], None
    for scaled in map_blocks(ds, lambda block: codec.normalizer(pack(block, channels))):
        raw = codec.encode_scaled(scaled).cpu().numpy()
        parts.append(raw)
        moments = Moments.of(raw) if moments is None else moments + Moments.of(raw)
    assert moments is not None, "select_period never returns an empty period"
    latents = xr.Dataset(
        {
            "latent": (("time", "latent", "y", "x"), np.concatenate(parts)),
            "latent_mean": ("latent", moments.mean),
            "latent_std": ("latent", np.sqrt(moments.deviations / moments.count)),
        },
        coords={"time": ds["time"].values},
        attrs={"autoencoder": weights_hash(autoencoder), "store": store.name},
    )
    temporary = output.with_name(f"{output.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    latents.to_zarr(temporary, mode="w", encoding={"latent": {"chunks": (400, *latents["latent"].shape[1:])}})
    (temporary / "manifest.json").write_text(json.dumps({"status": "complete", **latents.attrs}, indent=1))
    temporary.rename(output)
    return output
