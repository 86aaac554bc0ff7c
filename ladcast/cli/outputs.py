"""Commands that turn a forecast into files and pictures, and describe it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from ladcast.cli.common import DEFAULT_PLACE, WHOLE, Part, Results, Several, told
from ladcast.forecasts.options import ExportFormat
from ladcast.released.registry import DEFAULT_MODEL

DEFAULT_FORMAT = ExportFormat()


def export(
    forecast: Path,
    output: Path,
    selection: Part = WHOLE,
    *,
    form: Annotated[ExportFormat, Parameter(name="*")] = DEFAULT_FORMAT,
) -> Results:
    """Write a forecast, or a part of it, as netCDF4 (.nc), GRIB2 (.grib2, extra [grib]) or Zarr (.zarr).

    Args:
        forecast: forecast store.
        output: file or store to write; its suffix says the format.
        selection: which part.
        form: details of the format.
    """
    from ladcast.commands.export import export as write

    return told(export=write(forecast, output, selection, form))


def decode(
    forecast: Path,
    output: Path,
    selection: Part = WHOLE,
    *,
    times: Annotated[tuple[str, ...], Several] = (),
    model: str | None = None,
    device: str | None = None,
    form: Annotated[ExportFormat, Parameter(name="*")] = DEFAULT_FORMAT,
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
    from ladcast.commands.decode import decode as write

    return told(fields=write(forecast, output, selection, times=times, form=form, model=model, device=device))


def mean(forecast: Path, output: Path, selection: Part = WHOLE) -> Results:
    """Write the ensemble mean and spread (standard deviation, divisor members - 1).

    Args:
        forecast: forecast store, of latents or of fields.
        output: .nc or .zarr.
        selection: which part.
    """
    from ladcast.commands.products import write_mean

    return told(mean=write_mean(forecast, output, selection))


def quantiles(
    forecast: Path,
    output: Path,
    selection: Part = WHOLE,
    *,
    level: Annotated[tuple[float, ...], Several] = (0.1, 0.25, 0.5, 0.75, 0.9),
) -> Results:
    """Write quantiles of the members.

    Args:
        forecast: forecast store, of latents or of fields.
        output: .nc or .zarr.
        selection: which part.
        level: fractions of the members, from 0 to 1.
    """
    from ladcast.commands.products import write_quantiles

    return told(quantiles=write_quantiles(forecast, output, selection, fractions=level))


def probability(
    forecast: Path,
    output: Path,
    selection: Part = WHOLE,
    *,
    event: Annotated[tuple[str, ...], Several],
) -> Results:
    """Write the share of members in which something happens.

    Args:
        forecast: forecast store, of latents or of fields.
        output: .nc or .zarr.
        selection: which part.
        event: such as 't2m > 30 degC', 'tp6h >= 10 mm', 'z500 < 5200 m' or '10m_wind_speed > 34 kt'.
    """
    from ladcast.commands.products import write_probabilities

    return told(probability=write_probabilities(forecast, output, selection, events=event))


def points(
    forecast: Path,
    output: Path,
    selection: Part = WHOLE,
    *,
    place: Annotated[tuple[str, ...], Several] = (DEFAULT_PLACE,),
    method: Literal["bilinear", "nearest"] = "bilinear",
) -> Results:
    """Write series of all members at places as CSV.

    Args:
        forecast: forecast store, of latents or of fields.
        output: .csv.
        selection: which part.
        place: places as Name,latitude,longitude.
        method: weight the four grid points around a place, or take the nearest.
    """
    from ladcast.commands.products import write_points

    return told(points=write_points(forecast, output, selection, places=place, method=method))


def plot(
    forecast: Path,
    *,
    truth: Path | None = None,
    output: Path | None = None,
    place: str = DEFAULT_PLACE,
    lead_days: float = 5.0,
) -> Results:
    """Draw one page: ensemble mean and spread on maps, and the plume of one place.

    Args:
        forecast: forecast store.
        truth: Zarr store or netCDF file to draw beside the plume.
        output: .png, .pdf or .svg file; by default beside the forecast.
        place: place of the plume, as Name,latitude,longitude.
        lead_days: lead time of the maps, such as 5, or 0.25 for 6 hours.
    """
    from ladcast.commands.plot import plot_forecast

    page = output or forecast.with_suffix(".png")
    return told(page=plot_forecast(forecast, page, place=place, truth_path=truth, lead_days=lead_days))


def show(path: str = DEFAULT_MODEL) -> Results:
    """Describe a model or a forecast store.

    Args:
        path: name of an embedded model, a checkpoint folder, or a forecast store.
    """
    from ladcast.commands.show import show as describe

    description = describe(path)
    print(description)
    return {"description": description}
