"""`ladcast export`, and `ladcast decode`, which is an export of latents."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from ladcast.commands.common import FLAT, WHOLE, Part, Results, report_paths
from ladcast.forecasts.options import ExportFormat

DEFAULT_FORMAT = ExportFormat()


def export(
    forecast: Path,
    output: Path,
    selection: Part = WHOLE,
    *,
    form: Annotated[ExportFormat, FLAT] = DEFAULT_FORMAT,
) -> Results:
    """Write a forecast, or a part of it, as netCDF4 (.nc), GRIB2 (.grib2, extra [grib]) or Zarr (.zarr).

    Args:
        forecast: forecast store.
        output: file or store to write; its suffix says the format.
        selection: which part.
        form: details of the format.
    """
    from ladcast.forecasts.export import export as write

    return report_paths(export=write(forecast, output, selection, form))


def decode(
    forecast: Path,
    output: Path,
    selection: Part = WHOLE,
    *,
    times: tuple[str, ...] = (),
    model: str | None = None,
    device: str | None = None,
    form: Annotated[ExportFormat, FLAT] = DEFAULT_FORMAT,
) -> Results:
    """Decode a forecast that was kept as latents, or a part of it, to Zarr, netCDF4 or GRIB2.

    Args:
        forecast: latent store.
        output: file or store to write; its suffix says the format. A Zarr store of a killed run is completed.
        selection: which part.
        times: initial times, such as 2011-10-11T00.
        model: name or folder of the model that made the latents, where it is not found by itself.
        device: cpu or cuda; a GPU where there is one.
        form: details of the format.
    """
    from ladcast.forecasts.export import export as write
    from ladcast.forecasts.manifest import LatentManifest

    LatentManifest.read(forecast)  # raises for a store of fields
    return report_paths(fields=write(forecast, output, selection, form, times=times, model=model, device=device))
