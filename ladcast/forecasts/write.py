"""Writes an ensemble forecast to Zarr as it is made: bounded memory, whole or absent, and it goes on after a kill."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, cast

import dask.array
import numpy as np
import xarray as xr
import zarr
from zarr.codecs import ZstdCodec

from ladcast.cf import forecast_attributes
from ladcast.checksums import seal
from ladcast.forecasting.ensemble import EnsembleOptions, InitialCondition, MemberBatch, decode_step, member_batches
from ladcast.forecasting.forecaster import Forecaster
from ladcast.forecasting.stepper import ForecastStep
from ladcast.forecasts.layout import forecast_identity, forecast_layout, global_attributes
from ladcast.resumable import Unfinished

WRITERS = 8
"""Threads that compress and write chunks at once."""
CHECKED = ZstdCodec(checksum=True)
"""Compresses chunks, each with a checksum that every reader of Zarr compares."""


class StoreWriter(ABC):
    """Appends the steps of a forecast to a store that becomes `path` when it is complete.

    Use: `batches = start()`, then `append` every step that each of them makes, then `finish`. `unreal` says what about
    the model's weather is not as in the real atmosphere. With `overwrite` an existing store stays until the new one is
    complete.

    Raises:
        FileExistsError: `path` exists, or an unfinished store of another forecast does, and not `overwrite`.
        OSError: the folder cannot be written.
    """

    keeps: ClassVar[str]
    """What is kept of a frame: a store of latents does not go on as one of fields."""

    def __init__(
        self,
        path: Path,
        forecaster: Forecaster,
        conditions: Sequence[InitialCondition],
        options: EnsembleOptions,
        *,
        unreal: str | None = None,
        overwrite: bool = False,
    ) -> None:
        self.forecaster, self.conditions, self.options, self.unreal = forecaster, conditions, options, unreal
        self.layout = forecast_layout(forecaster, conditions, options)
        self.identity = forecast_identity(forecaster, conditions, options)
        identity = {**self.identity, "kind of store": self.keeps}
        self.unfinished = Unfinished(path, identity, overwrite=overwrite)

    @property
    @abstractmethod
    def bytes(self) -> int:
        """Returns the size of all values before they are compressed."""

    def start(self) -> list[MemberBatch]:
        """Creates the unfinished store, or finds that of a killed run; returns the member batches that remain."""
        saved = self.unfinished.start(self._create)
        batches = []
        for batch in member_batches(self.forecaster, self.conditions, self.options):
            if (begun := saved.get(self._name(batch))) is not None:
                batch = replace(batch, done=begun.document["block"], past=begun.tensors.get("past"))
            batches.append(batch)
        return [batch for batch in batches if batch.done < self.options.blocks]

    def append(self, batch: MemberBatch, step: ForecastStep) -> None:
        """Writes one step of one member batch, and then how far the batch has come."""
        self._write(batch, step)
        # Progress follows the values: a kill between the two has the same values written again.
        done = step.number + 1
        past = {"past": step.past} if done < self.options.blocks else {}
        self.unfinished.save(self._name(batch), {"block": done}, past)

    def finish(self) -> Path:
        """Completes the metadata, lists the files and gives the store its name."""
        if not self.unfinished.has_its_name:
            zarr.consolidate_metadata(self.unfinished.content)
            seal(self.unfinished.content)
        return self.unfinished.finish()

    def attributes(self) -> dict[str, str]:
        """Returns the attributes of the store as a whole."""
        return global_attributes(self.identity) | ({} if self.unreal is None else {"unreal": self.unreal})

    @abstractmethod
    def _create(self, store: Path) -> None:
        """Writes the coordinates, the metadata and arrays without values."""

    @abstractmethod
    def _write(self, batch: MemberBatch, step: ForecastStep) -> None:
        """Writes the values of one step; writing them again changes nothing."""

    def _open(self) -> zarr.Group:
        return zarr.open_group(self.unfinished.content, mode="r+")

    def _name(self, batch: MemberBatch) -> str:
        # Names on disk: unfinished forecasts of earlier versions go on with them.
        return f"{batch.condition * self.options.batches + batch.number:06d}"

    def _place(self, batch: MemberBatch, step: ForecastStep) -> tuple[int, range, slice]:
        """Returns where a step belongs: the index of its initial time, those of its lead times and of its members.

        The lead times of forecasts from the hours before an initial time fall between each other.
        """
        staggered = len(self.conditions) // len(self.layout.init_times)
        init, earlier = divmod(batch.condition, staggered)
        frames = step.latents.shape[2]
        first = (step.number * frames + 1) * staggered - 1 - earlier
        leads = range(first, first + frames * staggered, staggered)
        return init, leads, slice(batch.members.start, batch.members.stop)


class ForecastWriter(StoreWriter):
    """Decodes each step and writes its fields, with the dimensions and names of WeatherBench 2."""

    keeps = "fields"

    @property
    def bytes(self) -> int:
        """Returns the size of the fields in float32."""
        return 4 * sum(math.prod(self.layout.shape(self.layout.dims(name))) for name in self.layout.channels.variables)

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

    def _write(self, batch: MemberBatch, step: ForecastStep) -> None:
        init, leads, members = self._place(batch, step)
        frames, store = decode_step(batch, step), self._open()

        def write(name: str, index: int, lead: int) -> None:  # a chunk has one lead time
            cast("zarr.Array[Any]", store[name])[init, lead, members] = frames[name].values[0, index]

        with ThreadPoolExecutor(WRITERS) as pool:
            pieces = [pool.submit(write, str(name), *place) for name in frames for place in enumerate(leads)]
        for piece in pieces:
            piece.result()

    def _empty(self, name: str) -> xr.Variable:
        dims = self.layout.dims(name)
        return empty_variable(dims, self.layout.shape(dims), forecast_attributes(name))


def create_fields(store: Path, template: xr.Dataset, *, members_per_chunk: int) -> None:
    """Creates a store like `template` without its values, one lead time of some members in a chunk."""
    chunks = {"time": 1, "prediction_timedelta": 1, "number": members_per_chunk}
    encoding = {
        name: {
            "chunks": tuple(min(chunks.get(str(dim), size), size) for dim, size in field.sizes.items()),
            "compressors": CHECKED,
        }
        for name, field in template.data_vars.items()
    }
    template.to_zarr(store, compute=False, consolidated=False, encoding=encoding, mode="w-")


def empty_variable(dims: tuple[str, ...], shape: tuple[int, ...], attributes: dict[str, str]) -> xr.Variable:
    """Returns a float32 variable that takes no memory: what `create_fields` makes room for."""
    unwritten = dask.array.full(shape, np.nan, dtype=np.float32, chunks=shape)  # type: ignore[no-untyped-call]
    return xr.Variable(dims, unwritten, attributes)
