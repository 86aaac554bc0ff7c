"""Writes an ensemble forecast to Zarr as it is made: bounded memory, atomic, resumable after a kill."""

from __future__ import annotations

from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar, cast

import dask.array
import numpy as np
import xarray as xr
import zarr

from ladcast.cf import forecast_attributes
from ladcast.forecasting.ensemble import EnsembleOptions, Position, Starts, first_positions
from ladcast.forecasting.forecaster import Forecaster
from ladcast.forecasts.layout import forecast_identity, forecast_layout, global_attributes
from ladcast.forecasts.partial import PartialStore

WRITERS = 8
"""Threads that compress and write chunks at once."""
Block = TypeVar("Block")


class StoreWriter(ABC, Generic[Block]):
    """Appends what a forecast yields to a store that becomes `path` when it is complete.

    Use: `position = start()`, then `append` every block that the forecast makes from there on, then `finish`.
    `unreal` says what about the model's weather is not as in the real atmosphere. With `overwrite` an existing store
    stays until the new one is complete.

    Raises:
        FileExistsError: `path` exists, or a partial store of another forecast does, and not `overwrite`.
        OSError: the folder cannot be written.
    """

    keeps: ClassVar[str]
    """What is kept of a frame: a store of latents does not go on as one of fields."""

    def __init__(
        self,
        path: Path,
        forecaster: Forecaster,
        starts: Starts,
        options: EnsembleOptions,
        *,
        unreal: str | None = None,
        overwrite: bool = False,
    ) -> None:
        self.forecaster, self.starts, self.options, self.unreal = forecaster, starts, options, unreal
        self.layout = forecast_layout(forecaster, starts, options)
        self.identity = forecast_identity(forecaster, starts, options)
        identity = {**self.identity, "kind of store": self.keeps}
        self.partial = PartialStore(path, identity, overwrite=overwrite)

    def start(self) -> list[Position]:
        """Creates the partial store, or finds the one of a killed run; returns where its member batches go on."""
        begun = self.partial.start(self._create)
        positions = [begun.get(first.batch, first) for first in first_positions(self.starts, self.options)]
        return [position for position in positions if position.block < self.options.blocks]

    def append(self, block: Block, following: Position) -> None:
        """Writes one block of one member batch, and then the position that follows it."""
        self._write(block)
        self.partial.save(following)

    def finish(self) -> Path:
        """Completes the metadata and gives the store its name."""
        zarr.consolidate_metadata(self.partial.store)
        return self.partial.finish()

    def attributes(self) -> dict[str, str]:
        """Returns the attributes of the store as a whole."""
        return global_attributes(self.identity) | ({} if self.unreal is None else {"unreal": self.unreal})

    @abstractmethod
    def _create(self, store: Path) -> None:
        """Writes the coordinates, the metadata and arrays without values."""

    @abstractmethod
    def _write(self, block: Block) -> None:
        """Writes the values of one block; writing them again changes nothing."""

    def _open(self) -> zarr.Group:
        return zarr.open_group(self.partial.store, mode="r+")


class ForecastWriter(StoreWriter[xr.Dataset]):
    """Writes the decoded frames that `forecast_ensemble` yields, with the dims and names of WeatherBench 2."""

    keeps = "fields"

    def _create(self, store: Path) -> None:
        create_fields(
            store,
            xr.Dataset(
                {name: self._empty(name) for name in self.layout.channels.variables},
                coords=self.layout.coordinates(),
                attrs=self.attributes(),
            ),
            members_per_chunk=self.options.batch_size,
        )

    def _write(self, block: xr.Dataset) -> None:
        (init_time,), leads = block["time"].values, block["prediction_timedelta"].values
        start, positions, numbers = self.layout.locate(init_time, leads, block["number"].values.tolist())
        store = self._open()

        def write(name: str, index: int, lead: int) -> None:  # one chunk: leads need not follow each other
            cast("zarr.Array[Any]", store[name])[start, lead, numbers] = block[name].values[0, index]

        with ThreadPoolExecutor(WRITERS) as pool:
            pieces = [pool.submit(write, str(name), *place) for name in block for place in enumerate(positions)]
        for piece in pieces:
            piece.result()

    def _empty(self, name: str) -> xr.Variable:
        dims = self.layout.dims(name)
        return empty_variable(dims, self.layout.shape(dims), forecast_attributes(name))


def create_fields(store: Path, template: xr.Dataset, *, members_per_chunk: int) -> None:
    """Creates a store like `template` without its values, one lead time of some members in a chunk."""
    chunks = {"time": 1, "prediction_timedelta": 1, "number": members_per_chunk}
    encoding = {
        name: {"chunks": tuple(min(chunks.get(str(dim), size), size) for dim, size in field.sizes.items())}
        for name, field in template.data_vars.items()
    }
    template.to_zarr(store, compute=False, consolidated=False, encoding=encoding, mode="w-")


def empty_variable(dims: tuple[str, ...], shape: tuple[int, ...], attributes: dict[str, str]) -> xr.Variable:
    """Returns a float32 variable that takes no memory: what `create_fields` makes room for."""
    unwritten = dask.array.full(shape, np.nan, dtype=np.float32, chunks=shape)  # type: ignore[no-untyped-call]
    return xr.Variable(dims, unwritten, attributes)
