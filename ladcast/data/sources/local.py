"""States that lie on disk already: Zarr stores, netCDF and GRIB files, or trees of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import xarray as xr

from ladcast.data.lazy import HORIZONTAL
from ladcast.data.sources.base import WEATHERBENCH_NAMES, Offer, Rule, Source, at_times, variables_of
from ladcast.data.sources.files import FORECAST, open_files
from ladcast.data.weather import percent
from ladcast.fields import VARIABLES, ChannelSet, find_variable
from ladcast.times import Times


@dataclass(frozen=True)
class LocalTree(Source):
    """Opens a store, a file, a folder of files, or a pattern such as `era5/*.nc`.

    Attributes:
        root: the path or pattern.
        member: which member of an ensemble.
    """

    root: str | Path
    member: int | None = None
    name: str = "local"

    def offer(self, time: np.datetime64) -> Offer:
        """Reads the fields of one time and says which are there, and where they have gaps."""
        ds, name = open_files(self.root, self.member), f"{self.name}: {Path(self.root).name}"
        refusal = f"is no analysis but a forecast ({ds.attrs[FORECAST]})" if FORECAST in ds.attrs else ""
        if "time" in ds.coords and time not in np.atleast_1d(ds["time"].values):
            refusal = "has not this time"
        if refusal:
            return Offer(name, {}, WEATHERBENCH_NAMES, refusal=refusal)
        state = ds.sel(time=time) if "time" in ds.dims else ds
        fields = {str(n): frozenset(_levels(field)) for n, field in state.data_vars.items()}
        gaps = {key: reason for n in state.data_vars if n in VARIABLES for key, reason in _gaps(state[n])}
        # Opened files have our names; how they came about stands in the attributes.
        rules = tuple(_as_found(state, rule) for rule in WEATHERBENCH_NAMES)
        return Offer(name, fields, rules, gaps)

    def open(self, times: Times, channels: ChannelSet) -> xr.Dataset:
        """Opens the variables of `channels` and the static fields; raises ValueError where times are missing."""
        ds = open_files(self.root, self.member)
        ds = ds.expand_dims("time") if "time" in ds.coords and "time" not in ds.dims else ds
        wanted = [name for name in variables_of(channels) if name in ds]
        return at_times(ds[wanted], times, str(self.root))


def _as_found(state: xr.Dataset, rule: Rule) -> Rule:
    """Returns the rule with what the field's attributes say of its origin."""
    attrs = state[rule.target].attrs if rule.target in state else {}
    return replace(rule, how=attrs.get("derived", ""), approximate="approximate" in attrs)


def _levels(field: xr.DataArray) -> list[float]:
    """Returns the levels of an upper-air field; a surface field may carry the level of its file as a coordinate."""
    about = VARIABLES.get(str(field.name))
    if about is None or not about.on_levels or "level" not in field.coords:
        return []
    return [float(level) for level in np.atleast_1d(field["level"].values)]


def _gaps(field: xr.DataArray) -> Iterator[tuple[tuple[str, float | None], str]]:
    """Yields the levels at which a field has NaN, with their share; NaN on land is no gap of the SST."""
    name = str(field.name)
    shares = np.atleast_1d(field.copy(data=~np.isfinite(field.values)).mean(HORIZONTAL).values)
    levels: list[float | None] = [*_levels(field)] or [None]
    for level, share in zip(levels, shares, strict=True):
        if share == 1 or (share > 0 and not find_variable(name).masked_on_land):
            yield (name, level), f"'{name}' is {percent(share)} NaN"
