"""Writes a forecast, or a part of it, in the format of another program."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import xarray as xr

from ladcast.forecasts.formats import FrameWriter, NetcdfWriter, ZarrWriter
from ladcast.forecasts.grib import GribWriter
from ladcast.forecasts.open import open_forecast, open_part
from ladcast.forecasts.options import ExportFormat, Selection
from ladcast.progress import show_progress
from ladcast.resumable import sole_writer


def export(source: Path, output: Path, selection: Selection, form: ExportFormat, **decoding: Any) -> Path:
    """Writes a part of a forecast frame by frame as netCDF4, GRIB2 or Zarr, which the suffix of the output says.

    Memory holds the chosen members and variables of one lead time. A Zarr output of a killed run is completed.
    `decoding` are options of `LatentEngine`.

    Raises:
        FileExistsError: the output exists, or an unfinished other export does.
        ValueError: the suffix is unknown, the forecast has no such part.
    """
    part = open_part(source, selection, **decoding)
    writer = find_writer(part, output, form, ensemble_size=open_forecast(source, **decoding).sizes["number"])
    with sole_writer(output):
        done = writer.start()
        members = part.sizes["number"]
        total = (writer.frames - done) * members
        frames, unit = range(done, writer.frames), "members x lead times"
        for _ in show_progress(frames, total, "export", weight=lambda _: members, unit=unit):
            writer.append()
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
