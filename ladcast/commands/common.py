"""What the commands share. Command files import nothing heavy before they run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from ladcast.forecasts.options import Selection

Results = dict[str, Any]
"""What a command hands to machines that ask for JSON; people read what it prints."""
FLAT = Parameter(name="*")
"""Makes the fields of a dataclass options of the command."""
DEFAULT_PLACE = "Paris,48.9,2.3"
WHOLE = Selection()
Part = Annotated[Selection, FLAT]
Overrides = Annotated[tuple[str, ...], Parameter(name="--set")]


def report_paths(**results: Path) -> Results:
    """Prints what was written, and returns it for machines."""
    for name, path in results.items():
        print(f"{name} {path}")
    return dict(results)
