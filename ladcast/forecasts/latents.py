"""Keeps a forecast as latents: a small part of the size of its fields, from which any frame can be decoded."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
import xarray as xr
import zarr
from jaxtyping import Float
from torch import Tensor

from ladcast.checksums import check_seal
from ladcast.data.zarr_chunks import CHECKED
from ladcast.fields import ChannelSet
from ladcast.forecasting.ensemble import EnsembleOptions, InitialCondition, MemberBatch
from ladcast.forecasting.forecaster import Forecaster
from ladcast.forecasting.stepper import ForecastStep
from ladcast.forecasts.manifest import LatentManifest
from ladcast.forecasts.write import ForecastLayout, StoreWriter, empty_variable, members_per_chunk
from ladcast.grid import Grid
from ladcast.times import HOUR, describe
from ladcast.types import OceanMask, State

LATENT_DIMS = ("time", "prediction_timedelta", "number", "latent", "y", "x")
DIGITS = 16


class Frame(NamedTuple):
    """The indices of one frame in a store: of its initial time, its lead time and its member."""

    init: int
    lead: int
    member: int


class LatentWriter(StoreWriter):
    """Writes latents as they are, with all that is needed to decode them but the weights.

    `folder` is where the model lies; readers look there when they find no model of its name. `about` is what
    `StoreWriter` takes.
    """

    keeps = "latents"

    @property
    def bytes(self) -> int:
        """Returns the size of the latents, and of the analyses beside them, in float32."""
        latents = math.prod(self.made.shape(LATENT_DIMS[:3])) * math.prod(self.frame_shape)
        state = len(self.layout.channels) * math.prod(self.layout.grid.shape)
        return 4 * (latents + self.layout.has_analysis * len(self.layout.init_times) * state)

    def __init__(
        self,
        path: Path,
        forecaster: Forecaster,
        conditions: Sequence[InitialCondition],
        options: EnsembleOptions,
        *,
        folder: Path | None = None,
        **about: Any,
    ) -> None:
        super().__init__(path, forecaster, conditions, options, **about)
        self.manifest = LatentManifest(
            model=forecaster.name,
            folder=None if folder is None else str(folder.resolve()),
            beside=None if folder is None else os.path.relpath(folder.resolve(), path.resolve().parent),
            channels=forecaster.channels.to_dict(),
            grid=forecaster.grid.to_dict(),
        )
        channels, rows, columns = forecaster.frame_shape
        self.frame_shape = (channels, rows, columns)
        self.made = replace(self.layout, lead_times=self.layout.lead_times[self.layout.has_analysis :])
        """What the forecaster makes, of which there are latents."""
        # All analyses of an initial time have its ocean (see `staggered`).
        oceans = {initial.init_time: initial.analysis.ocean.numpy() for initial in conditions}
        self.ocean = np.stack(list(oceans.values()))

    def _create(self, store: Path) -> None:
        before = self.made.shape(LATENT_DIMS[:3])
        mask = xr.Variable(("time", "latitude", "longitude"), self.ocean.astype(np.int8), OCEAN_ATTRIBUTES)
        latent = empty_variable(LATENT_DIMS, (*before, *self.frame_shape), LATENT_ATTRIBUTES)
        template = xr.Dataset(
            {"latent": latent, "ocean": mask},
            coords=self.made.coordinates("time", "prediction_timedelta", "number", "latitude", "longitude"),
            attrs=self.attributes() | self.manifest.to_attributes(),
        )
        chunks = (1, 1, members_per_chunk(self.options), *self.frame_shape)
        encoding: dict[str, Any] = {"latent": {"chunks": chunks, "compressors": CHECKED}}
        encoding["ocean"] = {"compressors": CHECKED}
        if self.layout.has_analysis:
            masked = self.forecaster.codec.normalizer.mask_land
            starts = [analysis for analysis, init_time in self.conditions if analysis.time == init_time]
            values = torch.stack([masked(analysis.state, analysis.ocean) for analysis in starts]).numpy()
            template[ANALYSIS] = (("time", "channel", "latitude", "longitude"), values, ANALYSIS_ATTRIBUTES)
            encoding[ANALYSIS] = {"compressors": CHECKED, "chunks": (1, *values.shape[1:])}
        template.to_zarr(store, compute=False, consolidated=False, encoding=encoding, mode="w-")

    def _begin(self, pool: ThreadPoolExecutor, batch: MemberBatch, step: ForecastStep) -> Sequence[Future[None]]:
        init, leads, members = self._place(batch, step)
        values, array = batch.of_members(step).float().cpu().numpy(), self._open("latent")

        def write(index: int, lead: int) -> None:  # a chunk has one lead time
            array[init, lead, members] = values[:, :, index]

        return [pool.submit(write, *place) for place in enumerate(leads)]


ANALYSIS = "analysis"
ANALYSIS_ATTRIBUTES = {
    "long_name": "channels of the analysis in SI units, which readers put at lead time 0",
    "units": "1",
}
OCEAN_ATTRIBUTES = {
    "long_name": "where the sea surface temperature of the start is defined",
    "flag_values": [0, 1],
    "flag_meanings": "land ocean",
}
LATENT_ATTRIBUTES = {
    "long_name": "latent of the autoencoder, scaled to the standard deviation of the diffusion",
    "units": "1",
}


class LatentStore:
    """Reads a latent store.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is another store or damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest = LatentManifest.read(path)
        check_seal(path)
        try:
            with xr.open_zarr(path, chunks=None, decode_timedelta=True) as ds:
                ds = ds.assign_coords({name: ds[name].load() for name in LATENT_DIMS[:3]})
                self.attributes = {str(name): value for name, value in ds.attrs.items() if name in GLOBAL_ATTRIBUTES}
                self._ocean = ds["ocean"].values.astype(bool)
                _check(ds, self._ocean)
        except (KeyError, OSError, RuntimeError, ValueError) as error:
            raise ValueError(f"{path} is damaged: {error}. {COPY_AGAIN}") from error
        made = ds["prediction_timedelta"].values.astype("timedelta64[ns]")
        self.layout = ForecastLayout(
            channels=ChannelSet.from_dict(self.manifest.channels),
            grid=Grid.from_dict(self.manifest.grid),
            init_times=ds["time"].values.astype("datetime64[ns]"),
            lead_times=np.append(0 * made[:1], made) if ANALYSIS in ds else made,
            members=ds["number"].values,
        )

    def digest(self) -> str:
        """Returns what tells this store from others, and is the same for copies: from its model and one frame.

        Decoded fields would not do: their last bits depend on the machine. The frame is of the last lead time, as
        forecasts of several models may share the first.
        """
        latent = self.read([Frame(0, len(self.layout.lead_times) - 1, 0)])
        return hashlib.sha256(self.manifest.weights.encode() + latent.numpy().tobytes()).hexdigest()[:DIGITS]

    def ocean(self, init: int) -> OceanMask:
        """Returns where the ocean is in the forecast from the initial time of this index."""
        return torch.from_numpy(self._ocean[init])

    def has_latent(self, frame: Frame) -> bool:
        """Says whether a frame is kept as a latent: all are but the analysis."""
        return not (self.layout.has_analysis and frame.lead == 0)

    def analysis(self, init: int) -> State:
        """Reads the analysis that the forecast from the initial time of this index starts from, in SI units.

        Raises:
            ValueError: it is missing or damaged.
        """
        try:
            array = cast("zarr.Array[Any]", zarr.open_group(self.path, mode="r")[ANALYSIS])
            state = torch.from_numpy(np.asarray(array[init], dtype=np.float32))
        except (OSError, RuntimeError, ValueError) as error:
            raise ValueError(f"{self.path}: the analysis is damaged: {error}. {COPY_AGAIN}") from error
        if state.isnan().flatten(1).all(1).any():  # Zarr reads chunks that are not there as NaN
            raise ValueError(f"{self.path}: the analysis is missing. {COPY_AGAIN}")
        return state

    def read(self, frames: Sequence[Frame]) -> Float[Tensor, "frame latent y x"]:
        """Reads the latents of these frames that have one, those of one lead time that follow each other at once.

        Raises:
            ValueError: a chunk is missing or damaged; the message names the frame.
        """
        of_one_lead = groupby(frames, key=lambda frame: (frame.init, frame.lead))
        return torch.from_numpy(np.concatenate([self._read(list(some)) for _, some in of_one_lead]))

    def _read(self, frames: list[Frame]) -> Float[np.ndarray, "frame latent y x"]:
        members = np.array([frame.member for frame in frames])
        try:
            array = cast("zarr.Array[Any]", zarr.open_group(self.path, mode="r")["latent"])
            lead = frames[0].lead - self.layout.has_analysis
            latents = np.asarray(array.oindex[frames[0].init, lead, members], dtype=np.float32)
        except (OSError, RuntimeError, ValueError) as error:
            raise ValueError(f"{self.path}: {self._name(frames[0])} is damaged: {error}. {COPY_AGAIN}") from error
        for frame, latent in zip(frames, latents, strict=True):
            if not np.isfinite(latent).all():  # Zarr reads chunks that are not there as NaN
                raise ValueError(f"{self.path}: {self._name(frame)} is missing. {COPY_AGAIN}")
        return latents

    def _name(self, frame: Frame) -> str:
        lead = self.layout.lead_times[frame.lead] / HOUR
        return (
            f"member {self.layout.members[frame.member]} of the forecast from "
            f"{describe(self.layout.init_times[frame.init])}, lead {lead:g} h,"
        )


def _check(ds: xr.Dataset, ocean: np.ndarray[Any, np.dtype[np.bool_]]) -> None:
    """Raises ValueError where a small array lacks its chunk, which Zarr reads as zeros or NaN."""
    for name in LATENT_DIMS[:3]:
        values = ds[name].values
        if not (values[1:] > values[:-1]).all():
            raise ValueError(f"expected increasing values of '{name}', got {values}")
    if not ocean.any(axis=(1, 2)).all():
        raise ValueError("expected an ocean in 'ocean', got land everywhere")


GLOBAL_ATTRIBUTES = ("Conventions", "title", "source", "history", "unreal")
COPY_AGAIN = "The store is incomplete: copy it again, or make the forecast again."


def all_frames(inits: Sequence[int], leads: Sequence[int], members: Sequence[int]) -> Iterator[Frame]:
    """Yields the frames of every combination, members running fastest."""
    return (Frame(init, lead, member) for init in inits for lead in leads for member in members)
