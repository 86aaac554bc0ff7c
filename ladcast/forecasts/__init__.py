"""A forecast on disk: its layout, how it is written, opened, decoded and exported; here which part of it is meant.

The command line imports this file, so there is nothing heavy in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from cyclopts import Parameter

from ladcast.grid import Region, parse_region
from ladcast.times import parse_time

FORECAST_AXES = ("time", "prediction_timedelta", "number")
"""The dimensions that make a dataset a forecast of an ensemble."""


@dataclass(frozen=True)
class Selection:
    """Says which part of a forecast is wanted; what is not named stays whole.

    Attributes:
        variables: WeatherBench 2 names or short names, such as geopotential or z.
        levels: pressure levels in hPa; surface variables stay.
        leads: lead times in hours.
        members: ensemble members.
        region: west,south,east,north in degrees, such as -10,35,30,70.
        times: initial times, such as 2011-10-11T00.
    """

    variables: tuple[str, ...] = ()
    levels: tuple[int, ...] = ()
    leads: tuple[int, ...] = ()
    members: tuple[int, ...] = ()
    region: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None
    times: Annotated[tuple[str, ...], Parameter(name=("--time", "--times"))] = ()

    def __post_init__(self) -> None:
        for time in self.times:
            parse_time(time)
        if self.region is not None:
            parse_region(self.region)

    @property
    def bounds(self) -> Region | None:
        """Returns the region as numbers."""
        return None if self.region is None else parse_region(self.region)


WHOLE = Selection()


@dataclass(frozen=True)
class ExportFormat:
    """Sets the details of the output's format, which its suffix names.

    Attributes:
        zarr_format: version of a Zarr store: 3 with one file for each frame of a variable, or 2 for older readers.
        names: names of dimensions and variables: cf (netCDF by default), weatherbench2 (Zarr by default), or cdo: those
            of CF on one axis of valid times, for one member in netCDF, as cdo, ncview and GIS read it.
        bits: bits for each value in GRIB2; a value is off by at most the range of its field / (2^bits - 1).
        packing: packing in GRIB2: ccsds, or simple for old readers.
        overwrite: replace an existing output.
    """

    zarr_format: Literal[2, 3] = 3
    names: Literal["cf", "weatherbench2", "cdo"] | None = None
    bits: int = 16
    packing: Literal["ccsds", "simple"] = "ccsds"
    overwrite: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 24:
            raise ValueError(f"Expected bits from 1 to 24, got {self.bits}.")
