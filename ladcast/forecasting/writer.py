"""Writes an ensemble forecast to Zarr as it is made: bounded memory, atomic, resumable after a kill."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import dask.array
import numpy as np
import xarray as xr

from ladcast.checkpoint import MANIFEST, read_document, read_tensors, write_checkpoint
from ladcast.data.analysis import Analysis
from ladcast.fields import PRECIPITATION, VARIABLES
from ladcast.forecasting.checkpoints import plain
from ladcast.forecasting.ensemble import EnsembleOptions, Position
from ladcast.forecasting.forecaster import Forecaster
from ladcast.times import STEP, describe, lead_times

STORE, PROGRESS = "store", "progress"
WRITERS = 8
"""Threads that compress and write chunks at once."""
COORDINATE_ATTRIBUTES = {
    "time": {"standard_name": "forecast_reference_time", "long_name": "initial time"},
    "prediction_timedelta": {"standard_name": "forecast_period", "long_name": "lead time"},
    "number": {"standard_name": "realization", "long_name": "ensemble member", "units": "1"},
    "level": {"standard_name": "air_pressure", "units": "hPa", "positive": "down"},
    "latitude": {"standard_name": "latitude", "units": "degrees_north"},
    "longitude": {"standard_name": "longitude", "units": "degrees_east"},
}


class ForecastWriter:
    """Appends member batches of frames to a store in `<path>.partial`, which becomes `path` when it is complete.

    The store has the WeatherBench 2 layout: dims `time, prediction_timedelta, number, level, latitude, longitude`.
    Beside it lies the position of the forecast, so that a killed run goes on with the next block.

    Raises:
        FileExistsError: `path` exists, or a partial store of another forecast does.
        OSError: the folder cannot be written.
    """

    def __init__(
        self,
        path: Path,
        forecaster: Forecaster,
        analyses: Analysis | Sequence[Analysis],
        options: EnsembleOptions,
    ) -> None:
        if path.exists():
            raise FileExistsError(f"{path} exists already. Choose another --output, or add --overwrite.")
        self.path = path
        self.partial = path.with_name(f"{path.name}.partial")
        starts = [analyses] if isinstance(analyses, Analysis) else list(analyses)
        self.forecaster, self.init_time, self.options = forecaster, starts[0].time, options
        self.lead_times = lead_times(
            options.blocks * forecaster.config.future_frames * len(starts), STEP // len(starts)
        )
        self.identity = {
            "model": forecaster.name,
            "init_time": describe(self.init_time),
            "starts": [describe(start.time) for start in starts],
            "source": starts[0].source,
            "filled": list(starts[0].filled),
            "options": plain(asdict(options)),
        }

    def start(self) -> Position:
        """Creates the partial store, or finds the one of a killed run; returns where the forecast goes on."""
        if not self.partial.exists():
            try:
                self.partial.mkdir(parents=True)
                self._create()
            except OSError as error:
                shutil.rmtree(self.partial, ignore_errors=True)
                raise OSError(
                    f"Cannot write {self.partial}: {error.strerror or error}. Choose another --output."
                ) from error
            return Position(0, 0)
        return self._resume()

    def append(self, frames: xr.Dataset, following: Position) -> None:
        """Writes one block of one member batch, and then the position that follows it."""
        import zarr

        leads = np.searchsorted(self.lead_times, frames["prediction_timedelta"].values)
        members = slice(int(frames["number"].values[0]), int(frames["number"].values[-1]) + 1)
        store = zarr.open_group(self.partial / STORE, mode="r+")

        def write(name: str, index: int) -> None:  # one chunk; leads of staggered starts do not follow each other
            array = cast("zarr.Array[Any]", store[name])
            array[0, int(leads[index]), members] = frames[name].values[0, index]

        with ThreadPoolExecutor(WRITERS) as pool:
            pieces = [pool.submit(write, str(name), index) for name in frames for index in range(len(leads))]
        for piece in pieces:
            piece.result()
        self._save(following)

    def finish(self) -> Path:
        """Completes the metadata and gives the store its name."""
        import zarr

        zarr.consolidate_metadata(self.partial / STORE)
        (self.partial / STORE).rename(self.path)
        shutil.rmtree(self.partial)
        return self.path

    def _create(self) -> None:
        rows, columns = self.forecaster.grid.shape
        sizes = {
            "time": 1,
            "prediction_timedelta": len(self.lead_times),
            "number": self.options.members,
            "level": len(self.forecaster.channels.levels),
            "latitude": rows,
            "longitude": columns,
        }
        coordinates = {
            "time": np.array([self.init_time], dtype="datetime64[ns]"),
            "prediction_timedelta": self.lead_times,
            "number": np.arange(self.options.members),
            "level": np.array(self.forecaster.channels.levels),
            "latitude": np.array(self.forecaster.grid.latitude),
            "longitude": np.array(self.forecaster.grid.longitude),
        }
        template = xr.Dataset(
            {name: _empty(name, sizes) for name in self.forecaster.channels.variables},
            coords={name: (name, values, COORDINATE_ATTRIBUTES[name]) for name, values in coordinates.items()},
            attrs={
                "Conventions": "CF-1.11",
                "title": "ladcast ensemble forecast",
                "source": f"ladcast model {self.forecaster.name}",
                "history": json.dumps(self.identity),
            },
        )
        chunks = {"time": 1, "prediction_timedelta": 1, "number": self.options.batch_size}
        encoding = {
            name: {"chunks": tuple(chunks.get(str(dim), sizes[str(dim)]) for dim in field.dims)}
            for name, field in template.data_vars.items()
        }
        template.to_zarr(self.partial / STORE, compute=False, consolidated=False, encoding=encoding, mode="w-")
        self._save(Position(0, 0))

    def _save(self, position: Position) -> None:
        tensors = {} if position.past is None else {"past": position.past}
        manifest = {**self.identity, "batch": position.batch, "block": position.block}
        write_checkpoint(self.partial / PROGRESS, tensors, {MANIFEST: manifest})

    def _resume(self) -> Position:
        progress = self.partial / PROGRESS
        hint = f"Delete {self.partial}, or add --overwrite, to start afresh."
        try:
            tensors, manifest = read_tensors(progress), read_document(progress, MANIFEST)
        except (FileNotFoundError, ValueError) as error:
            raise FileExistsError(f"{self.partial} holds a forecast that cannot go on: {error} {hint}") from error
        differing = [key for key, value in self.identity.items() if manifest[key] != value]
        if differing:
            raise FileExistsError(
                f"{self.partial} holds an unfinished forecast with another {differing[0]}: expected "
                f"{self.identity[differing[0]]}, got {manifest[differing[0]]}. {hint}"
            )
        if manifest["block"] == self.options.blocks:
            return Position(manifest["batch"] + 1, 0)
        return Position(manifest["batch"], manifest["block"], tensors.get("past"))


def remove_forecast(path: Path) -> None:
    """Deletes a forecast store and what a killed run left of it."""
    for store in (path, path.with_name(f"{path.name}.partial")):
        if store.exists():
            shutil.rmtree(store)


def _empty(name: str, sizes: dict[str, int]) -> xr.Variable:
    about = VARIABLES[name]
    dims = [dim for dim in sizes if dim != "level" or about.on_levels]
    attributes = {"units": about.units, "standard_name": about.standard_name, "short_name": about.short}
    if name == PRECIPITATION:
        attributes["cell_methods"] = "prediction_timedelta: sum (interval: 6 hours)"
    shape = [sizes[dim] for dim in dims]
    unwritten = dask.array.full(shape, np.nan, dtype=np.float32, chunks=shape)  # type: ignore[no-untyped-call]
    return xr.Variable(dims, unwritten, attributes)
