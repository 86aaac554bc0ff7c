"""Writes a forecast as one netCDF4 file with CF metadata."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import xarray as xr

from ladcast.cf import Names, with_metadata
from ladcast.files import hdf_errors
from ladcast.forecasts.formats.base import CHUNKED_WHOLE, FrameWriter

COMPRESSION_LEVEL: Final = 1


class NetcdfWriter(FrameWriter):
    """Writes one compressed file, a chunk for each level of a frame with all its members.

    HDF5 cannot promise that a file survives a kill while it is written, so a killed export starts afresh.
    """

    goes_on = False

    def __init__(self, forecast: xr.Dataset, path: Path, *, names: Names = "cf", overwrite: bool = False) -> None:
        super().__init__(forecast, path, overwrite=overwrite)
        self.described = with_metadata(self.forecast, names)

    def _create(self) -> None:
        import netCDF4

        # As data variables: xarray would list coordinates without a field in a global attribute that CF does not know.
        coordinates = self.described.drop_vars(self.described.data_vars).reset_coords()
        coordinates.to_netcdf(self.content, engine="netcdf4")
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
        variable.setncatts({**field.attrs, "coordinates": "valid_time"})

    def _write(self, init: int, lead: int, frame: xr.Dataset) -> None:
        for source, target in zip(frame.data_vars, self.described.data_vars, strict=True):
            values = frame[source].values
            with hdf_errors(self.content):
                self.file[str(target)][init, lead] = values

    def _close(self) -> None:
        with hdf_errors(self.content):
            self.file.close()
