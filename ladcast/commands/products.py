"""`ladcast products`: mean, quantiles, probability, points."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ladcast.commands.common import DEFAULT_PLACE, WHOLE, Part, Results, report_paths


def mean(forecast: Path, output: Path, selection: Part = WHOLE) -> Results:
    """Write the ensemble mean and spread (standard deviation, divisor members - 1).

    Args:
        forecast: forecast store, of latents or of fields.
        output: .nc or .zarr.
        selection: which part.
    """
    from ladcast.forecasts.write_products import write_mean

    return report_paths(mean=write_mean(forecast, output, selection))


def quantiles(
    forecast: Path,
    output: Path,
    selection: Part = WHOLE,
    *,
    level: tuple[float, ...] = (0.1, 0.25, 0.5, 0.75, 0.9),
) -> Results:
    """Write quantiles of the members.

    Args:
        forecast: forecast store, of latents or of fields.
        output: .nc or .zarr.
        selection: which part.
        level: fractions of the members, from 0 to 1.
    """
    from ladcast.forecasts.write_products import write_quantiles

    return report_paths(quantiles=write_quantiles(forecast, output, selection, fractions=level))


def probability(forecast: Path, output: Path, selection: Part = WHOLE, *, event: tuple[str, ...]) -> Results:
    """Write the share of members in which something happens.

    Args:
        forecast: forecast store, of latents or of fields.
        output: .nc or .zarr.
        selection: which part.
        event: such as 't2m > 30 degC', 'tp6h >= 10 mm', 'z500 < 5200 m' or '10m_wind_speed > 34 kt'.
    """
    from ladcast.forecasts.write_products import write_probabilities

    return report_paths(probability=write_probabilities(forecast, output, selection, events=event))


def points(
    forecast: Path,
    output: Path,
    selection: Part = WHOLE,
    *,
    place: tuple[str, ...] = (DEFAULT_PLACE,),
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
    from ladcast.forecasts.write_products import write_points

    return report_paths(points=write_points(forecast, output, selection, places=place, method=method))
