"""Opens a latent store as a lazy dataset in physical units: only the frames that are asked for are decoded."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from jaxtyping import Float

from ladcast.cf import forecast_attributes
from ladcast.data.lazy import LazyField, lazy_variable, outer
from ladcast.forecasting.codec import LatentCodec
from ladcast.forecasts.latents import Frame, LatentStore, all_frames
from ladcast.types import State

GIB = 2**30
Planes = Float[np.ndarray, "channel lat lon"]


class FrameDecoder:
    """Decodes frames of a store on demand and keeps the latest of them, in no more than `cache_bytes`.

    Of a decoded frame it keeps the channels of `variables`. `load` gives the codec when the first frame is decoded.
    Threads may share a decoder: one frame is decoded at a time, once, with all the threads of the network library.
    A pickled decoder opens its store again and starts with an empty cache.
    """

    def __init__(
        self, store: LatentStore, load: Callable[[], LatentCodec], variables: Sequence[str], *, cache_bytes: int = GIB
    ) -> None:
        self.store, self.load, self.variables, self.cache_bytes = store, load, tuple(variables), cache_bytes
        channels = list(store.layout.channels)
        self.rows = [row for row, channel in enumerate(channels) if channel.variable in self.variables]
        self.channels = [channels[row] for row in self.rows]
        self._cache: OrderedDict[Frame, Planes] = OrderedDict()
        self._codec: LatentCodec | None = None
        self._lock = RLock()

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.store.path, self.load, self.variables, self.cache_bytes)

    @property
    def cached_bytes(self) -> int:
        """Returns the size of the frames it holds now."""
        return sum(planes.nbytes for planes in list(self._cache.values()))

    def read(
        self,
        frames: Sequence[Frame],
        channels: npt.NDArray[np.int64],
        rows: npt.NDArray[np.int64],
        columns: npt.NDArray[np.int64],
    ) -> Float[np.ndarray, "frame channel lat lon"]:
        """Returns these channels (counted among the kept ones), rows and columns of frames, decoded where needed."""
        cut = outer((channels, rows, columns))
        # The analysis is read and kept once for all members.
        frames = [frame if self.store.has_latent(frame) else frame._replace(member=0) for frame in frames]
        result = np.empty((len(frames), len(channels), len(rows), len(columns)), np.float32)
        size = self._get_codec().decoded_at_once
        planes = (plane for first in range(0, len(frames), size) for plane in self._some(frames[first : first + size]))
        for index, plane in enumerate(planes):
            result[index] = plane[cut]
        return result

    def read_variable(self, name: str, *points: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Returns a variable at these positions along each of its dimensions."""
        inits, leads, members, *levels, rows, columns = points
        channels = np.flatnonzero([channel.variable == name for channel in self.channels])
        frames = list(all_frames(inits.tolist(), leads.tolist(), members.tolist()))
        values = self.read(frames, channels[levels[0]] if levels else channels, rows, columns)
        return values.reshape([part.size for part in points])

    def _some(self, frames: Sequence[Frame]) -> list[Planes]:
        with self._lock:
            found = {frame: self._cache[frame] for frame in frames if frame in self._cache}
            missing = self._fill_up([frame for frame in dict.fromkeys(frames) if frame not in found])
            found.update(zip(missing, self._decode(missing), strict=True))
            for frame, planes in found.items():
                self._cache[frame] = planes
                self._cache.move_to_end(frame)
            while self._cache and self.cached_bytes > self.cache_bytes:
                self._cache.popitem(last=False)
            return [found[frame] for frame in frames]

    def _fill_up(self, missing: list[Frame]) -> list[Frame]:
        """Adds the members that follow: the room in a batch of the decoder costs the same filled or not."""
        latents = [frame for frame in missing if self.store.has_latent(frame)]
        if not latents:
            return missing
        init, lead, last = latents[-1]
        room = -len(latents) % self._get_codec().decoded_at_once
        following = range(last + 1, min(last + 1 + room, len(self.store.layout.members)))
        frames = [Frame(init, lead, member) for member in following]
        return missing + [frame for frame in frames if frame not in self._cache]

    def _decode(self, frames: list[Frame]) -> list[Planes]:
        states: dict[Frame, State] = {}
        kept = (frame for frame in frames if self.store.has_latent(frame))
        for init, group in groupby(kept, key=lambda frame: frame.init):
            some = list(group)
            decoded = self._get_codec().decode(self.store.read(some), self.store.ocean(init))
            states.update(zip(some, decoded, strict=True))
        found = (states[frame] if frame in states else self.store.analysis(frame.init) for frame in frames)
        return [self._kept(state) for state in found]

    def _kept(self, state: State) -> Float[np.ndarray, "kept_channel lat lon"]:
        # A view would hold all of its memory: the other channels, and the frames that were decoded with it.
        fills_memory = len(self.rows) == len(state) and state.nbytes == state.untyped_storage().nbytes()
        return (state if fills_memory else state[self.rows]).numpy()

    def _get_codec(self) -> LatentCodec:
        with self._lock:
            if self._codec is None:
                self._codec = self.load()
            return self._codec


def open_latents(
    path: Path, load: Callable[[], LatentCodec], *, drop: Iterable[str] = (), cache_bytes: int = GIB
) -> xr.Dataset:
    """Opens a latent store as the dataset that its fields would make, decoded with the codec that `load` gives.

    Dimensions, names and attributes are those of a store of fields; `preferred_chunks` are single frames. Leaving out
    variables (`drop`) makes the cache hold more frames.

    Raises:
        FileNotFoundError: there is no store.
        ValueError: it is another store or damaged, or it has no variable of a name in `drop`.
    """
    store = LatentStore(path)
    there = store.layout.channels.variables
    if unknown := [name for name in drop if name not in (*there, *store.layout.coordinates())]:
        raise ValueError(f"{path} has no variable {', '.join(unknown)} to leave out; it has {', '.join(there)}.")
    kept = [name for name in there if name not in set(drop)]
    decoder = FrameDecoder(store, load, kept, cache_bytes=cache_bytes)
    return xr.Dataset(
        {name: _variable(decoder, name) for name in kept}, coords=store.layout.coordinates(), attrs=store.attributes
    ).drop_vars(set(drop) - set(kept) - set(there))


def _variable(decoder: FrameDecoder, name: str) -> xr.Variable:
    dims = decoder.store.layout.dims(name)
    shape = decoder.store.layout.shape(dims)
    encoding = {"preferred_chunks": dict(zip(dims, (1, 1, 1, *shape[3:]), strict=True))}
    field = LazyField(shape, partial(decoder.read_variable, name))  # pickles as its decoder does
    return lazy_variable(dims, field, forecast_attributes(name), encoding)


def _reopen(path: Path, load: Callable[[], LatentCodec], variables: tuple[str, ...], cache_bytes: int) -> FrameDecoder:
    return FrameDecoder(LatentStore(path), load, variables, cache_bytes=cache_bytes)
