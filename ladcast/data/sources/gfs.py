"""NOAA's Global Forecast System: analyses at 0.25 degrees, GRIB2 in a public bucket (public domain).

An index file beside each GRIB file says where each field begins, so that only the wanted fields are downloaded.
Precipitation comes from the first six hours of the cycle before; the analysis has none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import xarray as xr

from ladcast.data.sources.base import (
    ALL_LEVELS,
    RAIN_FROM,
    SURFACE,
    Offer,
    Period,
    at_times,
    date_and_hour,
    variables_of,
    with_how,
)
from ladcast.data.sources.cloud import object_store
from ladcast.data.sources.delivered import Delivery, Download, check_delivered, fetch_missing
from ladcast.data.sources.extras import need
from ladcast.data.sources.grib import open_grib
from ladcast.data.sources.rules import (
    Rule,
    from_geometric_wind,
    from_height,
    from_relative_humidity,
    from_skin,
    same,
    translate,
)
from ladcast.fields import LAND_SEA_MASK, PRECIPITATION, SST, SURFACE_GEOPOTENTIAL, ChannelSet
from ladcast.times import STEP, Times

ROOT = "https://noaa-gfs-bdp-pds.s3.amazonaws.com"
RULES: tuple[Rule, ...] = (
    *same(temperature="t", u_component_of_wind="u", v_component_of_wind="v", vertical_velocity="w"),
    *same(specific_humidity="q", mean_sea_level_pressure="prmsl", **{"2m_temperature": "2t"}),
    *same(**{"10m_u_component_of_wind": "10u", "10m_v_component_of_wind": "10v", LAND_SEA_MASK: "lsm"}),
    from_height("geopotential", "gh"),
    from_relative_humidity("ncep"),
    from_geometric_wind,
    from_skin("skt", "lsm", "ci"),
    from_skin("skt", "lsm"),
    Rule(PRECIPITATION, ("tp6h",), how="tp over six hours"),
    from_height(SURFACE_GEOPOTENTIAL, "orog"),
)
ON_LEVELS = {
    "geopotential": "HGT",
    "specific_humidity": "SPFH",
    "temperature": "TMP",
    "u_component_of_wind": "UGRD",
    "v_component_of_wind": "VGRD",
    "vertical_velocity": "VVEL",
}
AT_SURFACE = {
    "10m_u_component_of_wind": ("UGRD:10 m above ground",),
    "10m_v_component_of_wind": ("VGRD:10 m above ground",),
    "2m_temperature": ("TMP:2 m above ground",),
    "mean_sea_level_pressure": ("PRMSL:mean sea level",),
    SST: ("TMP:surface", "LAND:surface", "ICEC:surface"),
}
RAIN = "APCP:surface"
_PERIOD = Period("2021-03-23", delay=np.timedelta64(5, "h"))


@dataclass(frozen=True)
class Gfs:
    """Downloads and opens GFS analyses.

    Attributes:
        folder: where delivered GRIB files lie, named as `deliveries` says.
        root: the bucket, or a folder that holds a copy of it.
    """

    folder: Path = Path("gfs")
    root: str = ROOT
    name: str = "gfs"

    def offer(self, time: np.datetime64) -> Offer:
        """Says what is published for one time, as index files of 2023 list it; files of 2011 lack w at 50 hPa."""
        fields = dict.fromkeys(("gh", "t", "u", "v", "w", "q"), ALL_LEVELS)
        fields |= dict.fromkeys(("10u", "10v", "2t", "prmsl", "skt", "lsm", "ci", "orog", "tp6h"), SURFACE)
        return Offer(self.name, fields, with_how(RULES, PRECIPITATION, RAIN_FROM), refusal=_PERIOD.refusal(time))

    def deliveries(self, times: Times, channels: ChannelSet) -> tuple[Delivery, ...]:
        """Returns the pieces of remote files, each with the file that holds it here."""
        return tuple(delivery for time in times for delivery in self._at(time, channels))

    def fetch(self, times: Times, channels: ChannelSet) -> list[Path]:
        """Downloads the wanted fields that are not in `folder` yet, each file under its name only when it is whole.

        Raises:
            ConnectionError: the bucket cannot be reached, or lacks the cycle.
        """
        return fetch_missing(
            self.folder, self.deliveries(times, channels), f"{self.name} at {self.root}", self._connect
        )

    def open(self, times: Times, channels: ChannelSet) -> xr.Dataset:
        """Opens delivered files; raises FileNotFoundError that lists those that are not there."""
        files = check_delivered(self.folder, self.deliveries(times, channels), self.name)
        ds = translate(open_grib(files, str(self.folder)), RULES, variables_of(channels))
        return at_times(ds, times, str(self.folder))

    def _at(self, time: np.datetime64, channels: ChannelSet) -> Iterator[Delivery]:
        upper = [f"{ON_LEVELS[name]}:{level} mb" for name in channels.upper_air for level in channels.levels]
        surface = [field for name in channels.surface for field in AT_SURFACE.get(name, ())]
        if upper or surface:
            yield self._delivery(time, 0, (*upper, *surface))
        if PRECIPITATION in channels.surface:
            yield self._delivery(time - STEP, 6, (RAIN,))

    def _delivery(self, cycle: np.datetime64, step: int, fields: tuple[str, ...]) -> Delivery:
        date, hour = date_and_hour(cycle)
        path = f"gfs.{date}/{hour}/atmos/gfs.t{hour}z.pgrb2.0p25.f{step:03d}"
        return Delivery(f"gfs_{date}T{hour}_f{step:03d}.grib2", {"path": path, "fields": fields})

    def _connect(self) -> Download:
        obstore, store = need("obstore", "Downloading GFS"), object_store(self.root)

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
    offsets = sorted({int(row[1]) for row in rows} | {size})
    end = dict(pairwise(offsets))
    start: dict[str, int] = {}
    for row in rows:
        start.setdefault(f"{row[3]}:{row[4]}", int(row[1]))
    missing = [field for field in fields if field not in start]
    if missing:
        shown = ", ".join(missing[:6]) + (f" and {len(missing) - 6} more" if len(missing) > 6 else "")
        raise ValueError(f"Expected {len(fields)} fields in the index, it lacks {shown}. Choose fewer channels.")
    chosen = sorted({start[field] for field in fields})
    return chosen, [end[offset] for offset in chosen]
