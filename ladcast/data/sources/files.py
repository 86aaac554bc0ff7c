"""Opens Zarr stores, netCDF and GRIB files, folders and patterns of them, as one dataset in our names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import xarray as xr

from ladcast.checksums import check_seal
from ladcast.data.lazy import HORIZONTAL, elementwise, guarded, joined
from ladcast.data.lexicon import NEAR_MISSES, canonical_names
from ladcast.data.sources import cloud
from ladcast.data.sources.base import WEATHERBENCH_NAMES, Offer, Source, at_times, translate, variables_of
from ladcast.data.sources.grib import FORECAST, is_grib, open_grib
from ladcast.data.weather import percent
from ladcast.data.zarr_chunks import read_by_chunks
from ladcast.documents import UNREADABLE
from ladcast.fields import PRECIPITATION, STATIC_VARIABLES, VARIABLES, ChannelSet, find_variable
from ladcast.files import ZARR_MARKS, is_consolidated, is_zarr, matching, require_input
from ladcast.grid import TOLERANCE_DEG, eastward
from ladcast.times import HOUR, Times, leads_ahead

SUFFIXES = (".nc", ".nc4", ".cdf", ".grib", ".grib2", ".grb", ".grb2")
"""How names of files end that belong to a folder of data, in either case; GRIB may name its grid, as in `.Grb_G212`."""
DATA_NAME = re.compile(rf"[^.].*({'|'.join(map(re.escape, SUFFIXES))})(_\w+)?", re.IGNORECASE)
LEADS = ("prediction_timedelta", "lead_time", "step", "forecast_period")
MEMBER_DIMENSIONS = ("number", "member", "realization")
STRANGERS = {
    b"PK": "a zip archive: unpack it",
    b"\x1f\x8b": "compressed: unpack it",
    b"<": "a page of the web: ask again",
}
"""What files are that arrive under the name of data, by their first bytes."""


def open_files(path: str | Path, member: int | None = None) -> xr.Dataset:
    """Opens what `path` names, lazily: a Zarr store, a file, a folder or pattern of them, or `gs://bucket/store`.

    Several files are put together by variable, level and time. GRIB becomes ours by the rules of the centre that
    wrote it; other files are only renamed, never converted. `member` chooses one of an ensemble.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: something is there that cannot be read, or files that do not fit together.
    """
    url = re.sub(r"^(gs|https):/+", r"\1://", str(path))  # `Path` folds the two slashes into one
    if "://" in url:
        root, _, name = url.rstrip("/").rpartition("/")
        return _chosen(canonical_names(cloud.open_zarr(root, name), url), member, url)
    return open_all(_expanded(Path(path)), str(path), member)


def open_all(paths: Sequence[Path], where: str, member: int | None = None) -> xr.Dataset:
    """Opens these stores and files as one dataset; see `open_files`."""
    gribs = [path for path in paths if path.is_file() and is_grib(path)]
    parts = [_open_one(path, member) for path in paths if path not in gribs]
    if gribs:
        from ladcast.data.sources import ecmwf, gfs

        raw = open_grib(gribs, where, member)
        # The rules are those of the centre that wrote it: NCEP and ECMWF saturate differently.
        parts.append(translate(raw, gfs.RULES if raw.attrs.get("centre") == "kwbc" else ecmwf.RULES))
    return parts[0] if len(parts) == 1 else merged(parts, where)


def _expanded(path: Path) -> list[Path]:
    found = matching(path)
    if not found:
        raise FileNotFoundError(f"{path}: no file fits this pattern. Check it.")
    if found != [path]:
        return found
    require_input(path)
    if path.is_file() or is_zarr(path):
        return [path]
    inside = sorted(p for p in path.rglob("*") if _is_data(p, p.relative_to(path)))
    if not inside:
        raise ValueError(
            f"{path} is a folder but no Zarr group: it has none of {', '.join(ZARR_MARKS)}, and no files "
            f"whose names end in {', '.join(SUFFIXES)}. Give the folder of the store itself."
        )
    return inside


def _is_data(path: Path, below: Path) -> bool:
    """Says whether a path `below` a folder is a store or a file of data, and neither hidden nor a chunk of a store."""
    if any(part.startswith(".") for part in below.parts) or any(p.suffix == ".zarr" for p in below.parents):
        return False
    return path.suffix == ".zarr" and is_zarr(path) if path.is_dir() else bool(DATA_NAME.fullmatch(path.name))


def _open_one(path: Path, member: int | None) -> xr.Dataset:
    where = str(path)
    if path.is_dir():
        check_seal(path)
    try:
        # Named, because xarray would otherwise try every engine, and cfgrib leaves an index beside the file.
        if path.is_dir():
            ds = read_by_chunks(xr.open_zarr(path, chunks=None, consolidated=is_consolidated(path)), path)
        else:
            ds = xr.open_dataset(path, chunks=None, engine="netcdf4")
    except UNREADABLE as error:
        reason = _reason(path, error)
        raise ValueError(
            f"{path}: expected a Zarr store or a netCDF file or a GRIB file, which this is not ({reason})."
        ) from error
    return _chosen(mark_forecast(canonical_names(guarded(ds, where), where)), member, where)


def mark_forecast(ds: xr.Dataset) -> xr.Dataset:
    """Returns a dataset with the attribute `FORECAST` where a lead time, or what wgrib2 writes, says so."""
    if all(name in (*STATIC_VARIABLES, PRECIPITATION) for name in ds.data_vars):
        return ds
    described = str(ds["time"].attrs.get("reference_time_description", "")) if "time" in ds.variables else ""
    found = [described] if "forecast" in described else []
    leads = [ds[name] for name in LEADS if name in ds.coords and ds[name].dims in ((), ("time",))]
    for lead, ahead in ((lead, leads_ahead(lead.values)) for lead in leads):
        if not ahead.size:
            continue
        last = ahead[-1]
        found.append(f"{last / HOUR:g} h" if lead.dtype.kind == "m" else f"{last:g} {lead.attrs.get('units', '')}")
    return ds.assign_attrs({FORECAST: found[0]}) if found else ds


def _reason(path: Path, error: Exception) -> str:
    if path.is_file():
        with path.open("rb") as file:
            start = file.read(4)
        for mark, what in STRANGERS.items():
            if start.startswith(mark):
                return f"it is {what}"
        if not start:
            return "it is empty: copy it again"
    return f"{type(error).__name__}: {error}"


def _chosen(ds: xr.Dataset, member: int | None, where: str) -> xr.Dataset:
    """Selects one member, and joins the two versions of ERA5 that the CDS once delivered along `expver`."""
    if "expver" in ds.dims:  # each version is NaN where the other holds
        final, preliminary = ds.isel(expver=0, drop=True), ds.isel(expver=-1, drop=True)
        ds = final.assign({n: elementwise(xr.DataArray.fillna, final[n], preliminary[n]) for n in final.data_vars})
    members = [dim for dim in MEMBER_DIMENSIONS if dim in ds.dims]
    # Of a single member that was cut out of an ensemble, its number is left.
    alone = [int(ds[dim]) for dim in MEMBER_DIMENSIONS if dim in ds.coords and ds[dim].ndim == 0]
    if member is not None and not members and member not in alone:
        raise ValueError(f"{where}: expected member {member}, got a single state without members. Leave `member` out.")
    for dim in members:
        numbers = ds[dim].values.tolist()
        if member is None or member not in numbers:
            raise ValueError(
                f"{where}: expected one state, got an ensemble of {len(numbers)} members along '{dim}'. "
                f"Cut one out (`ds.sel({dim}={numbers[0]})`), or name a forecast where one is meant."
            )
        ds = ds.isel({dim: numbers.index(member)}, drop=True)
    return ds


def merged(parts: Sequence[xr.Dataset], where: str) -> xr.Dataset:
    """Puts datasets in our names together, lazily, by variable, level and time.

    Raises:
        ValueError: they lie on different grids, have no time, or have the same time and level.
    """
    parts = [_oriented(_with_time(part, where)) for part in parts]
    parts = _on_one_grid(parts, where)
    axes = {dim: _union(dim, parts) for dim in ("time", "level") if any(dim in part.coords for part in parts)}
    known = (*VARIABLES, *STATIC_VARIABLES, *NEAR_MISSES)
    fields: dict[str, xr.DataArray] = {}
    for name in (name for name in known if any(name in part for part in parts)):
        pieces = [part[name] for part in parts if name in part]
        if name in STATIC_VARIABLES:
            fields[name] = pieces[0].isel(time=0, drop=True) if "time" in pieces[0].dims else pieces[0]
            continue
        if name in VARIABLES and VARIABLES[name].on_levels:
            pieces = [piece if "level" in piece.dims else piece.expand_dims("level") for piece in pieces]
        fields[name] = joined(pieces, axes, where)
    forecasts = [part.attrs[FORECAST] for part in parts if FORECAST in part.attrs]
    return xr.Dataset(fields, attrs={FORECAST: forecasts[0]} if forecasts else {})


def _with_time(part: xr.Dataset, where: str) -> xr.Dataset:
    static_only = all(name in STATIC_VARIABLES for name in part.data_vars)
    if "time" not in part.coords and not static_only:
        raise ValueError(
            f"{where}: a file with {', '.join(map(str, part.data_vars))} has no 'time'. Add it before you merge files."
        )
    return part.expand_dims("time") if "time" in part.coords and "time" not in part.dims else part


def _oriented(part: xr.Dataset) -> xr.Dataset:
    """Returns the views of the fields from south to north, eastward from 0 degrees, so that files fit together."""
    if not {"latitude", "longitude"} <= set(part.dims):
        return part
    longitude = eastward(part["longitude"].values)
    ordered = part.assign_coords(longitude=longitude)
    return ordered.isel(latitude=np.argsort(part["latitude"].values), longitude=np.argsort(longitude))


def _union(dim: str, parts: Sequence[xr.Dataset]) -> npt.NDArray[np.generic]:
    values = [np.atleast_1d(part[dim].values) for part in parts if dim in part.coords]
    same = [v.astype("datetime64[ns]" if dim == "time" else np.float64) for v in values]
    return np.unique(np.concatenate(same))


def _on_one_grid(parts: Sequence[xr.Dataset], where: str) -> list[xr.Dataset]:
    """Returns the parts with the coordinates of the first: theirs may be rounded otherwise, within the tolerance."""
    horizontal = ("latitude", "longitude")
    gridless = [part for part in parts if not set(horizontal) <= set(part.dims)]
    if gridless:
        there = ", ".join(map(str, gridless[0].dims))
        raise ValueError(f"{where}: expected files with latitude and longitude, got one with {there}. Leave it out.")
    first = {dim: parts[0][dim].values for dim in horizontal}
    for dim, values in first.items():
        for part in parts[1:]:
            if part[dim].size != values.size or abs(part[dim].values - values).max() > TOLERANCE_DEG:
                raise ValueError(
                    f"{where}: expected files on one grid, got {values.size} and {part[dim].size} values of '{dim}'. "
                    "Open them apart, and regrid."
                )
    return [part.assign_coords(first) for part in parts]


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
        elif "time" in ds.dims and "time" not in ds.coords:
            refusal = "has lost the times of its states"
        if refusal:
            return Offer(name, {}, WEATHERBENCH_NAMES, refusal=refusal)
        state = ds.sel(time=time) if "time" in ds.dims else ds
        fields = {str(n): frozenset(_levels(field)) for n, field in state.data_vars.items()}
        gaps = {key: reason for n in state.data_vars if n in VARIABLES for key, reason in _gaps(state[n])}
        # Opened files have our names; how they came about stands in the attributes.
        said = {rule: state[rule.target].attrs if rule.target in state else {} for rule in WEATHERBENCH_NAMES}
        rules = (replace(r, how=a.get("derived", ""), approximate="approximate" in a) for r, a in said.items())
        return Offer(name, fields, tuple(rules), gaps)

    def open(self, times: Times, channels: ChannelSet) -> xr.Dataset:
        """Opens the variables of `channels` and the static fields; raises ValueError where times are missing."""
        ds = open_files(self.root, self.member)
        ds = ds.expand_dims("time") if "time" in ds.coords and "time" not in ds.dims else ds
        wanted = [name for name in variables_of(channels) if name in ds]
        return at_times(ds[wanted], times, str(self.root))


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
