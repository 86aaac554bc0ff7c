"""Which cyclones are to be tracked; imported by the command line, so it imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


@dataclass(frozen=True)
class TrackRequest:
    """Says which storms to track in a forecast, and where to write them.

    Attributes:
        storm: identifier of one storm in the best tracks, such as 2018271N06154; or --all.
        all: track all lows; with best tracks, also say which are observed storms.
        best_track: IBTrACS (.csv or .nc), HURDAT2 or a b-deck.
        config: YAML file with the storm, its start, and the rules of detection and stitching, as in configs/track.
        set: settings that win over the file, or over the defaults, such as detection.radius_deg=12.
        output: netCDF file of the tracks; CSV, GeoJSON and the page lie beside it. By default beside the forecast.
        device: cpu or cuda.
    """

    storm: str | None = None
    all: bool = False
    best_track: Path | None = None
    config: Path | None = None
    set: Annotated[tuple[str, ...], Parameter(consume_multiple=True)] = ()
    output: Path | None = None
    device: str = "cpu"
