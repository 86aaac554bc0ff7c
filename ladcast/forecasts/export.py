"""Writes a forecast, or a part of it, in the format of another program, and its ensemble products, frame by frame."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ladcast.cf import with_product_metadata
from ladcast.checksums import seal
from ladcast.data.lazy import prefetch
from ladcast.data.zarr_chunks import CHECKED
from ladcast.fields import VARIABLES
from ladcast.files import is_zarr, require_ending, whole_file, whole_folder
from ladcast.forecasts import ExportFormat, Selection
from ladcast.forecasts.formats import FrameWriter, NetcdfWriter, ZarrWriter
from ladcast.forecasts.grib import GribWriter, begins_before_start
from ladcast.forecasts.open import open_forecast, open_part
from ladcast.forecasts.products import Event, Method, at_points, mean_and_spread, probabilities, quantiles
from ladcast.grid import Place
from ladcast.resumable import sole_writer
from ladcast.run import show_progress
from ladcast.times import HOUR

Product = Callable[[xr.Dataset], xr.Dataset]
LABELS = ("place", "latitude", "longitude", "initial_time", "lead_hours", "valid_time", "member")
"""Columns of a CSV of places, before one for each channel."""


def export(source: Path, output: Path, selection: Selection, form: ExportFormat, **decoding: Any) -> Path:
    """Writes a part of a forecast frame by frame as netCDF4, GRIB2 or Zarr, which the suffix of the output says.

    Memory holds few variables of the chosen members of one lead time. A Zarr output of a killed run is completed.
    `decoding` are options of `LatentEngine`.

    Raises:
        FileExistsError: the output exists, or an unfinished other export does.
        ValueError: the suffix is unknown, the forecast has no such part.
    """
    part = open_part(source, selection, **decoding)
    writer = find_writer(part, output, form, ensemble_size=open_forecast(source, **decoding).sizes.get("number", 1))
    writer.reads_ahead = is_zarr(source)
    with sole_writer(output), closing(writer):
        done = writer.start()
        members = part.sizes["number"]
        total = (writer.frames - done) * members
        frames, unit = range(done, writer.frames), "members x lead times"
        for _ in show_progress(frames, total, "export", weight=lambda _: members, unit=unit):
            writer.append()
        if isinstance(writer, GribWriter):
            for name in (name for name in map(str, part.data_vars) if begins_before_start(name, part).any()):
                print(f"GRIB2 has no sums from before the start: {output} leaves out such of {name}", file=sys.stderr)
            if part.attrs.get("unreal"):
                print(
                    f"GRIB2 cannot say that this is model weather, not the real atmosphere: {output}", file=sys.stderr
                )
        return writer.finish()


def find_writer(forecast: xr.Dataset, output: Path, form: ExportFormat, *, ensemble_size: int) -> FrameWriter:
    """Returns the writer for the suffix of the output; raises ValueError for an unknown one."""
    again = form.overwrite
    match output.suffix:
        case ".nc" | ".nc4":
            return NetcdfWriter(forecast, output, names=form.names or "cf", overwrite=again)
        case ".grib2" | ".grib" | ".grb2":
            return GribWriter(
                forecast, output, bits=form.bits, packing=form.packing, ensemble_size=ensemble_size, overwrite=again
            )
        case ".zarr":
            if form.names == "cdo":
                raise ValueError(
                    f"Expected an output that ends in .nc for --names cdo, got '{output.name}'. Rename it."
                )
            names = form.names or "weatherbench2"
            return ZarrWriter(forecast, output, zarr_format=form.zarr_format, names=names, overwrite=again)
    raise ValueError(f"Expected an output that ends in .nc, .grib2 or .zarr, got '{output.name}'. Rename it.")


def write_mean(source: Path, output: Path, selection: Selection) -> Path:
    """Writes ensemble mean and spread as netCDF or Zarr."""
    return _write(mean_and_spread, source, output, selection)


def write_quantiles(source: Path, output: Path, selection: Selection, *, fractions: Sequence[float]) -> Path:
    """Writes quantiles of the members as netCDF or Zarr."""
    return _write(lambda frame: quantiles(frame, fractions), source, output, selection)


def write_probabilities(source: Path, output: Path, selection: Selection, *, events: Sequence[str]) -> Path:
    """Writes the probability of each event as netCDF or Zarr; reads only the variables that the events need."""
    parsed = [Event.parse(event) for event in events]
    if not parsed:
        raise ValueError("Expected at least one event such as --event 't2m > 30 degC', got none.")
    needed = dict.fromkeys(name for event in parsed for name in event.variables)
    chosen = replace(selection, variables=tuple(needed))
    return _write(lambda frame: probabilities(frame, parsed), source, output, chosen)


def write_points(source: Path, output: Path, selection: Selection, *, places: Sequence[str], method: Method) -> Path:
    """Writes every member at places (`Name,latitude,longitude`) as CSV: a row a member, a column a channel."""
    parsed = [Place.parse(place) for place in places]
    if not parsed:
        raise ValueError("Expected at least one place such as --place Oslo,59.9,10.8, got none.")
    require_ending(output, ".csv")
    series = make(lambda frame: at_points(frame, parsed, method), source, selection)
    return write_whole(output, lambda path: _write_csv(series, path))


def _write(function: Product, source: Path, output: Path, selection: Selection) -> Path:
    require_ending(output, ".nc", ".zarr")  # before anything is computed
    return write_dataset(make(function, source, selection), output)


def make(function: Product, source: Path, selection: Selection) -> xr.Dataset:
    """Applies a product to one initial and lead time after another, so that only its results are held in memory.

    Of a Zarr store the next one is read, or decoded, meanwhile.
    """
    part = open_part(source, selection)
    if not part.sizes["number"]:
        raise ValueError(f"The selection has no members of {source}.")
    loaded = prefetch(xr.Dataset.load, _frames(part), threads=1, ahead=1) if is_zarr(source) else _frames(part)
    frames = show_progress(loaded, part.sizes["time"] * part.sizes["prediction_timedelta"], "lead times")
    made = [function(frame.load()) for frame in frames]
    leads = part.sizes["prediction_timedelta"]
    forecasts = [
        xr.concat(made[first : first + leads], "prediction_timedelta", data_vars="all")
        for first in range(0, len(made), leads)
    ]
    return xr.concat(forecasts, "time", data_vars="all", combine_attrs="override")


def write_dataset(dataset: xr.Dataset, output: Path, *, describe: Product = with_product_metadata) -> Path:
    """Writes a dataset as netCDF (.nc), with CF names, or Zarr (any other suffix), whole or not at all.

    `describe` returns it with CF names.

    A store is not said to follow CF: its names of WeatherBench 2 begin with digits.
    """
    if output.suffix == ".nc":
        named = describe(dataset)
        compressed = {name: {"zlib": True, "complevel": 1, "fletcher32": True} for name in named.data_vars}
        return write_whole(output, lambda path: named.to_netcdf(path, engine="netcdf4", encoding=compressed))
    dataset = dataset.copy()
    dataset.attrs.pop("Conventions", None)
    for coordinate in dataset.coords.values():
        coordinate.encoding["_FillValue"] = None
    return write_whole(output, lambda path: _write_zarr(dataset, path))


def write_whole(output: Path, write: Callable[[Path], object]) -> Path:
    """Lets `write` fill a temporary file or folder that becomes `output` when it is complete; one process at once."""
    with sole_writer(output), (whole_folder if output.suffix == ".zarr" else whole_file)(output) as temporary:
        write(temporary)
    return output


def _write_zarr(dataset: xr.Dataset, path: Path) -> None:
    dataset.to_zarr(path, encoding={name: {"compressors": CHECKED} for name in dataset.data_vars})
    seal(path)


def _frames(part: xr.Dataset) -> Iterator[xr.Dataset]:
    for init, lead in product(range(part.sizes["time"]), range(part.sizes["prediction_timedelta"])):
        yield part.isel(time=[init], prediction_timedelta=[lead])


def _write_csv(series: xr.Dataset, path: Path) -> None:
    columns = dict(_columns(series))
    rows = product(*(range(series.sizes[dim]) for dim in ("point", "time", "prediction_timedelta", "number")))
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*LABELS, *columns])
        for point, init, lead, member in rows:
            values = [f"{column[point, init, lead, member]:.7g}" for column in columns.values()]
            writer.writerow([*_labels(series, point, init, lead, member), *values])


def _labels(series: xr.Dataset, point: int, init: int, lead: int, member: int) -> list[str]:
    initial, ahead = series["time"].values[init], series["prediction_timedelta"].values[lead]
    where = [f"{series[name].values[point]:g}" for name in ("latitude", "longitude")]
    when = [np.datetime_as_string(initial, "m"), f"{ahead / HOUR:g}", np.datetime_as_string(initial + ahead, "m")]
    return [str(series["place"].values[point]), *where, *when, str(series["number"].values[member])]


def _columns(series: xr.Dataset) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the heading of each channel with its units, and its values by point, initial and lead time, and member."""
    dims = ("point", "time", "prediction_timedelta", "number")
    for name, field in series.data_vars.items():
        about = VARIABLES[str(name)]
        ordered = field.transpose(*dims, ...)
        for index, level in enumerate(field["level"].values if "level" in field.dims else [None]):
            heading = about.short if level is None else f"{about.short}{level}"
            yield f"{heading} [{about.units}]", ordered.values if level is None else ordered.values[..., index]
