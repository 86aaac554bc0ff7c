"""ECMWF open data: today's IFS and AIFS at 0.25 degrees, as GRIB2 (CC BY 4.0).

Fields as the client `ecmwf-opendata` 0.3.35 lists them: no sea surface temperature and no sea-ice share, so that the
SST comes from the skin temperature; precipitation from the first six hours of the cycle before.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

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
    from_height,
    from_relative_humidity,
    from_skin,
    need,
    same,
    translate,
    variables_of,
    with_how,
)
from ladcast.data.sources.grib import open_grib
from ladcast.fields import PRECIPITATION, SURFACE_GEOPOTENTIAL, ChannelSet
from ladcast.times import Times

RULES: tuple[Rule, ...] = (
    *same(**{ours: theirs for ours, theirs in ECCODES_NAMES.items() if ours != PRECIPITATION}),
    *same(**{SURFACE_GEOPOTENTIAL: "zs"}),
    from_height("geopotential", "gh"),
    from_relative_humidity("ecmwf"),
    from_skin("skt", "lsm", "ci"),
    from_skin("skt", "lsm"),
    Rule(PRECIPITATION, ("tp6h",), how="tp over six hours"),
    from_height(SURFACE_GEOPOTENTIAL, "orog"),
)
"""ecCodes names to ours; also what ERA5 in GRIB needs, which comes from the same centre."""
ATTEMPTS, PAUSE_S = 4, 10
_COVERAGE = Coverage("2024-02-01", delay=np.timedelta64(9, "h"))


@dataclass(frozen=True)
class EcmwfOpenData(DeliveringSource):
    """Downloads and opens states of the IFS or the AIFS.

    Attributes:
        folder: where delivered GRIB files lie, named as `deliveries` says.
        model: `ifs`, or `aifs-single`, which has the geopotential itself.
        server: `ecmwf` keeps a few days; the mirrors `aws`, `google` and `azure` keep years.
    """

    folder: Path = Path("ecmwf-open-data")
    model: Literal["ifs", "aifs-single"] = "ifs"
    server: str = "ecmwf"
    name: str = "ecmwf-open-data"

    def offer(self, time: np.datetime64) -> Offer:
        """Says what is published for one time."""
        return replace(self._published(), refusal=_COVERAGE.refusal(time))

    def deliveries(self, times: Times, channels: ChannelSet) -> Iterator[Delivery]:
        """Yields the requests, each with the file that answers it: levels, surface, precipitation."""
        published, states = self._published(), [channel for channel in channels if channel.variable != PRECIPITATION]
        upper = published.needs(channel for channel in states if channel.level is not None)
        surface = published.needs(channel for channel in states if channel.level is None)
        on_levels = {"levtype": "pl", "param": upper, "levelist": list(channels.levels)}
        for time in times:
            if upper:
                yield self._delivery("pl", time, 0, on_levels)
            if surface:
                params = list(dict.fromkeys((*surface, "lsm")))
                yield self._delivery("sfc", time, 0, {"levtype": "sfc", "param": params})
            if PRECIPITATION in channels.surface:
                yield self._delivery("tp", time - CYCLE, 6, {"levtype": "sfc", "param": ["tp"]})

    def open(self, times: Times, channels: ChannelSet) -> xr.Dataset:
        """Opens delivered files; raises FileNotFoundError that lists those that are not there."""
        files = self.delivered(times, channels)
        ds = translate(open_grib(files, str(self.folder)), RULES, variables_of(channels))
        return at_times(ds, times, str(self.folder))

    def connect(self) -> Download:
        """Returns what downloads the file of a request, in at most `ATTEMPTS` attempts."""
        opendata = need("ecmwf.opendata", "ECMWF open data", "ladcast[grib]")
        # Its own bounds, 500 attempts two minutes apart, are no bounds.
        client = opendata.Client(source=self.server, model=self.model, maximum_retries=ATTEMPTS, retry_after=PAUSE_S)
        return lambda delivery, path: client.retrieve(dict(delivery.request), str(path))

    def _published(self) -> Offer:
        height = "gh" if self.model == "ifs" else "z"
        fields = dict.fromkeys((height, "t", "u", "v", "w", "q"), ALL_LEVELS)
        fields |= dict.fromkeys(("10u", "10v", "2t", "msl", "skt", "lsm", "tp6h"), SURFACE)
        return Offer(f"{self.name} ({self.model})", fields, with_how(RULES, PRECIPITATION, RAIN_FROM))

    def _delivery(self, kind: str, cycle: np.datetime64, step: int, fields: dict[str, Any]) -> Delivery:
        date, hour = date_and_hour(cycle)
        request = {"date": date, "time": int(hour), "step": step, "type": "fc", "stream": "oper"} | fields
        return Delivery(f"{self.model}_{kind}_{date}T{hour}_{step}h.grib2", request)
