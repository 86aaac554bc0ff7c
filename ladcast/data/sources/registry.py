"""The sources by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ladcast.data.sources.arco import ArcoEra5
from ladcast.data.sources.base import Source
from ladcast.data.sources.cds import ClimateDataStore
from ladcast.data.sources.delivered import DeliveringSource
from ladcast.data.sources.ecmwf import EcmwfOpenData
from ladcast.data.sources.gfs import Gfs
from ladcast.data.sources.local import LocalTree
from ladcast.data.sources.weatherbench2 import WeatherBench2

SOURCES: Mapping[str, type[Source]] = {
    "weatherbench2": WeatherBench2,
    "arco-era5": ArcoEra5,
    "cds": ClimateDataStore,
    "gfs": Gfs,
    "ecmwf-open-data": EcmwfOpenData,
    "local": LocalTree,
}
"""Each makes a source from keywords of its own: where it lies (`root`, `folder`), which store, model or format."""


def make_source(name: str, *, downloads: Path | None = None, **options: Any) -> Source:
    """Makes the source `name`; raises ValueError for an unknown name or option.

    A source that delivers files keeps them in `folder`; by default in a folder of its own within `downloads`, if given.
    """
    if name not in SOURCES:
        raise ValueError(f"Unknown source '{name}'. Known sources: {', '.join(SOURCES)}.")
    if downloads is not None and DeliveringSource in SOURCES[name].__mro__:
        options = {"folder": downloads / name} | options
    if "folder" in options:
        options["folder"] = Path(options["folder"])
    try:
        return SOURCES[name](**options)
    except TypeError as error:
        raise ValueError(f"Source '{name}' does not take these options: {error}.") from error
