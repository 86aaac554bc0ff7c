"""Exports as netCDF and Zarr, and what all formats share: written frame by frame, named when complete, gone on with."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Generator, Hashable, Iterator, Mapping
from itertools import islice, product
from pathlib import Path
from typing import Any, ClassVar, Final, Literal, cast

import dask.array
import numpy as np
import xarray as xr

from ladcast.cf import Names, with_metadata
from ladcast.checksums import seal
from ladcast.data.lazy import prefetch
from ladcast.device import reuse_memory
from ladcast.files import hdf_errors
from ladcast.forecasts import FORECAST_AXES
from ladcast.resumable import Unfinished

CHUNKED_WHOLE = {"number", "realization", "latitude", "longitude"}
"""Dimensions that a chunk of a field holds whole: the others are read apart."""
BESIDE = ("valid_time", "forecast_reference_time", "forecast_period", "realization")
"""Coordinates that a field names in netCDF where it has them beside its dimensions."""
FRAMES = "frames"
"""Names the progress of an export."""
AHEAD = 2
"""Variables that are read before their turn."""


class FrameWriter(ABC):
    """Writes a forecast frame by frame: all members, levels and variables of one initial time and lead time.

    Memory is bounded by few variables of one frame. A killed export goes on with the next frame, where the format can.
    With `reads_ahead` a thread decodes or reads the next variables while one is written: not from netCDF or GRIB, whose
    libraries take one thread.

    Args:
        forecast: forecast in the WeatherBench 2 layout, lazily opened.
        path: what to write.
        overwrite: replace an existing output when the new one is complete.
        settings: what shapes the output beside the forecast; an export that goes on must share it.

    Raises:
        FileExistsError: the output exists, and not `overwrite`.
        ValueError: the forecast lacks a dimension.
    """

    goes_on: ClassVar[bool] = True
    """Whether a file of this format survives the kill of its writer."""
    reads_ahead = False

    def __init__(self, forecast: xr.Dataset, path: Path, *, overwrite: bool, **settings: Any) -> None:
        missing = [dim for dim in FORECAST_AXES if dim not in forecast.dims]
        if missing or not forecast.data_vars:
            raise ValueError(
                f"Expected a forecast with dimensions time, prediction_timedelta and number, got "
                f"{', '.join(map(str, forecast.dims)) or 'none'} and {len(forecast.data_vars)} variables. "
                "Give a store that `ladcast forecast` wrote."
            )
        self.forecast = forecast.transpose(*FORECAST_AXES, ...)
        identity = {"forecast": layout_hash(forecast), **settings} if self.goes_on else None
        self.unfinished = Unfinished(path, identity, kind="content", overwrite=overwrite)
        self.done = 0
        self._fields = self._read_all()  # which begins when the first is wanted

    @property
    def content(self) -> Path:
        """Returns what is written now."""
        return self.unfinished.content

    @property
    def frames(self) -> int:
        """Returns the number of frames of the whole output."""
        return self.forecast.sizes["time"] * self.forecast.sizes["prediction_timedelta"]

    def start(self) -> int:
        """Creates the unfinished output, or finds that of a killed export; returns how many frames it has.

        Raises:
            FileExistsError: an unfinished export of something else is there, and not `overwrite`.
            OSError: the output cannot be written.
        """
        reuse_memory()
        saved = self.unfinished.start(self._begin)
        if FRAMES in saved:
            self.done = saved[FRAMES].document["done"]
            self._open(saved[FRAMES].document)
        return self.done

    def append(self) -> int:
        """Writes the next frame and returns how many there are now."""
        init, lead = divmod(self.done, self.forecast.sizes["prediction_timedelta"])
        self._write(init, lead, islice(self._fields, len(self.forecast.data_vars)))
        self.done += 1
        self._save()
        return self.done

    def finish(self) -> Path:
        """Gives the complete output its name."""
        self.close()
        self._close()
        return self.unfinished.finish()

    def close(self) -> None:
        """Ends the reading ahead, also of an export that fails."""
        self._fields.close()

    def _read_all(self) -> Generator[xr.DataArray, None, None]:
        """Yields the variables of the frames that remain, one after the other."""
        places = product(range(self.done, self.frames), self.forecast.data_vars)
        if self.reads_ahead:
            yield from prefetch(self._read, places, threads=1, ahead=AHEAD)
        yield from map(self._read, places)

    def _read(self, place: tuple[int, Hashable]) -> xr.DataArray:
        init, lead = divmod(place[0], self.forecast.sizes["prediction_timedelta"])
        return self.forecast[place[1]].isel(time=init, prediction_timedelta=lead).load()

    def _begin(self, content: Path) -> None:
        with hdf_errors(content):
            self._create()
            self._open({})
        self._save()  # before the work counts as begun, so that what was begun can always be reopened

    def _save(self) -> None:
        if self.goes_on:
            self.unfinished.save(FRAMES, {"done": self.done, **self._state()})

    @abstractmethod
    def _create(self) -> None:
        """Creates `self.content`, empty but for what describes it."""

    @abstractmethod
    def _write(self, init: int, lead: int, fields: Iterator[xr.DataArray]) -> None:
        """Writes the frame of these indices of the initial and the lead time, variable by variable."""

    @abstractmethod
    def _open(self, state: Mapping[str, Any]) -> None:
        """Opens `self.content`, new or of a killed export, for the frame after the last that is whole."""

    def _state(self) -> dict[str, Any]:
        """Returns what `_open` needs beside the number of frames."""
        return {}

    @abstractmethod
    def _close(self) -> None:
        """Completes `self.content`."""


def layout_hash(forecast: xr.Dataset) -> str:
    """Returns a hash of what a forecast is: its attributes, coordinates and variables, not its values."""
    digest = hashlib.sha256(json.dumps({name: str(value) for name, value in forecast.attrs.items()}).encode())
    for name in sorted(map(str, forecast.variables)):
        digest.update(f"{name} {forecast[name].dims} {forecast[name].shape}".encode())
        if name in forecast.coords:
            digest.update(np.ascontiguousarray(forecast[name].values).tobytes())
    return digest.hexdigest()[:16]


COMPRESSION_LEVEL: Final = 1
ZarrFormat = Literal[2, 3]


class NetcdfWriter(FrameWriter):
    """Writes one compressed file, a chunk for each level of a frame with all its members.

    HDF5 cannot promise that a file survives a kill while it is written, so a killed export starts afresh.
    """

    goes_on = False

    def __init__(self, forecast: xr.Dataset, path: Path, *, names: Names = "cf", overwrite: bool = False) -> None:
        super().__init__(forecast, path, overwrite=overwrite)
        self.described = with_metadata(self.forecast, names)

    def _create(self) -> None:
        # As data variables: xarray would list coordinates without a field in a global attribute that CF does not know.
        coordinates = self.described.drop_vars(self.described.data_vars).reset_coords()
        coordinates.to_netcdf(self.content, engine="netcdf4")

    def _open(self, state: Mapping[str, Any]) -> None:
        import netCDF4

        self.file = netCDF4.Dataset(self.content, "r+")
        for dim, size in self.described.sizes.items():
            if dim not in self.file.dimensions:
                self.file.createDimension(str(dim), size)
        for name, field in self.described.data_vars.items():
            self._define(str(name), field)

    def _define(self, name: str, field: xr.DataArray) -> None:
        variable = self.file.createVariable(
            name,
            "f4",
            [str(dim) for dim in field.dims],
            compression="zlib",
            complevel=COMPRESSION_LEVEL,
            shuffle=True,
            fletcher32=True,  # readers compare the checksum of each chunk
            chunksizes=[size if dim in CHUNKED_WHOLE else 1 for dim, size in field.sizes.items()],
            fill_value=np.nan,
            chunk_cache=1,  # chunks are written whole: a cache of them, one for each variable, would only take memory
        )
        variable.set_auto_maskandscale(False)
        beside = [name for name in BESIDE if name in self.described.coords and name not in field.dims]
        variable.setncatts({**field.attrs, "coordinates": " ".join(beside)})

    def _write(self, init: int, lead: int, fields: Iterator[xr.DataArray]) -> None:
        flat = "realization" not in self.described.dims and "number" not in self.described.dims
        for field, target in zip(fields, self.described.data_vars, strict=True):
            values = field.values
            with hdf_errors(self.content):
                self.file[str(target)][lead if flat else (init, lead)] = values[0] if flat else values

    def _close(self) -> None:
        with hdf_errors(self.content):
            self.file.close()


class ZarrWriter(FrameWriter):
    """Writes one store: a chunk for each level of a frame with all its members.

    In version 3 the levels of a frame share a file (a shard), which is always written as a whole.
    """

    def __init__(
        self,
        forecast: xr.Dataset,
        path: Path,
        *,
        zarr_format: ZarrFormat = 3,
        names: Names = "weatherbench2",
        overwrite: bool = False,
    ) -> None:
        super().__init__(forecast, path, overwrite=overwrite, format="zarr", zarr_format=zarr_format, names=names)
        self.described = with_metadata(self.forecast, names)
        self.zarr_format = zarr_format

    def _create(self) -> None:
        template = self.described.map(_unwritten, keep_attrs=True)
        encoding = {name: self._encoding(field) for name, field in template.data_vars.items()}
        template.to_zarr(
            self.content, compute=False, consolidated=False, encoding=encoding, mode="w-", zarr_format=self.zarr_format
        )

    def _write(self, init: int, lead: int, fields: Iterator[xr.DataArray]) -> None:
        for field, target in zip(fields, self.arrays, strict=True):
            target[init, lead] = field.values

    def _close(self) -> None:
        import zarr

        if not self.unfinished.has_its_name:
            zarr.consolidate_metadata(self.content, zarr_format=self.zarr_format)
            seal(self.content)

    def _open(self, state: Mapping[str, Any]) -> None:
        import zarr

        group = zarr.open_group(self.content, mode="r+", zarr_format=self.zarr_format)
        # Chunks without a value are written, too: to look for them would take as long as to compress the others.
        settings: Any = {"write_empty_chunks": True}
        self.arrays = [cast("Any", group[str(name)]).with_config(settings) for name in self.described.data_vars]

    def _encoding(self, field: xr.DataArray) -> dict[str, Any]:
        from numcodecs import Zstd
        from zarr.codecs import BloscCodec, BloscShuffle, Crc32cCodec

        chunks = tuple(size if dim in CHUNKED_WHOLE else 1 for dim, size in field.sizes.items())
        shards = tuple(1 if axis < 2 else size for axis, size in enumerate(field.shape))
        encoding: dict[str, Any] = {"chunks": chunks, "_FillValue": np.float32(np.nan)}
        if self.zarr_format == 2:
            return {**encoding, "compressors": Zstd(3, checksum=True)}  # GDAL knows no filters, and no CRC
        shuffled = BloscCodec(cname="zstd", clevel=3, shuffle=BloscShuffle.shuffle)  # the default packs floats badly
        encoding["compressors"] = (shuffled, Crc32cCodec())
        return {**encoding, "shards": shards} if shards != chunks else encoding


def _unwritten(field: xr.DataArray) -> xr.DataArray:
    """Returns a field of the same shape that holds nothing, to define its array from."""
    empty = dask.array.full(field.shape, np.nan, dtype=np.float32, chunks=-1)  # type: ignore[no-untyped-call]
    return field.copy(data=empty)
