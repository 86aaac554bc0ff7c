"""Frames of an archive that `ladcast.data.sources` knows: which of its states a stage reads."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import xarray as xr

from data_pipelines.options import Origin, Selection
from ladcast.data.sources.registry import make_source
from ladcast.data.store import open_store
from ladcast.fields import ChannelSet, read_channels
from ladcast.grid import Grid
from ladcast.times import Times, parse_time


@dataclass(frozen=True)
class Archive:
    """Selects a period of a source, every `step_hours`, but for the times `omit`, which become declared gaps.

    `settings` are attributes of the source, such as the root of a local copy. An archive has no checksum: the manifest
    names it and its settings, and a change of what it holds goes unseen.
    """

    source: str
    settings: tuple[tuple[str, str], ...]
    channels: ChannelSet
    start: str
    end: str
    step_hours: int = 6
    omit: tuple[str, ...] = ()
    grid: Grid | None = None

    @classmethod
    def of(cls, source: str, selection: Selection, origin: Origin) -> Archive:
        """Selects from a source; raises ValueError without a period."""
        if selection.start is None or selection.end is None:
            raise ValueError(f"An archive such as '{source}' needs a period: give --start and --end.")
        return cls(
            source,
            settings=origin.settings,
            channels=read_channels(selection.channels),
            start=selection.start,
            end=selection.end,
            step_hours=origin.step_hours,
            omit=origin.omit,
            grid=Grid.parse(selection.grid) if selection.grid else None,
        )

    def open(self) -> xr.Dataset:
        """Returns the frames, lazily, in canonical layout, through the gate."""
        return _open(self)

    @property
    def times(self) -> Times:
        """Returns the wanted times."""
        step = np.timedelta64(self.step_hours, "h")
        wanted = np.arange(parse_time(self.start), parse_time(self.end) + np.timedelta64(1, "ns"), step)
        return np.setdiff1d(wanted, np.array([parse_time(text) for text in self.omit], "datetime64[ns]"))

    @property
    def about(self) -> dict[str, Any]:
        """Returns the entry of a manifest's `inputs`."""
        return {"name": self.source, "settings": dict(self.settings)}

    @property
    def arguments(self) -> dict[str, Any]:
        """Returns the entry of a manifest's `arguments`."""
        period = {"start": self.start, "end": self.end, "step_hours": self.step_hours, "omit": list(self.omit)}
        return {"channels": self.channels.to_dict(), "grid": str(self.grid) if self.grid else None, **period}


@lru_cache(maxsize=4)
def _open(archive: Archive) -> xr.Dataset:
    settings: dict[str, Any] = dict(archive.settings)
    source = make_source(archive.source, **settings)
    source.fetch(archive.times, archive.channels)  # of archives that deliver files: only those that are missing
    return open_store(source.open(archive.times, archive.channels), archive.channels, archive.grid, regular=False)
