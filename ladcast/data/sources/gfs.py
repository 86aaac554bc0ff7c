"""NOAA's Global Forecast System: analyses at 0.25 degrees, GRIB2 in a public bucket (public domain).

An index file beside each GRIB file says where each field begins, so that only the wanted fields are downloaded.
Precipitation comes from the first six hours of the cycle before; the analysis has none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import xarray as xr

from ladcast.data.lexicon import ECCODES_NAMES
from ladcast.data.sources.base import (
    ALL_LEVELS,
    CYCLE,
    RAIN_FROM,
    SURFACE,
    Coverage,
    DeliveringSource,
    Delivery,
    Download,
    Offer,
    Rule,
    at_times,
    date_and_hour,
    from_geometric_wind,
    from_height,
    from_relative_humidity,
    from_skin,
    need,
    same,
    translate,
    variables_of,
    with_how,
)
from ladcast.data.sources.cloud import object_store
from ladcast.data.sources.grib import open_grib
from ladcast.fields import PRECIPITATION, SURFACE_GEOPOTENTIAL, ChannelSet
from ladcast.times import Times

ROOT = "https://noaa-gfs-bdp-pds.s3.amazonaws.com"
ON_LEVELS = {"gh": "HGT", "q": "SPFH", "t": "TMP", "u": "UGRD", "v": "VGRD", "w": "VVEL"}
AT_SURFACE = {
    "10u": "UGRD:10 m above ground",
    "10v": "VGRD:10 m above ground",
    "2t": "TMP:2 m above ground",
    "prmsl": "PRMSL:mean sea level",
    "skt": "TMP:surface",
    "lsm": "LAND:surface",
    "ci": "ICEC:surface",
    "orog": "HGT:surface",
}
"""How index files name the fields that ecCodes reads."""
RULES: tuple[Rule, ...] = (
    *same(**{ours: theirs for ours, theirs in ECCODES_NAMES.items() if theirs in ON_LEVELS | AT_SURFACE}),
    *same(mean_sea_level_pressure="prmsl"),
    from_height("geopotential", "gh"),
    from_relative_humidity("ncep"),
    from_geometric_wind,
    from_skin("skt", "lsm", "ci"),
    from_skin("skt", "lsm"),
    Rule(PRECIPITATION, ("tp6h",), how="tp over six hours"),
    from_height(SURFACE_GEOPOTENTIAL, "orog"),
)
RAIN = "APCP:surface"
_COVERAGE = Coverage("2021-03-23", delay=np.timedelta64(5, "h"))
_PUBLISHED = Offer(
    "gfs",
    dict.fromkeys(ON_LEVELS, ALL_LEVELS) | dict.fromkeys((*AT_SURFACE, "tp6h"), SURFACE),
    with_how(RULES, PRECIPITATION, RAIN_FROM),
)


@dataclass(frozen=True)
class Gfs(DeliveringSource):
    """Downloads and opens GFS analyses.

    Attributes:
        folder: where delivered GRIB files lie, named as `deliveries` says.
        root: the bucket, or a folder that holds a copy of it.
    """

    folder: Path = Path("gfs")
    root: str = ROOT
    name: str = "gfs"

    @property
    def origin(self) -> str:
        """Returns the archive as messages name it."""
        return f"{self.name} at {self.root}"

    def offer(self, time: np.datetime64) -> Offer:
        """Says what is published for one time, as index files of 2023 list it; files of 2011 lack w at 50 hPa."""
        return replace(_PUBLISHED, source=self.name, refusal=_COVERAGE.refusal(time))

    def deliveries(self, times: Times, channels: ChannelSet) -> Iterator[Delivery]:
        """Yields the pieces of remote files, each with the file that holds it here."""
        states = [channel for channel in channels if channel.variable != PRECIPITATION]
        upper = _PUBLISHED.needs(channel for channel in states if channel.level is not None)
        surface = _PUBLISHED.needs(channel for channel in states if channel.level is None)
        fields = [f"{ON_LEVELS[name]}:{level} mb" for name in upper for level in channels.levels]
        fields += [AT_SURFACE[name] for name in surface]
        for time in times:
            if fields:
                yield self._delivery(time, 0, tuple(fields))
            if PRECIPITATION in channels.surface:
                yield self._delivery(time - CYCLE, 6, (RAIN,))

    def open(self, times: Times, channels: ChannelSet) -> xr.Dataset:
        """Opens delivered files; raises FileNotFoundError that lists those that are not there."""
        files = self.delivered(times, channels)
        ds = translate(open_grib(files, str(self.folder)), RULES, variables_of(channels))
        return at_times(ds, times, str(self.folder))

    def _delivery(self, cycle: np.datetime64, step: int, fields: tuple[str, ...]) -> Delivery:
        date, hour = date_and_hour(cycle)
        path = f"gfs.{date}/{hour}/atmos/gfs.t{hour}z.pgrb2.0p25.f{step:03d}"
        return Delivery(f"gfs_{date}T{hour}_f{step:03d}.grib2", {"path": path, "fields": fields})

    def connect(self) -> Download:
        """Returns what downloads the wanted fields of a file."""
        obstore, store = need("obstore", "Downloading GFS", "ladcast[data]"), object_store(self.root)

        def download(delivery: Delivery, target: Path) -> None:
            path = delivery.request["path"]
            index = bytes(obstore.get(store, f"{path}.idx").bytes()).decode()
            size = int(obstore.head(store, path)["size"])
            starts, ends = byte_ranges(index, delivery.request["fields"], size)
            parts = obstore.get_ranges(store, path, starts=starts, ends=ends)
            target.write_bytes(b"".join(bytes(part) for part in parts))

        return download


def byte_ranges(index: str, fields: tuple[str, ...], size: int) -> tuple[list[int], list[int]]:
    """Returns where the `fields` (`NAME:LEVEL`) begin and end in a GRIB file of `size` bytes with this index.

    A field that is there twice is taken once. Fields of one message (`12.1`, `12.2`) share its range.

    Raises:
        ValueError: fields are not in the index; the message lists them.
    """
    rows = [line.split(":") for line in index.splitlines() if line]
    # A field ends where the next begins; the index says nothing of the last one's end.
    offsets = sorted({int(row[1]) for row in rows} | {size})
    end = dict(pairwise(offsets))
    start: dict[str, int] = {}
    for row in rows:
        start.setdefault(f"{row[3]}:{row[4]}", int(row[1]))
    missing = [field for field in fields if field not in start]
    if missing:
        shown = ", ".join(missing[:6]) + (f" and {len(missing) - 6} more" if len(missing) > 6 else "")
        raise ValueError(f"Expected {len(fields)} fields in the index, it lacks {shown}. Choose fewer channels.")
    # In the order of the file, each range once: two fields of one message are downloaded together.
    chosen = sorted({start[field] for field in fields})
    return chosen, [end[offset] for offset in chosen]
