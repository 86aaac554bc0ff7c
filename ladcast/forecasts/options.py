"""How a forecast is exported; imported by the command line, so it imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class ExportFormat:
    """Sets the details of the output's format, which its suffix names.

    Attributes:
        zarr_format: version of a Zarr store: 3 with one file for each frame of a variable, or 2 for older readers.
        names: names of dimensions and variables: cf (netCDF by default) or weatherbench2 (Zarr by default).
        bits: bits for each value in GRIB2; a value is off by at most the range of its field / (2^bits - 1).
        packing: packing in GRIB2: ccsds, or simple for old readers.
        overwrite: replace an existing output.
    """

    zarr_format: Literal[2, 3] = 3
    names: Literal["cf", "weatherbench2"] | None = None
    bits: int = 16
    packing: Literal["ccsds", "simple"] = "ccsds"
    overwrite: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 24:
            raise ValueError(f"Expected bits from 1 to 24, got {self.bits}.")
