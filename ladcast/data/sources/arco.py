"""ARCO-ERA5: hourly ERA5 at 0.25 degrees and 37 levels as one Zarr store in a public bucket (Carver & Merose 2023)."""

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
from ladcast.fields import ChannelSet
from ladcast.times import Times

ROOT = "gs://gcp-public-data-arco-era5/ar"
STORE = "full_37-1h-0p25deg-chunk-1.zarr-v3"
RULES: tuple[Rule, ...] = (*WEATHERBENCH_NAMES, from_hourly)
_COVERAGE = Coverage("1940-01-01", delay=np.timedelta64(10, "D"), step=np.timedelta64(1, "h"))


@dataclass(frozen=True)
class ArcoEra5(Source):
    """Opens ARCO-ERA5, in the bucket or where a copy lies.

    Attributes:
        root: the bucket's folder, or a folder that holds the store under its own name.
    """

    root: str | Path = ROOT
    name: str = "arco-era5"

    def offer(self, time: np.datetime64) -> Offer:
        """Says what the store has at one time, if it is up to date."""
        return Offer(self.name, era5_fields("total_precipitation"), RULES, refusal=_COVERAGE.refusal(time))

    def open(self, times: Times, channels: ChannelSet) -> xr.Dataset:
        """Opens the variables of `channels` and the static fields; raises ValueError where times are missing."""
        raw = _filled(canonical_names(open_zarr(self.root, STORE)))
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
