"""Says what something is: a model, whatever ladcast writes, and anything else that xarray opens."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ladcast.checkpoint import MANIFEST, WEIGHTS
from ladcast.cyclones import read_tracks
from ladcast.cyclones.formats import is_bufr
from ladcast.cyclones.report import describe_tracks
from ladcast.data.sources.files import open_files
from ladcast.data.sources.grib import is_grib
from ladcast.data.store import read_times
from ladcast.documents import UNREADABLE, read_mapping
from ladcast.fields import STATIC_VARIABLES, VARIABLES
from ladcast.files import is_zarr
from ladcast.forecasting.checkpoints import load_codec, load_forecaster, read_config
from ladcast.forecasting.codec import LatentCodec
from ladcast.forecasting.skill import read_table
from ladcast.forecasts.manifest import is_latent_store
from ladcast.forecasts.open import in_our_axes, open_forecast
from ladcast.grid import points_of
from ladcast.released import ModelFolder, find_model
from ladcast.times import HOUR, describe
from ladcast.verification import format_table, metrics_of
from ladcast.verification.archive import holds_scores

SHOWN_ATTRIBUTES = ("title", "source", "unreal", "comparison", "rules", "history", "plan")
SHOWN_KEYS = ("stage", "status", "arguments", "inputs")
"""Of the manifest that a product of `ladcast-data` has."""
LONGEST = 300
"""Characters of an attribute that are shown."""
PREVIEW_ROWS = 3


def describe_path(name_or_path: str) -> str:
    """Describes a model by its name, or what is at a path.

    Raises:
        FileNotFoundError: nothing is there, nor a model of this name.
        ValueError: something is there that nothing can open.
    """
    path = Path(name_or_path)
    if not path.exists() and path.suffix:
        raise FileNotFoundError(f"Nothing is at {path}. Check the path.")
    if not path.exists() or (path.is_dir() and (path / WEIGHTS).is_file()):
        return _describe_checkpoint(find_model(name_or_path))
    if path.suffix == ".partial":
        raise ValueError(f"{path} is unfinished. Run the same command again to go on.")
    if path.is_dir() and not is_zarr(path):
        return _describe_folder(path)
    if path.suffix.lower() in (".csv", ".json", ".geojson", ".yaml", ".yml"):
        return "\n".join(_document_lines(path))
    if path.is_file() and is_bufr(path):
        return describe_dataset(read_tracks(path), name_or_path)
    manifest = _read_manifest(path)
    about = [f"{key:<9} {_short(manifest[key])}" for key in SHOWN_KEYS if key in manifest]
    way = [f"open with xr.open_dataset('{path}', engine='ladcast')"] if is_latent_store(path) else []
    return "\n".join([describe_dataset(_open_any(path), name_or_path), *about, *way])


def _open_any(path: Path) -> xr.Dataset:
    """Opens a store or file: a forecast in our names, states, or what xarray makes of it."""
    ways: list[Callable[[], xr.Dataset]] = [lambda: open_forecast(path), lambda: open_files(path)]
    if path.is_file() and is_grib(path):
        ways.reverse()  # of forecasts, the second says that lead times are several
    ways += [lambda: xr.open_dataset(path), lambda: xr.open_dataset(path, decode_times=False)]
    refusals = []
    for way in ways:
        try:
            opened = way()
            return read_tracks(path) if {"trajectory", "obs"} <= set(opened.dims) else opened
        except UNREADABLE as error:
            refusals.append(f"{type(error).__name__}: {error}")
    raise ValueError(f"{path} is nothing that can be opened: {refusals[0]}")


def describe_dataset(ds: xr.Dataset, name: str = "a dataset") -> str:
    """Describes a dataset by what it is: a forecast, states, scores, tracks, products, or anything else."""
    ds = in_our_axes(ds, name)
    kind = next(kind for kind, is_it in KINDS.items() if is_it(ds))
    lines = [f"{kind:<9} {name}"]
    if kind == "scores":
        return "\n".join([*lines, *_attributes(ds), format_table(metrics_of(ds))])
    if kind == "tracks" and "rules" in ds.attrs:
        return "\n".join([*lines, *describe_tracks(ds, None)])
    if "time" in ds.coords and ds["time"].dtype.kind == "M" and ds["time"].size:
        lines.append(f"{'starts' if kind == 'forecast' else 'times':<9} {describe(np.unique(ds['time'].values))}")
    if "prediction_timedelta" in ds.dims and ds["prediction_timedelta"].dtype.kind == "m":
        leads = ds["prediction_timedelta"].values / HOUR
        lines.append(f"leads     {len(leads)}: {leads.min():g} h to {leads.max():g} h")
    lines.append(f"sizes     {', '.join(f'{dim} {size}' for dim, size in ds.sizes.items())}")
    if {"latitude", "longitude"} <= set(ds.dims):
        lines.append(f"grid      {_grid(ds)}")
    if "level" in ds.dims:
        lines.append(f"levels    {', '.join(f'{level:g}' for level in np.atleast_1d(ds['level'].values))} hPa")
    lines.append(f"variables {', '.join(map(str, ds.data_vars)) or 'none'}")
    return "\n".join([*lines, *_attributes(ds)])


def _has_fields(ds: xr.Dataset) -> bool:
    return any(name in ds for name in (*VARIABLES, *STATIC_VARIABLES))


KINDS: dict[str, Callable[[xr.Dataset], bool]] = {
    "scores": holds_scores,
    "sums": lambda ds: ds.attrs.get("title") == "sums of statistics",
    "tracks": lambda ds: "point" in ds.dims and "storm" in ds,
    "climate": lambda ds: "dayofyear" in ds.dims,
    "forecast": lambda ds: "prediction_timedelta" in ds.dims and _has_fields(ds) and "quantile" not in ds.dims,
    "product": lambda ds: "prediction_timedelta" in ds.dims,
    "latents": lambda ds: "latent" in ds and {"latent", "y", "x"} <= set(ds.dims),
    "states": lambda ds: _has_fields(ds),
    "dataset": lambda ds: True,
}
"""What a dataset is: the first that fits."""


def _grid(ds: xr.Dataset) -> str:
    try:
        return str(points_of(ds.sortby(["latitude", "longitude"])[["latitude", "longitude"]]))
    except ValueError as error:
        return f"none of ours: {error}"


def _attributes(ds: xr.Dataset) -> list[str]:
    return [f"{name:<9} {_short(ds.attrs[name])}" for name in SHOWN_ATTRIBUTES if name in ds.attrs]


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."


def _read_manifest(path: Path) -> dict[str, Any]:
    """Returns the manifest in a store or beside it, empty where there is none."""
    for beside in (path / MANIFEST, path.with_name(f"{path.name}.{MANIFEST}")):
        if beside.is_file():
            return read_mapping(beside)
    return {}


def _document_lines(path: Path) -> Iterator[str]:
    """Yields what a table or a document holds."""
    if path.suffix.lower() == ".csv":
        with path.open(newline="") as file:
            rows = csv.reader(file)
            head = list(islice(rows, PREVIEW_ROWS + 1))
            count = len(head) - 1 + sum(1 for _ in rows)
        yield f"table     {path}"
        yield f"rows      {max(count, 0)}"
        yield from (", ".join(row) for row in head)
        return
    content = read_mapping(path)
    yield f"document  {path}"
    yield f"keys      {', '.join(map(str, content))}"
    if isinstance(features := content.get("features"), list):
        yield f"features  {len(features)}"


def _describe_folder(path: Path) -> str:
    """Describes a folder that is neither a store nor a checkpoint: a training run, sums, or files of data."""
    if (path / "config.json").is_file():
        kind = read_mapping(path / "config.json").get("_class_name", "not said")
        return f"network   {path}\nclass     {kind}, in the public layout; `ladcast weights import` takes it"
    inside = {child.name: child for child in sorted(path.iterdir()) if not child.name.startswith(".")}
    if sums := sorted(path.glob("*/*.nc")):
        systems = dict.fromkeys(file.parent.name for file in sums)
        return f"sums      {path}\nsystems   {', '.join(systems)}\nfiles     {len(sums)}; `ladcast merge {path}`"
    if snapshots := [name for name in inside if name == "resume"]:
        steps = sorted(child.name for child in inside[snapshots[0]].glob("step-*"))
        return f"training  {path}, unfinished\nsnapshots {', '.join(steps) or 'none'}; the same command goes on"
    try:
        return describe_dataset(open_files(path), str(path))
    except UNREADABLE as error:
        kinds = f"\nin it     {', '.join(inside) or 'nothing'}"
        return f"folder    {path}{kinds}\nnot data  {error}"


def _describe_checkpoint(model: ModelFolder) -> str:
    """Lists channels, grid, networks, sampling and start states of a model, or of an autoencoder alone."""
    try:
        is_forecaster = read_config(model.path) is not None
    except ValueError:
        is_forecaster = False
    if not is_forecaster:
        return "\n".join([f"codec     {model.path}", *_codec_lines(load_codec(model.path, "cpu"))])
    forecaster = load_forecaster(model.path, "cpu")
    frames, size = forecaster.frames, sum(p.numel() for p in forecaster.stepper.network.parameters()) / 1e6
    lines = [
        f"model     {forecaster.name}",
        f"folder    {model.path}",
        *_codec_lines(forecaster.codec),
        f"latent    {' x '.join(map(str, forecaster.frame_shape))}",
        f"stepper   {forecaster.config.stepper.kind}, {size:.2f} M parameters, "
        f"{forecaster.stepper.settings() or 'without settings'}",
        f"frames    {frames.past} in, {frames.future} out, {frames.step_hours} h apart",
    ]
    if (table := read_table(model.path)) is not None:
        lines.append(table.describe([None] * len(table.choices)))
    if model.starts is not None:
        lines.append(f"starts    {describe(read_times(model.starts), limit=8)}")
        unreal = open_files(model.starts).attrs.get("unreal")
        lines += [f"unreal    {unreal}"] if unreal else []
    return "\n".join(lines)


def _codec_lines(codec: LatentCodec) -> Iterator[str]:
    channels, size = codec.normalizer.channels, sum(p.numel() for p in codec.autoencoder.parameters()) / 1e6
    yield f"channels  {len(channels)}: {', '.join(channels.variables)}"
    yield f"levels    {', '.join(map(str, channels.levels)) or 'none'} hPa"
    yield f"grid      {codec.grid}"
    yield f"encoder   autoencoder, {size:.2f} M parameters"
