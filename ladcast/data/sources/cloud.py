"""ERA5 as Zarr stores in public buckets: ARCO-ERA5 and WeatherBench 2; copies of them on disk open by the same path."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ladcast.data.lexicon import canonical_names
from ladcast.data.sources.base import (
    WEATHERBENCH_NAMES,
    Coverage,
    Offer,
    Rule,
    Source,
    era5_fields,
    from_hourly,
    need,
    needed_times,
    translate,
    variables_of,
)
from ladcast.fields import PRECIPITATION, ChannelSet
from ladcast.times import Times

RETRIES: dict[str, Any] = {"max_retries": 4, "retry_timeout": timedelta(seconds=60)}
"""Bounded, because the library's own defaults hang for minutes where there is no network."""
TIMEOUT = {"timeout": "60s", "connect_timeout": "10s"}


def open_zarr(root: str | Path, name: str) -> xr.Dataset:
    """Opens the store `name` lazily under `root`: `gs://bucket/folder`, or a folder that holds a copy.

    Raises:
        ConnectionError: the bucket cannot be reached.
        FileNotFoundError: there is no such store.
    """
    where = f"{str(root).rstrip('/')}/{name}"
    if "://" not in where:
        if not Path(where).is_dir():
            raise FileNotFoundError(f"{where} does not exist: expected a copy of the Zarr store. Check the folder.")
        return xr.open_zarr(where, chunks=None)  # type: ignore[no-any-return]
    from zarr.storage import ObjectStore

    store = ObjectStore(object_store(where), read_only=True)
    try:
        return xr.open_zarr(store, chunks=None)  # type: ignore[no-any-return]
    except Exception as error:  # obstore raises its own kinds, and hides what it could not reach
        raise ConnectionError(
            f"{where}: expected to read a public Zarr store over the network, got {type(error).__name__}: "
            f"{str(error).splitlines()[0]}. Check the network and the name; offline, copy the store and give "
            "its parent folder as `root`."
        ) from error


def object_store(url: str) -> Any:
    """Returns an obstore store for `gs://`, `https://` or a folder, anonymous, with bounded retries."""
    stores = need("obstore.store", f"Reading {url}", "ladcast[data]")
    if url.startswith("gs://"):
        bucket, _, prefix = url.removeprefix("gs://").partition("/")
        options = {"skip_signature": True, "retry_config": RETRIES, "client_options": TIMEOUT}
        return stores.GCSStore(bucket, prefix=prefix or None, **options)
    if "://" in url:
        return stores.HTTPStore.from_url(url, retry_config=RETRIES, client_options=TIMEOUT)
    return stores.LocalStore(url)


ARCO_ROOT = "gs://gcp-public-data-arco-era5/ar"
ARCO_STORE = "full_37-1h-0p25deg-chunk-1.zarr-v3"
RULES: tuple[Rule, ...] = (*WEATHERBENCH_NAMES, from_hourly)
_ARCO_COVERAGE = Coverage("1940-01-01", delay=np.timedelta64(10, "D"), step=np.timedelta64(1, "h"))


@dataclass(frozen=True)
class ArcoEra5(Source):
    """Opens ARCO-ERA5, in the bucket or where a copy lies.

    Attributes:
        root: the bucket's folder, or a folder that holds the store under its own name.
    """

    root: str | Path = ARCO_ROOT
    name: str = "arco-era5"

    def offer(self, time: np.datetime64) -> Offer:
        """Says what the store has at one time, if it is up to date."""
        return Offer(self.name, era5_fields("total_precipitation"), RULES, refusal=_ARCO_COVERAGE.refusal(time))

    def open(self, times: Times, channels: ChannelSet) -> xr.Dataset:
        """Opens the variables of `channels` and the static fields; raises ValueError where times are missing."""
        raw = _filled(canonical_names(open_zarr(self.root, ARCO_STORE)))
        needed = needed_times(raw, times, channels, "ARCO-ERA5")
        return translate(needed, RULES, variables_of(channels)).sel(time=times)


def _filled(raw: xr.Dataset) -> xr.Dataset:
    """Keeps the times that the attributes declare: the axis runs from 1900 to 2050, NaN where nothing is written."""
    start = raw.attrs.get("valid_time_start")
    stop = raw.attrs.get("valid_time_stop_era5t", raw.attrs.get("valid_time_stop"))
    if start is None or stop is None:
        return raw
    # The attributes name the last day, which is written to its end.
    day_after = np.datetime64(stop, "D") + np.timedelta64(1, "D")
    times = raw["time"].values
    return raw.isel(time=np.flatnonzero((times >= np.datetime64(start)) & (times < day_after)))


WEATHERBENCH_ROOT = "gs://weatherbench2/datasets/era5"
STORES = {
    "6h-240x121": "1959-2023_01_10-6h-240x121_equiangular_with_poles_conservative.zarr",
    "6h-64x32": "1959-2023_01_10-6h-64x32_equiangular_conservative.zarr",
    "6h-1440x721": "1959-2023_01_10-wb13-6h-1440x721_with_derived_variables.zarr",
    "1h-240x121": "1959-2022-1h-240x121_equiangular_with_poles_conservative.zarr",
    "1h-360x181": "1959-2022-1h-360x181_equiangular_with_poles_conservative.zarr",
}
"""The stores by step and grid. The hourly ones have hourly precipitation, the others the sum over six hours."""
_HOURLY = Coverage("1959-01-01", "2022-12-31T23", step=np.timedelta64(1, "h"))
_SIX_HOURLY = Coverage("1959-01-01", "2023-01-10T18")


@dataclass(frozen=True)
class WeatherBench2(Source):
    """Opens one of the stores, in the bucket or where a copy lies.

    Attributes:
        store: a key of `STORES`, or the name of another store under `root`.
        root: the bucket, or a folder that holds the store under its own name.
    """

    store: str = "6h-240x121"
    root: str | Path = WEATHERBENCH_ROOT
    name: str = "weatherbench2"

    def offer(self, time: np.datetime64) -> Offer:
        """Says what the store has at one time."""
        hourly = "1h-" in self.store
        fields = era5_fields("total_precipitation" if hourly else PRECIPITATION)
        return Offer(self.name, fields, RULES, refusal=(_HOURLY if hourly else _SIX_HOURLY).refusal(time))

    def open(self, times: Times, channels: ChannelSet) -> xr.Dataset:
        """Opens the variables of `channels` and the static fields; raises ValueError where times are missing."""
        raw = canonical_names(open_zarr(self.root, STORES.get(self.store, self.store)))
        needed = needed_times(raw, times, channels, f"WeatherBench 2 {self.store}")
        return translate(needed, RULES, variables_of(channels)).sel(time=times)
