"""Files: sums that merge, as each process writes them, and scores for people and notebooks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import xarray as xr

from ladcast.fields import Channel
from ladcast.files import whole_file
from ladcast.verification.accumulate import Accumulator
from ladcast.verification.statistics import METRICS, STATISTICS
from ladcast.verification.statistics.base import FloatArray

SUM_DIMS = ("start", "region", "row", "prediction_timedelta")
SUM_OF = "sum_of_"
ABOUT = {
    "prediction_timedelta": {"standard_name": "forecast_period", "long_name": "lead time"},
    "start": {"standard_name": "forecast_reference_time", "long_name": "initial times that were scored"},
    "channel": {"long_name": "short name of variable and level in hPa, or of a wind vector"},
    "channel_units": {"long_name": "units of the field"},
    "region": {"long_name": "region, weighted by the areas of its cells"},
    "season": {"long_name": "season of the initial time"},
    "system": {"long_name": "forecasting system"},
}
OF_CHANNEL = {
    "field": "In the units of the channel, which the coordinate channel_units holds.",
    "field squared": "In the squared units of the channel, which the coordinate channel_units holds.",
}
"""What stands for the attribute `units`, which CF wants to be one unit for the whole array."""
PROTOCOL = (
    "Cell areas as weights, sin(upper latitude) - sin(lower latitude). Averages over starts and area first, roots and "
    "ratios last; anomaly correlations for each start first. Fair scores divide by M(M-1)."
)


def write_sums(scores: Accumulator, path: Path) -> Path:
    """Writes an accumulator to a netCDF file, bit by bit; raises OSError where that is not possible."""
    variables: dict[str, tuple[tuple[str, ...], FloatArray]] = {"weight": (SUM_DIMS, scores.weight)}
    for name, total in scores.sums.items():
        variables[SUM_OF + name] = ((*SUM_DIMS, *(axis.name for axis in STATISTICS[name].axes)), total)
    levels = [-1 if channel.level is None else channel.level for channel in scores.channels]
    coordinates = {
        "start": np.array(scores.starts, dtype="datetime64[ns]"),
        "region": list(scores.regions),
        "variable": ("row", [channel.variable for channel in scores.channels]),
        "level": ("row", levels),
        "prediction_timedelta": np.array(scores.lead_times, dtype="timedelta64[ns]"),
    }
    attrs = {"members": float(scores.members), "axes": json.dumps(dict(scores.axes)), "title": "sums of statistics"}
    return _write(xr.Dataset(variables, coordinates, attrs), path)


def read_sums(path: Path) -> Accumulator:
    """Reads what `write_sums` wrote; raises ValueError for another file."""
    with xr.open_dataset(path, decode_timedelta=True) as opened:
        ds = opened.load()
    if "weight" not in ds or "members" not in ds.attrs:
        raise ValueError(f"{path} holds no sums of statistics. Give files that `ladcast score --sums` wrote.")
    members = float(ds.attrs["members"])
    pairs = zip(ds["variable"].values.tolist(), ds["level"].values.tolist(), strict=True)
    return Accumulator(
        sums={str(name).removeprefix(SUM_OF): ds[name].values for name in ds if str(name).startswith(SUM_OF)},
        weight=ds["weight"].values,
        channels=tuple(Channel(variable, None if level < 0 else level) for variable, level in pairs),
        lead_times=tuple(ds["prediction_timedelta"].values.astype("timedelta64[ns]")),
        starts=tuple(ds["start"].values.astype("datetime64[ns]")),
        members=members if np.isinf(members) else int(members),
        regions=tuple(ds["region"].values.tolist()),
        axes={name: tuple(values) for name, values in json.loads(ds.attrs["axes"]).items()},
    )


def scores_dataset(systems: Mapping[str, Accumulator]) -> xr.Dataset:
    """Returns every metric of every system by (system, region, season, channel, prediction_timedelta, ...).

    The season `all` holds all starts. What a system does not have is NaN. Metrics in the units of the field have no
    attribute `units`, but a comment: `channel_units` says them for each channel.
    """
    members = {name: float(scores.members) for name, scores in systems.items()}
    each = xr.concat(
        [_by_region(scores) for scores in systems.values()],
        xr.DataArray(list(systems), dims="system", name="system"),
        join="outer",
        data_vars="all",
        combine_attrs="override",
    )
    units = {row: units for scores in systems.values() for row, units in scores.rows.items()}
    of_row = [units[row] for row in each["channel"].values.tolist()]
    each = each.drop_attrs(deep=False).assign_coords(
        members=("system", list(members.values())), channel_units=("channel", of_row)
    )
    each["members"].attrs = {"long_name": "ensemble members; infinite for a distribution", "units": "1"}
    axes = {axis.name: {"long_name": axis.long_name, "units": "1"} for about in METRICS.values() for axis in about.axes}
    for name, attrs in {**ABOUT, **axes}.items():
        if name in each.coords:
            each[name].attrs |= attrs
    for metric in each.data_vars.values():
        if metric.attrs.get("units") in OF_CHANNEL:
            metric.attrs["comment"] = OF_CHANNEL[metric.attrs.pop("units")]
    return each


def write_scores(systems: Mapping[str, Accumulator], path: Path, provenance: Mapping[str, str]) -> Path:
    """Writes `scores_dataset` to a netCDF file with CF attributes, replacing an older one when it is whole.

    `provenance` becomes global attributes: what was scored, against what, with which model and program.
    """
    attrs = {"Conventions": "CF-1.11", "title": "forecast scores", "comment": PROTOCOL, **provenance}
    return _write(scores_dataset(systems).assign_attrs(attrs), path)


def _by_region(scores: Accumulator) -> xr.Dataset:
    seasons = {"all": scores, **{name: scores.season(name) for name in scores.seasons}}
    parts = []
    for region in scores.regions:
        each = [part.metrics(region).drop_vars(["start", "channel_units"]) for part in seasons.values()]
        parts.append(xr.concat(each, xr.DataArray(list(seasons), dims="season", name="season")))
    return xr.concat(parts, xr.DataArray(list(scores.regions), dims="region", name="region"))


def _write(ds: xr.Dataset, path: Path) -> Path:
    with whole_file(path) as temporary:
        ds.to_netcdf(temporary, engine="netcdf4")
    return path
