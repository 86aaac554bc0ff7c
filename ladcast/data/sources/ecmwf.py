"""ECMWF open data: today's IFS and AIFS at 0.25 degrees, as GRIB2 (CC BY 4.0).

Fields as the client `ecmwf-opendata` 0.3.35 lists them: no sea surface temperature and no sea-ice share, so that the
SST comes from the skin temperature; precipitation from the first six hours of the cycle before.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

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
from ladcast.data.sources.delivered import Delivery, Download, check_delivered, fetch_missing
from ladcast.data.sources.extras import need
from ladcast.data.sources.grib import open_grib
from ladcast.data.sources.rules import Rule, from_height, from_relative_humidity, from_skin, same, translate
from ladcast.fields import LAND_SEA_MASK, PRECIPITATION, SST, SURFACE_GEOPOTENTIAL, ChannelSet
from ladcast.times import STEP, Times

RULES: tuple[Rule, ...] = (
    *same(geopotential="z", temperature="t", u_component_of_wind="u", v_component_of_wind="v", vertical_velocity="w"),
    *same(specific_humidity="q", mean_sea_level_pressure="msl", **{"2m_temperature": "2t"}),
    *same(**{"10m_u_component_of_wind": "10u", "10m_v_component_of_wind": "10v", SST: "sst"}),
    *same(**{LAND_SEA_MASK: "lsm", SURFACE_GEOPOTENTIAL: "zs"}),
    from_height("geopotential", "gh"),
    from_relative_humidity("ecmwf"),
    from_skin("skt", "lsm", "ci"),
    from_skin("skt", "lsm"),
    Rule(PRECIPITATION, ("tp6h",), how="tp over six hours"),
    from_height(SURFACE_GEOPOTENTIAL, "orog"),
)
"""ecCodes names to ours; also what ERA5 in GRIB needs, which comes from the same centre."""
ATTEMPTS, PAUSE_S = 4, 10
_PERIOD = Period("2024-02-01", delay=np.timedelta64(9, "h"))


@dataclass(frozen=True)
class EcmwfOpenData:
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
        height = "gh" if self.model == "ifs" else "z"
        fields = dict.fromkeys((height, "t", "u", "v", "w", "q"), ALL_LEVELS)
        fields |= dict.fromkeys(("10u", "10v", "2t", "msl", "skt", "lsm", "tp6h"), SURFACE)
        return Offer(
            f"{self.name} ({self.model})",
            fields,
            with_how(RULES, PRECIPITATION, RAIN_FROM),
            refusal=_PERIOD.refusal(time),
        )

    def deliveries(self, times: Times, channels: ChannelSet) -> tuple[Delivery, ...]:
        """Returns the requests, each with the file that answers it: levels, surface, precipitation."""
        return tuple(delivery for time in times for delivery in self._at(time, channels))

    def fetch(self, times: Times, channels: ChannelSet) -> list[Path]:
        """Downloads what is not in `folder` yet, each file under its name only when it is whole.

        Raises:
            ConnectionError: a request failed `ATTEMPTS` times.
        """
        return fetch_missing(self.folder, self.deliveries(times, channels), self.name, self._connect)

    def open(self, times: Times, channels: ChannelSet) -> xr.Dataset:
        """Opens delivered files; raises FileNotFoundError that lists those that are not there."""
        files = check_delivered(self.folder, self.deliveries(times, channels), self.name)
        ds = translate(open_grib(files, str(self.folder)), RULES, variables_of(channels))
        return at_times(ds, times, str(self.folder))

    def _connect(self) -> Download:
        opendata = need("ecmwf.opendata", "ECMWF open data")
        # Its own bounds, 500 attempts two minutes apart, are no bounds.
        client = opendata.Client(source=self.server, model=self.model, maximum_retries=ATTEMPTS, retry_after=PAUSE_S)
        return lambda delivery, path: client.retrieve(dict(delivery.request), str(path))

    def _at(self, time: np.datetime64, channels: ChannelSet) -> list[Delivery]:
        height = "gh" if self.model == "ifs" else "z"
        upper = {"geopotential": height, "temperature": "t", "specific_humidity": "q", "vertical_velocity": "w"}
        upper |= {"u_component_of_wind": "u", "v_component_of_wind": "v"}
        single = {"10m_u_component_of_wind": "10u", "10m_v_component_of_wind": "10v", "2m_temperature": "2t"}
        single |= {"mean_sea_level_pressure": "msl", SST: "skt"}
        levels = [upper[name] for name in channels.upper_air]
        surface = [single[name] for name in channels.surface if name in single]
        requests = []
        if levels:
            on_levels = {"levtype": "pl", "param": levels, "levelist": list(channels.levels)}
            requests.append(("pl", time, 0, on_levels))
        if surface:
            requests.append(("sfc", time, 0, {"levtype": "sfc", "param": [*surface, "lsm"]}))
        if PRECIPITATION in channels.surface:
            requests.append(("tp", time - STEP, 6, {"levtype": "sfc", "param": ["tp"]}))
        return [self._delivery(*request) for request in requests]

    def _delivery(self, kind: str, cycle: np.datetime64, step: int, fields: dict[str, Any]) -> Delivery:
        date, hour = date_and_hour(cycle)
        request = {"date": date, "time": int(hour), "step": step, "type": "fc", "stream": "oper"} | fields
        return Delivery(f"{self.model}_{kind}_{date}T{hour}_{step}h.grib2", request)
