"""WeatherBench 2: ERA5 on several grids as Zarr stores in a public bucket (Rasp et al. 2024, arXiv 2308.15560)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

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
    needed_times,
    translate,
    variables_of,
)
from ladcast.data.sources.cloud import open_zarr
from ladcast.fields import PRECIPITATION, ChannelSet
from ladcast.times import Times

ROOT = "gs://weatherbench2/datasets/era5"
RULES: tuple[Rule, ...] = (*WEATHERBENCH_NAMES, from_hourly)
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
    root: str | Path = ROOT
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
