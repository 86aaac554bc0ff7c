"""Maps and figures drawn from forecasts, and what they may show.

Importing a module here loads matplotlib and cartopy; this one, which the command line imports, loads nothing heavy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter

from ladcast.grid import Region, parse_region


@dataclass(frozen=True)
class FieldOptions:
    """Says which field a figure shows, and where; a page shows its own.

    Attributes:
        field: such as z500, t2m, wind850, tp6h.
        value: the contour of spaghetti, or the threshold of a probability, in the units of the map.
        below: whether the probability is that of lower values.
        region: west,south,east,north in degrees, such as -60,25,50,75; the globe by default.
    """

    field: str = "z500"
    value: float | None = None
    below: bool = False
    region: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None

    def __post_init__(self) -> None:
        if self.value is not None and not math.isfinite(self.value):
            raise ValueError(f"Expected --value as a number, got {self.value}.")
        if self.region is not None:
            parse_region(self.region)

    @property
    def bounds(self) -> Region | None:
        """Returns the region as numbers."""
        return None if self.region is None else parse_region(self.region)


FIGURE_KINDS = (
    "page",
    "mean",
    "spread",
    "difference",
    "stamps",
    "spaghetti",
    "probability",
    "meteogram",
    "hovmoller",
    "animation",
)
"""What `ladcast plot` draws, beside the number of a member."""
