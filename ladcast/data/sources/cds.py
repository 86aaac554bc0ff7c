"""The Copernicus Climate Data Store: ERA5 on request, as GRIB or netCDF (Hersbach et al. 2020, 10.1002/qj.3803).

One request per day and kind of field. It needs an account and its key in `~/.cdsapirc`; the licence must be accepted
once on the web page of the data set.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr

from ladcast.data.sources.base import (
    WEATHERBENCH_NAMES,
    Coverage,
    DeliveringSource,
    Delivery,
    Download,
    Offer,
    Rule,
    at_times,
    era5_fields,
    from_hourly,
    need,
    precipitation_times,
    translate,
    variables_of,
)
from ladcast.data.sources.files import merged, open_all
from ladcast.fields import PRECIPITATION, ChannelSet
from ladcast.times import Times

PRESSURE_LEVELS, SINGLE_LEVELS = "reanalysis-era5-pressure-levels", "reanalysis-era5-single-levels"
RULES: tuple[Rule, ...] = (*WEATHERBENCH_NAMES, from_hourly)
STATIC_NAMES = ("land_sea_mask", "geopotential")
"""What the store calls our static fields: among single levels, the geopotential is the surface's."""
_COVERAGE = Coverage("1940-01-01", delay=np.timedelta64(6, "D"), step=np.timedelta64(1, "h"))


@dataclass(frozen=True)
class ClimateDataStore(DeliveringSource):
    """Downloads and opens ERA5.

    Attributes:
        folder: where delivered files lie, named as `deliveries` says.
        data_format: `grib`, or `netcdf` as the store converts it.
    """

    folder: Path = Path("era5-cds")
    data_format: Literal["grib", "netcdf"] = "grib"
    name: str = "cds"

    def offer(self, time: np.datetime64) -> Offer:
        """Says what ERA5 and, for the last three months, its preliminary version have at one time."""
        return Offer(self.name, era5_fields("total_precipitation"), RULES, refusal=_COVERAGE.refusal(time))

    def deliveries(self, times: Times, channels: ChannelSet) -> Iterator[Delivery]:
        """Yields the requests, each with the file that answers it: by day, levels, surface and precipitation.

        Precipitation is asked for apart from the rest: the store answers a request for both, in netCDF, with a zip.
        """
        surface = [name for name in channels.surface if name != PRECIPITATION]
        for day, hours in _days(np.asarray(times)):
            if channels.upper_air:
                levels = {"pressure_level": [str(level) for level in channels.levels]}
                fields = {"dataset": PRESSURE_LEVELS, "variable": list(channels.upper_air)} | levels
                yield self._delivery("pl", day, hours, fields)
            if surface:
                names = [*surface, *STATIC_NAMES]
                yield self._delivery("sfc", day, hours, {"dataset": SINGLE_LEVELS, "variable": names})
        if PRECIPITATION in channels.surface:
            for day, hours in _days(precipitation_times(times)):
                yield self._delivery("tp", day, hours, {"dataset": SINGLE_LEVELS, "variable": ["total_precipitation"]})

    def open(self, times: Times, channels: ChannelSet) -> xr.Dataset:
        """Opens delivered files; raises FileNotFoundError that lists those that are not there."""
        files = self.delivered(times, channels)
        rain = [path for path in files if "_tp_" in path.name]
        states = [path for path in files if path not in rain]
        where = str(self.folder)
        parts = []
        if states:
            wanted = variables_of(channels)
            parts.append(at_times(translate(open_all(states, where), RULES, wanted), times, where))
        if rain:
            # Netcdf has hourly `tp`; GRIB, which says over which hours it is accumulated, is summed already.
            sums = open_all(rain, where)
            sums = sums.rename(tp="total_precipitation") if "tp" in sums else sums
            parts.append(at_times(translate(sums, RULES, [PRECIPITATION]), times, where))
        return merged(parts, where)

    def connect(self) -> Download:
        """Returns what sends a request and waits for its file, for hours where the queue of the store is long."""
        client = need("cdsapi", "The Climate Data Store", "ladcast[data]").Client()

        def download(delivery: Delivery, path: Path) -> None:
            request = dict(delivery.request)
            client.retrieve(request.pop("dataset"), request, str(path))

        return download

    def _delivery(self, kind: str, day: str, hours: list[str], fields: dict[str, Any]) -> Delivery:
        year, month, date = day.split("-")
        request = {"product_type": ["reanalysis"], "year": [year], "month": [month], "day": [date], "time": hours}
        request |= {"data_format": self.data_format, "download_format": "unarchived"} | fields
        # A request of other hours of the day is another file.
        which = hours[0][:2] if len(hours) == 1 else f"{hours[0][:2]}-{hours[-1][:2]}x{len(hours)}"
        suffix = "grib" if self.data_format == "grib" else "nc"
        return Delivery(f"era5_{kind}_{day}_{which}.{suffix}", request)


def _days(times: Times) -> Iterator[tuple[str, list[str]]]:
    hours = np.unique(times.astype("datetime64[h]"))
    for day in np.unique(hours.astype("datetime64[D]")):
        yield str(day), [f"{str(hour)[-2:]}:00" for hour in hours[hours.astype("datetime64[D]") == day]]
