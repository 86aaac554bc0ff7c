"""Makes members of a past forecast again, bit for bit on a CPU, from what was recorded of it.

A member is a function of the weights, the states, the seed, its initial time and its number. Every store, export,
product and track file says which these were: fields may be thrown away, and one interesting member comes back.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import xarray as xr

from ladcast.data.analysis import Analyses, Fill, open_analyses
from ladcast.data.normalization import Normalizer
from ladcast.documents import UNREADABLE
from ladcast.files import is_zarr
from ladcast.forecasting.checkpoints import load_forecaster
from ladcast.forecasting.ensemble import EnsembleOptions, InitialCondition, staggered
from ladcast.forecasting.forecaster import Forecaster
from ladcast.forecasts.engine import find_maker
from ladcast.forecasts.latents import LatentWriter
from ladcast.forecasts.make import fill, unreal_weather
from ladcast.forecasts.manifest import LatentManifest, is_latent_store
from ladcast.forecasts.write import ForecastWriter, StoreWriter, forecast_identity
from ladcast.released import ModelFolder
from ladcast.resumable import require_same, sole_writer
from ladcast.times import AnyTime, describe, parse_time
from ladcast.training.distributed import join_ranks

REDRAWS = 100
"""How often a member may be drawn again: those that were, are so again."""
SAME = ("model", "init_times", "states", "options")
"""What a forecast's numbers follow from."""
RECORDS = ("made_from", "history")
"""Attributes that may hold what a forecast was made from: of tracks, and of forecasts and what is made of them."""


def redraw(
    record: Path,
    output: Path,
    members: Sequence[int],
    *,
    times: Sequence[AnyTime] = (),
    source: Path | None = None,
    model: str | None = None,
    keep: Literal["fields", "latents"] | None = None,
    device: str = "cpu",
    overwrite: bool = False,
) -> Path | None:
    """Writes members of a recorded forecast to a store of their own; a number beyond its members makes a further one.

    Of the processes of a job, which share the member batches, the first returns the path, the others nothing.

    Args:
        record: a forecast, an export or a product of it, or its tracks (netCDF): whatever says what it was made from.
        output: Zarr store to write.
        members: numbers of the members from 0, which they keep.
        times: initial times, by default all of the record.
        source: where the states of the initial times are, if no longer where they were.
        model: name or folder of the model, where it is not found by itself.
        keep: fields or latents; by default as the record.
        device: where to compute; only a CPU gives the same bits, those of another kind of CPU may differ.
        overwrite: replace an existing output.

    Raises:
        FileNotFoundError: there is no record, model or source.
        ValueError: there is no number, or one below 0; nothing is recorded; or model or states are others than those
            that made the forecast.
    """
    if not members or min(members) < 0:
        raise ValueError(f"Expected numbers of members from 0, such as 7, got {list(members)}.")
    made_from, has_latents = read_record(record), is_latent_store(record)
    lay_in = LatentManifest.read(record).folders(record) if has_latents else []
    folder = ModelFolder(find_maker(made_from["model"], lay_in, model=model))
    with join_ranks(device) as job, ExitStack() as held:
        job.only_first(lambda: held.enter_context(sole_writer(output)))
        forecaster = load_forecaster(folder.path, str(job.device))
        forecaster = forecaster.with_settings(**made_from["options"].get("sampling", {}))
        forecaster = replace(forecaster, name=made_from["model"])  # of these weights, though its folder was renamed
        analyses = open_analyses(source or _source(made_from, folder), forecaster.channels, forecaster.grid)
        conditions, options = recorded_start(made_from, analyses, forecaster, str(record))
        numbers = tuple(sorted(set(members)))
        options = replace(options, only=numbers, members=max(options.members, numbers[-1] + 1))
        about: dict[str, Any] = {"unreal": unreal_weather(folder), "overwrite": overwrite}
        chosen = _from_times(conditions, times, str(record))
        writer: StoreWriter
        if (keep or ("latents" if has_latents else "fields")) == "latents":
            writer = LatentWriter(output, forecaster, chosen, options, folder=folder.path, **about)
        else:
            writer = ForecastWriter(output, forecaster, chosen, options, **about)
        fill(writer, job)
    return output if job.is_first else None


def read_record(path: Path) -> dict[str, Any]:
    """Returns what a forecast was made from, as a store or file of it says.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: it does not say so.
    """
    if not path.exists():
        raise FileNotFoundError(f"No forecast or tracks at {path}. Check the path.")
    try:
        opened = xr.open_zarr(path, chunks=None, decode_times=False) if is_zarr(path) else None
        with opened or xr.open_dataset(path, engine="netcdf4", decode_times=False) as ds:
            found = [_parse(ds.attrs.get(name)) for name in RECORDS]
    except UNREADABLE as error:
        raise ValueError(f"{path}: expected a Zarr store or a netCDF file ({type(error).__name__}: {error}).") from None
    for made_from in found:
        if {"model", "source", "init_times", "states", "options"} <= set(made_from):
            return made_from
    raise ValueError(
        f"{path} does not say what its forecast was made from: expected the attribute {' or '.join(RECORDS)} with "
        "model, source, states and options. Name what `ladcast forecast`, `export`, `products` or `track` (.nc) wrote."
    )


def recorded_start(
    made_from: Mapping[str, Any], analyses: Analyses, forecaster: Forecaster, where: str
) -> tuple[list[InitialCondition], EnsembleOptions]:
    """Returns the initial conditions and the options of a recorded forecast.

    How gaps were filled is not recorded: each way is tried, and the hash of the states tells.

    Raises:
        ValueError: the model, its settings or the states are others.
    """
    settings = {name: value for name, value in made_from["options"].items() if name != "sampling"}
    try:
        options = EnsembleOptions(**{**settings, "only": tuple(settings.get("only", ())), "redraws": REDRAWS})
    except TypeError as error:
        raise ValueError(f"{where}: the options of its forecast are of another version: {error}.") from None
    ways: Sequence[Fill] = [way for way in get_args(Fill) if (way == "refuse") != bool(made_from.get("filled"))]
    remedy = f"The states of {analyses.where} must be those that the forecast started from: name them with --source."
    for way in ways:
        try:
            conditions = list(_conditions(made_from, analyses, way, forecaster.codec.normalizer))
            now = forecast_identity(forecaster, conditions, options)
            require_same(made_from, {name: now[name] for name in SAME}, where, remedy=remedy)
        except ValueError:
            if way == ways[-1]:
                raise
        else:
            break
    return conditions, options


def _conditions(
    made_from: Mapping[str, Any], analyses: Analyses, way: Fill, normalizer: Normalizer
) -> Iterator[InitialCondition]:
    for group in made_from.get("starts") or [[time] for time in made_from["init_times"]]:
        times = [parse_time(time) for time in group]
        yield from staggered([analyses.read(time, fill=way, normalizer=normalizer) for time in times])


def _source(made_from: Mapping[str, Any], model: ModelFolder) -> Path:
    """Returns where the states were, or where the start states of the model are now."""
    recorded = Path(made_from["source"])
    own = model.starts
    return own if own is not None and own.name == recorded.name and not recorded.exists() else recorded


def _from_times(conditions: Sequence[InitialCondition], times: Sequence[AnyTime], where: str) -> list[InitialCondition]:
    wanted = [parse_time(time) for time in times]
    there = np.array([initial.init_time for initial in conditions])
    if missing := [time for time in wanted if time not in there]:
        raise ValueError(f"{where} has no forecast from {describe(np.array(missing))}; it has {describe(there)}.")
    return [initial for initial in conditions if not wanted or initial.init_time in wanted]


def _parse(text: Any) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except (TypeError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
