"""Which part of a forecast is wanted; imported by the command line, so it imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter

REGION_FORM = "Expected a region as west,south,east,north in degrees such as -10,35,30,70"


@dataclass(frozen=True)
class Selection:
    """Says which part of a forecast is wanted; what is not named stays whole.

    Attributes:
        variables: WeatherBench 2 names or short names, such as geopotential or z.
        levels: pressure levels in hPa; surface variables stay.
        leads: lead times in hours.
        members: ensemble members.
        region: west,south,east,north in degrees, such as -10,35,30,70.
    """

    variables: Annotated[tuple[str, ...], Parameter(consume_multiple=True)] = ()
    levels: Annotated[tuple[int, ...], Parameter(consume_multiple=True)] = ()
    leads: Annotated[tuple[int, ...], Parameter(consume_multiple=True)] = ()
    members: Annotated[tuple[int, ...], Parameter(consume_multiple=True)] = ()
    region: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None

    @property
    def bounds(self) -> tuple[float, float, float, float] | None:
        """Returns the region as numbers; raises ValueError that shows the expected form."""
        if self.region is None:
            return None
        try:
            west, south, east, north = (float(edge) for edge in self.region.split(","))
        except ValueError:
            raise ValueError(f"{REGION_FORM}, got '{self.region}'.") from None
        return west, south, east, north
