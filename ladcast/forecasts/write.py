"""A forecast on disk: its layout in WeatherBench 2 names with CF attributes, and its writing to Zarr as it is made.

Memory is bounded, the store is whole or absent, and a killed run goes on.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import count
from pathlib import Path
from threading import Semaphore
from typing import Any, ClassVar, TypeAlias

import dask.array
import numpy as np
import numpy.typing as npt
import xarray as xr
import zarr
from jaxtyping import Shaped
from torch import Tensor

from ladcast.cf import CONVENTIONS, FORECAST_COORDINATES, forecast_attributes
from ladcast.checksums import seal
from ladcast.data.zarr_chunks import CHECKED, ChunkWriter, UnsupportedLayoutError
from ladcast.device import reuse_memory
from ladcast.fields import VARIABLES, ChannelSet
from ladcast.forecasting.checkpoints import plain
from ladcast.forecasting.codec import Decoded
from ladcast.forecasting.ensemble import (
    FORECAST_DIMS,
    EnsembleOptions,
    InitialCondition,
    MemberBatch,
    member_batches,
)
from ladcast.forecasting.forecaster import Forecaster
from ladcast.forecasting.stepper import ForecastStep
from ladcast.grid import Grid
from ladcast.resumable import Unfinished
from ladcast.times import HOUR, describe, lead_times


@dataclass(frozen=True, eq=False)
class ForecastLayout:
    """Holds the coordinates of a forecast of one or several initial times."""

    channels: ChannelSet
    grid: Grid
    init_times: Shaped[np.ndarray, " init"]
    lead_times: Shaped[np.ndarray, " lead"]
    members: npt.NDArray[np.int64]

    @property
    def has_analysis(self) -> bool:
        """Says whether the first lead time is 0: then it is the analysis that stands there, for all members."""
        return not self.lead_times[0].astype(int)

    def coordinates(self, *names: str) -> dict[str, xr.Variable]:
        """Returns the named coordinates, by default all, with CF attributes."""
        values = {
            "time": self.init_times,
            "prediction_timedelta": self.lead_times,
            "number": self.members,
            "level": np.array(self.channels.levels),
            "latitude": np.array(self.grid.latitude),
            "longitude": np.array(self.grid.longitude),
        }
        return {name: xr.Variable(name, values[name], FORECAST_COORDINATES[name]) for name in names or values}

    def dims(self, variable: str) -> tuple[str, ...]:
        """Returns the dimensions of a variable."""
        return tuple(dim for dim in FORECAST_DIMS if dim != "level" or VARIABLES[variable].on_levels)

    def shape(self, dims: Sequence[str]) -> tuple[int, ...]:
        """Returns the lengths of these dimensions."""
        return tuple(variable.size for variable in self.coordinates(*dims).values())


def forecast_layout(
    forecaster: Forecaster, conditions: Sequence[InitialCondition], options: EnsembleOptions
) -> ForecastLayout:
    """Returns the layout of the forecasts from all initial conditions, those of one initial time merged by lead time.

    Raises:
        ValueError: the analyses of an initial time are not one step, or an even part of it, apart.
    """
    times = np.array([[initial.init_time, initial.analysis.time] for initial in conditions], dtype="datetime64[ns]")
    init_times = np.unique(times[:, 0])
    staggered = len(conditions) // len(init_times)
    spacing = forecaster.frames.step // staggered
    expected = init_times[:, None] - np.arange(staggered) * spacing
    if not np.array_equal(expected.ravel(), times[:, 1]):
        raise ValueError(
            f"Expected initial times that increase, each with the analyses of every {spacing / HOUR:g} h before it, "
            f"got analyses of {describe(times[:, 1])} for {describe(init_times)}. Sort them, or add those that lack."
        )
    made = lead_times(options.blocks * forecaster.frames.future * staggered, spacing)
    return ForecastLayout(
        channels=forecaster.channels,
        grid=forecaster.grid,
        init_times=init_times,
        lead_times=np.append(0 * made[:1], made) if options.analysis else made,
        members=np.array(options.kept),
    )


def forecast_identity(
    forecaster: Forecaster, conditions: Sequence[InitialCondition], options: EnsembleOptions
) -> dict[str, Any]:
    """Returns all that a forecast's numbers follow from, as plain data.

    How often a failed member may be drawn again is no part of it: those that do not fail are the same.
    """
    chosen = plain(asdict(options))
    del chosen["redraws"]
    if not options.only:
        del chosen["only"]
    if not chosen["analysis"]:  # as stores of earlier versions, which have none
        del chosen["analysis"]
    size = {name: chosen.pop(name) for name in ("members", "blocks", "seed")}
    sampling = {"sampling": settings} if (settings := forecaster.stepper.settings()) else {}
    states = hashlib.sha256()
    starts: dict[str, list[str]] = {}
    for analysis, init_time in conditions:  # their values: a source of the same name may have changed
        states.update(analysis.state.numpy().tobytes())
        starts.setdefault(describe(init_time), []).append(describe(analysis.time))
    return {
        "model": forecaster.name,
        "init_times": list(starts),
        "starts": list(starts.values()),
        "source": conditions[0].analysis.source,
        "filled": sorted({name for initial in conditions for name in initial.analysis.filled}),
        "states": states.hexdigest()[:16],
        "options": {**size, **sampling, **chosen},  # in the order that stores have always had
    }


def global_attributes(identity: Mapping[str, Any]) -> dict[str, str]:
    """Returns the attributes of a forecast as a whole."""
    return {
        "Conventions": CONVENTIONS,
        "title": "ladcast ensemble forecast",
        "source": f"ladcast model {identity['model']}",
        "history": json.dumps(identity),
    }


WRITERS = min(len(os.sched_getaffinity(0)), 16)
"""Threads that compress and write chunks at once: as many as the process has cores."""
LEADS_AT_ONCE = 3
"""Decoded lead times that are in memory: of one chunks are written, one is arriving, one is waiting for neither."""
MEMBERS_PER_CHUNK = 8
BatchStep: TypeAlias = tuple[MemberBatch, ForecastStep]


def members_per_chunk(options: EnsembleOptions) -> int:
    """Returns how many members share a chunk: a divisor of the batch size, so that batches own whole chunks."""
    most = 1 if options.only else MEMBERS_PER_CHUNK
    return next(size for size in range(most, 0, -1) if options.batch_size % size == 0)


class StoreWriter(ABC):
    """Appends the steps of a forecast to a store that becomes `path` when it is complete.

    Use: `batches = start()`, then `write` or `append` every step that each of them makes, then `finish`. `unreal` says
    what about the model's weather is not as in the real atmosphere. With `overwrite` an existing store stays until the
    new one is complete.

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
        self.unfinished = Unfinished(path, self.begun(self.identity), overwrite=overwrite)

    @classmethod
    def begun(cls, identity: Mapping[str, Any]) -> dict[str, Any]:
        """Returns what an unfinished store of a forecast's identity must have been begun with to go on."""
        return {**identity, "kind of store": cls.keeps}

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
        deque(self.write([(batch, step)]), maxlen=0)

    def write(self, steps: Iterable[BatchStep]) -> Iterator[BatchStep]:
        """Writes steps while the next ones are made, and yields each when it is on the disk and recorded.

        Progress follows the values: a kill between the two has the same values written again.
        """
        reuse_memory()
        begun: deque[tuple[BatchStep, dict[str, Tensor], Sequence[Future[None]]]] = deque()
        with _closing(ThreadPoolExecutor(WRITERS)) as pool:
            try:
                for batch, step in steps:
                    past = {"past": step.past.cpu()} if step.number + 1 < self.options.blocks else {}
                    begun.append(((batch, step), past, self._begin(pool, batch, step)))
                    if len(begun) > 1:
                        yield self._complete(*begun.popleft())
            except Exception:  # what is made already is not lost with what cannot be made
                while begun:
                    self._complete(*begun.popleft())
                raise
            while begun:
                yield self._complete(*begun.popleft())

    def _complete(self, made: BatchStep, past: dict[str, Tensor], pieces: Sequence[Future[None]]) -> BatchStep:
        for piece in pieces:
            piece.result()
        batch, step = made
        self.unfinished.save(self._name(batch), {"block": step.number + 1}, past)
        return made

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
    def _begin(self, pool: ThreadPoolExecutor, batch: MemberBatch, step: ForecastStep) -> Sequence[Future[None]]:
        """Lets a pool write the values of one step; writing them again changes nothing."""

    def _open(self, name: str) -> zarr.Array[Any]:
        # Chunks without a value are written, too: to look for them would take as long as to compress the others.
        array = zarr.open_array(self.unfinished.content / name, mode="r+")
        return array.with_config({"write_empty_chunks": True})

    def _name(self, batch: MemberBatch) -> str:
        # Names on disk: unfinished forecasts of earlier versions go on with them.
        return f"{batch.condition * self.options.batches + batch.number:06d}"

    def _place(self, batch: MemberBatch, step: ForecastStep) -> tuple[int, range, slice]:
        """Returns where a step belongs: the index of its initial time, those of its lead times and of its members.

        Lead times are those that the forecaster makes, without that of the analysis.
        The lead times of forecasts from the hours before an initial time fall between each other.
        """
        staggered = len(self.conditions) // len(self.layout.init_times)
        init, earlier = divmod(batch.condition, staggered)
        frames = step.latents.shape[2]
        first = (step.number * frames + 1) * staggered - 1 - earlier
        leads = range(first, first + frames * staggered, staggered)
        member = int(np.searchsorted(self.layout.members, batch.members[0]))
        return init, leads, slice(member, member + len(batch.members))


class ForecastWriter(StoreWriter):
    """Decodes each step and writes its fields, with the dimensions and names of WeatherBench 2."""

    keeps = "fields"

    @property
    def bytes(self) -> int:
        """Returns the size of the fields in float32."""
        return 4 * sum(math.prod(self.layout.shape(self.layout.dims(name))) for name in self.layout.channels.variables)

    def _create(self, store: Path) -> None:
        fields = {}
        for name in self.layout.channels.variables:
            dims = self.layout.dims(name)
            fields[name] = empty_variable(dims, self.layout.shape(dims), forecast_attributes(name))
        template = xr.Dataset(fields, self.layout.coordinates(), self.attributes())
        create_fields(store, template, members_per_chunk=members_per_chunk(self.options))

    def _open_fields(self, name: str) -> ChunkWriter | zarr.Array[Any]:
        try:
            return ChunkWriter.open(self.unfinished.content / name)
        except UnsupportedLayoutError:  # begun by an earlier version
            return self._open(name)

    @cached_property
    def _room(self) -> Semaphore:
        return Semaphore(LEADS_AT_ONCE)

    def _begin(self, pool: ThreadPoolExecutor, batch: MemberBatch, step: ForecastStep) -> Sequence[Future[None]]:
        init, leads, members = self._place(batch, step)
        arrays = {name: self._open_fields(name) for name in self.layout.channels.variables}
        pieces: list[Future[None]] = []

        def write(name: str, lead: int, frames: Decoded) -> None:  # a chunk has one lead time
            planes = frames.states()[:, self.layout.channels.rows(name)].numpy()
            values, array = planes if VARIABLES[name].on_levels else planes[:, 0], arrays[name]
            if not isinstance(array, ChunkWriter):
                array[init, lead, members] = np.ascontiguousarray(values)
                return
            size = array.chunk_shape[2]
            for first in range(0, len(values), size):  # a batch owns whole chunks
                index = (init, lead, (members.start + first) // size, *[0] * (values.ndim - 1))
                array.write(index, values[None, None, first : first + size])

        def begin(lead: int, frames: Decoded) -> None:
            of_lead = [pool.submit(write, name, lead, frames) for name in arrays]
            _when_all_are_done(of_lead, self._room.release)
            pieces.extend(of_lead)

        analysis, codec = batch.initial.analysis, batch.forecaster.codec
        if self.layout.has_analysis and step.number == 0 and analysis.time == batch.initial.init_time:
            self._room.acquire()
            state = codec.normalizer.mask_land(analysis.state, analysis.ocean)
            begin(0, Decoded(state.expand(len(batch.members), *state.shape), None))
        latents = batch.of_members(step)
        by_lead = latents.permute(2, 0, 1, 3, 4).flatten(0, 1)
        decoded = codec.decode_groups(by_lead, analysis.ocean, group=len(latents))
        for lead in leads:
            self._room.acquire()
            try:
                frames = next(decoded)
            except BaseException:
                self._room.release()
                raise
            begin(lead + self.layout.has_analysis, frames)
        return pieces


def _when_all_are_done(pieces: Sequence[Future[None]], then: Callable[[], object]) -> None:
    left = count(1)
    for piece in pieces:
        piece.add_done_callback(lambda _: then() if next(left) == len(pieces) else None)


@contextmanager
def _closing(pool: ThreadPoolExecutor) -> Iterator[ThreadPoolExecutor]:
    """Ends a pool as soon as what it works on is done, and begins nothing of the rest where the work was left."""
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


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
