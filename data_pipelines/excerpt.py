"""Stage `excerpt`: start states and the truth that follows them, small enough to travel with a model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from data_pipelines.compact import write_compact
from ladcast.checkpoint import list_data
from ladcast.data.store import open_store
from ladcast.fields import ERA5_CHANNELS, ChannelSet, read_channels
from ladcast.files import require_outputs
from ladcast.times import STEP, Times, describe, parse_time

NAMES = ("starts.nc", "truth.nc")


def excerpt(
    store: Path,
    folder: Path,
    *,
    starts: tuple[str, ...],
    headline: str = "headline",
    days: int = 10,
    overwrite: bool = False,
) -> Path:
    """Cut start states (all channels) and verifying truth (headline channels) out of a store.

    Args:
        store: Zarr store in the WeatherBench 2 layout.
        folder: folder to write `starts.nc` and `truth.nc` to; the manifest of a model lists their hashes then.
        starts: initial times, such as 2032-01-11T00.
        headline: channel set of the truth: `headline`, `era5` or a YAML file.
        days: longest lead time of the truth.
        overwrite: replace existing files.
    """
    if not starts or days < 1:
        raise ValueError(f"Expected --starts and --days of at least 1, got {len(starts)} starts and {days} days.")
    require_outputs([folder / name for name in NAMES], [store, headline], overwrite=overwrite)
    times = np.array([parse_time(start) for start in starts])
    leads = np.arange(days * 24 // 6 + 1) * STEP
    valid = np.unique(times[:, None] + leads)
    # Both, before anything is written: they are lazy.
    cuts = _cut(store, ERA5_CHANNELS, times), _cut(store, read_channels(headline), valid)
    for name, cut in zip(NAMES, cuts, strict=True):
        write_compact(cut, folder / name)
        print(f"wrote {folder / name}")
    list_data(folder, *NAMES)
    return folder


def _cut(store: Path, channels: ChannelSet, times: Times) -> xr.Dataset:
    ds = open_store(store, channels)
    missing = np.setdiff1d(times, ds["time"].values)
    if missing.size:
        raise ValueError(f"{store} lacks {describe(missing)}. Choose other starts or fewer days.")
    source = {key: ds.attrs[key] for key in ("source", "attribution", "unreal") if key in ds.attrs}
    return ds.sel(time=times).drop_vars("land_sea_mask", errors="ignore").assign_attrs(source)
