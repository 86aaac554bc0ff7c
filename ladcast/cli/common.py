"""What the commands of every group share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from ladcast.forecasts.selection import Selection

Results = dict[str, Any]
"""What a command hands to machines that ask for JSON; people read what it prints."""
DEFAULT_PLACE = "Paris,48.9,2.3"
WHOLE = Selection()
Part = Annotated[Selection, Parameter(name="*")]
Several = Parameter(consume_multiple=True)
Overrides = Annotated[tuple[str, ...], Parameter(name="--set", consume_multiple=True)]


def told(**results: Path) -> Results:
    """Prints what was written, and returns it for machines."""
    for name, path in results.items():
        print(f"{name} {path}")
    return dict(results)
