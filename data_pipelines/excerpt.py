"""Stage `excerpt`: start states and the truth that follows them, small enough to travel with a model.

Such files hold float32 rounded to the bits that matter, then compressed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from ladcast.cf import with_state_metadata
from ladcast.checkpoint import list_data
from ladcast.data.store import open_store
from ladcast.fields import ERA5_CHANNELS, ChannelSet, read_channels
from ladcast.files import require_outputs, whole_file
from ladcast.times import STEP, Times, describe, parse_time
from ladcast.verification.climatology import QUANTILE

NAMES = ("starts.nc", "truth.nc")


KEPT_BITS = {
    "geopotential": 14,
    "temperature": 12,
    "2m_temperature": 12,
    "sea_surface_temperature": 12,
    "mean_sea_level_pressure": 14,
    "geopotential_at_surface": 14,
}
"""Mantissa bits that are kept: fields that are small differences from a large mean need more of them."""
OTHER_BITS = 8


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


def write_compact(ds: xr.Dataset, path: Path) -> None:
    """Writes values rounded to their kept bits: by at most 4 m2 s-2, 0.04 K, 4 Pa, or 0.4 % of others."""
    encoding = {
        name: {
            "dtype": "float32",
            "zlib": True,
            "complevel": 9,
            "shuffle": True,
            "quantize_mode": "BitRound",
            "significant_digits": KEPT_BITS.get(str(name).removesuffix(QUANTILE), OTHER_BITS),
        }
        for name in ds.data_vars
    }
    with whole_file(path) as partial:
        with_state_metadata(ds).to_netcdf(partial, engine="netcdf4", encoding=encoding)
