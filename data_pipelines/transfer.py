"""Copies frames into a new store, unit by unit, regridded on the way where that is asked for.

`download`, `regrid` and `derive` are this recipe with different inputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import xarray as xr

from data_pipelines.manifest import Content, describe_times
from data_pipelines.options import StoreLayout
from data_pipelines.patience import DISK, Patience
from data_pipelines.reading import read_field
from data_pipelines.work import WorkUnit, time_units
from data_pipelines.zarr_store import StoredVariable, Template, write_frames
from ladcast.cf import STATE_COORDINATES
from ladcast.data.prefetch import prefetch
from ladcast.data.regrid import regrid
from ladcast.fields import VARIABLES
from ladcast.grid import Grid, grid_of

READ_BYTES = 64 * 2**20
READERS = 4


class Frames(Protocol):
    """Says where frames come from; pickles, and opens anew in each process."""

    def open(self) -> xr.Dataset:
        """Returns the frames, lazily, in canonical layout."""
        ...

    @property
    def about(self) -> dict[str, Any]:
        """Returns the entry of a manifest's `inputs`."""
        ...

    @property
    def arguments(self) -> dict[str, Any]:
        """Returns the entry of a manifest's `arguments`."""
        ...


@dataclass(frozen=True)
class Transfer:
    """Copies all variables of `source` that have a time, and regrids its other fields too."""

    stage: str
    source: Frames
    onto: Grid | None = None
    options: StoreLayout = field(default_factory=StoreLayout)
    patience: Patience = DISK

    def about(self) -> Content:
        """Describes the product."""
        ds = self.source.open()
        onto = str(self.onto) if self.onto else None
        return {
            "stage": self.stage,
            "inputs": {"store": self.source.about},
            "arguments": {**self.source.arguments, "onto": onto, **asdict(self.options)},
            "variables": sorted(map(str, _names(ds))),
            "grid": self._grid(ds).to_dict(),
            **describe_times(ds["time"].values),
        }

    def units(self) -> Sequence[WorkUnit]:
        """Returns the shards of the store."""
        template = self.template()
        return time_units(template.fixed["time"].values, template.shard_frames)

    def create(self, folder: Path) -> None:
        """Creates the store."""
        self.template().create(folder)

    def make(self, folder: Path, unit: WorkUnit) -> Iterable[str]:
        """Writes the shard of each variable, one after the other: memory holds one of them."""
        ds = self.source.open()
        for name in _names(ds):
            yield from write_frames(folder, [(name, (unit.items,), self.read(ds, name, unit.items))])

    def finish(self, folder: Path) -> Path:
        """Returns the store: there is nothing left to do."""
        return folder

    def template(self) -> Template:
        """Returns the layout of the new store."""
        ds = self.source.open()
        target = self._grid(ds)
        fields = {name: _field(ds[name], target) for name in _names(ds)}
        static = {
            name: (values.dims, self._onto(values.values, ds), _attributes(values))
            for name, values in ds.data_vars.items()
            if "time" not in values.dims
        }
        places = {"latitude": target.latitude, "longitude": target.longitude}
        coordinates = {
            name: (name, np.asarray(places.get(name, ds[name].values)), about)
            for name, about in STATE_COORDINATES.items()
            if name in ds.coords
        }
        attrs = {key: ds.attrs[key] for key in ("source", "attribution", "unreal") if key in ds.attrs}
        return Template.of(xr.Dataset(static, coordinates, attrs), fields, self.options)

    def read(self, ds: xr.Dataset, name: str, items: slice) -> npt.NDArray[np.float32]:
        """Reads and regrids frames of one variable, in pieces of bounded size, ahead of use."""
        frames = ds[name].isel(time=items)
        step = max(int(READ_BYTES * len(frames) // frames.nbytes), 1)
        pieces = [frames.isel(time=slice(k, k + step)) for k in range(0, len(frames), step)]
        shape = (*frames.shape[:-2], *self._grid(ds).shape)
        values = np.empty(shape, np.float32)
        parts = prefetch(partial(read_field, patience=self.patience), pieces, threads=READERS, ahead=READERS)
        for first, part in zip(range(0, len(frames), step), parts, strict=True):
            values[first : first + step] = self._onto(part, ds)
        return values

    def _grid(self, ds: xr.Dataset) -> Grid:
        return self.onto or grid_of(ds)

    def _onto(self, values: npt.NDArray[Any], ds: xr.Dataset) -> npt.NDArray[np.float32]:
        moved = values if self.onto is None else regrid(values, grid_of(ds), self.onto)
        return moved.astype(np.float32, copy=False)


def _names(ds: xr.Dataset) -> list[str]:
    return [str(name) for name, values in ds.data_vars.items() if "time" in values.dims]


def _field(values: xr.DataArray, grid: Grid) -> StoredVariable:
    dims = tuple(str(dim) for dim in values.dims[1:])
    return StoredVariable(dims, (*values.shape[1:-2], *grid.shape), _attributes(values))


def _attributes(values: xr.DataArray) -> dict[str, Any]:
    known = VARIABLES.get(str(values.name))
    named = {"units": known.units, "standard_name": known.standard_name} if known else {}
    return {"long_name": str(values.name).replace("_", " "), **values.attrs, **named}
