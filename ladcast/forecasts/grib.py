"""Writes a forecast as one GRIB2 file with ensemble keys (WMO templates 4.1 and 4.11), and reads such files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import numpy.typing as npt
import xarray as xr

from ladcast.data.derive import accumulate, six_hour_parts
from ladcast.data.lazy import HORIZONTAL, lazy_maps
from ladcast.data.lexicon import ECCODES_NAMES
from ladcast.data.sources.base import translate
from ladcast.data.sources.ecmwf import RULES
from ladcast.data.sources.grib import PRECIPITATION as PRECIPITATION_NAME
from ladcast.data.sources.grib import (
    STATIC,
    UPPER,
    Message,
    common_grid,
    in_metres,
    is_known,
    read_headers,
    stacked,
)
from ladcast.fields import VARIABLES, find_variable
from ladcast.forecasts.formats import FrameWriter
from ladcast.grid import TOLERANCE_DEG
from ladcast.times import HOUR, describe

Packing = Literal["ccsds", "simple"]
KILOGRAMS_PER_METRE = 1000.0
"""A layer of liquid water of 1 m weighs 1000 kg m-2: GRIB knows precipitation as a mass per area."""
MISSING = 9999.0
LARGEST_NUMBER = 254
"""Of a member, and of the members of an ensemble: 255 is the code for a value that is missing."""
WHOLE_ENSEMBLE = {
    "centre": 255,  # the code table's "missing": no weather centre stands behind the file
    "tablesVersion": 32,
    "significanceOfReferenceTime": 1,  # start of the forecast
    "productionStatusOfProcessedData": 2,  # research products
    "typeOfProcessedData": 4,  # perturbed forecast
    "typeOfGeneratingProcess": 4,  # ensemble forecast
    "generatingProcessIdentifier": 255,
}


class GribWriter(FrameWriter):
    """Appends the messages of one frame after another: by variable, level and member.

    Rows run from north to south. Each field is packed with `bits` bits between its own extremes, so a value is off by
    at most its field's range / (2^bits - 1). The missing values of the sea surface temperature are a bitmap.

    Args:
        bits: bits for each value.
        packing: `ccsds` packs losslessly what `simple` would write as it is, which a few old readers need.
        ensemble_size: members of the ensemble that the forecast was selected from; by default those it has.

    Raises:
        ImportError: the extra `grib` is not installed.
        ValueError: latitudes or longitudes are not evenly spaced, or there is nothing that GRIB can hold.
    """

    def __init__(
        self,
        forecast: xr.Dataset,
        path: Path,
        *,
        bits: int = 16,
        packing: Packing = "ccsds",
        ensemble_size: int | None = None,
        overwrite: bool = False,
    ) -> None:
        self.codes = _import_eccodes()
        super().__init__(forecast, path, overwrite=overwrite, format="grib2", bits=bits, packing=packing)
        self.bits, self.packing = bits, packing
        self.ensemble_size = ensemble_size or forecast.sizes["number"]
        if (largest := int(forecast["number"].max())) > LARGEST_NUMBER:
            raise ValueError(
                f"GRIB2 numbers members from 0 to {LARGEST_NUMBER}, in 8 bits; the forecast has the member {largest}. "
                "Choose some with --members, or write netCDF or Zarr."
            )
        if all(begins_before_start(str(name), forecast).all() for name in forecast.data_vars):
            raise ValueError(
                f"GRIB2 has no sums from before the start, and the forecast has no more than those of "
                f"{', '.join(map(str, forecast.data_vars))}. Choose later lead times, or write netCDF or Zarr."
            )
        self.grid = grid_keys(forecast)

    def _create(self) -> None:
        self.content.touch()

    def _open(self, state: Mapping[str, Any]) -> None:
        self.file: IO[bytes] = self.content.open("r+b")
        self.file.truncate(state.get("bytes", 0))  # a kill may have left part of a message
        self.file.seek(0, os.SEEK_END)

    def _state(self) -> dict[str, Any]:
        self.file.flush()
        return {"bytes": self.file.tell()}

    def _close(self) -> None:
        self.file.close()

    def _write(self, init: int, lead: int, fields: Iterator[xr.DataArray]) -> None:
        for field in fields:
            if begins_before_start(str(field.name), field).all():
                continue
            template = self._template(str(field.name), field)
            for keys, values in _messages(field):
                self.file.write(self._encode(template, keys, values))
            self.codes.codes_release(template)

    def _template(self, name: str, field: xr.DataArray) -> Any:
        """Returns the handle of a message that lacks only level, member and values."""
        handle = self.codes.codes_grib_new_from_samples("GRIB2")
        packing = {"packingType": f"grid_{self.packing}", "bitsPerValue": self.bits}
        for key, value in {**WHOLE_ENSEMBLE, **self.grid, **packing, **_time_keys(name, field)}.items():
            self.codes.codes_set(handle, key, value)
        if VARIABLES[name].on_levels:
            self.codes.codes_set(handle, "typeOfLevel", "isobaricInhPa")
        self.codes.codes_set(handle, "shortName", ECCODES_NAMES[name])
        self.codes.codes_set(handle, "numberOfForecastsInEnsemble", min(self.ensemble_size, LARGEST_NUMBER + 1))
        return handle

    def _encode(self, template: Any, keys: Mapping[str, int], values: npt.NDArray[np.float64]) -> bytes:
        handle = self.codes.codes_clone(template)
        try:
            for key, value in keys.items():
                self.codes.codes_set(handle, key, value)
            missing = np.isnan(values)
            if missing.any():
                self.codes.codes_set(handle, "bitmapPresent", 1)
                self.codes.codes_set(handle, "missingValue", MISSING)
                values = np.where(missing, MISSING, values)
            self.codes.codes_set_values(handle, values)
            message: bytes = self.codes.codes_get_message(handle)
            return message
        finally:
            self.codes.codes_release(handle)


def open_grib_forecast(paths: Sequence[Path]) -> xr.Dataset:
    """Opens the forecasts of GRIB files lazily, by initial time, lead time and member; what they lack is NaN.

    A control, which has no number, is member 0. Precipitation is that of six hours, also of sums since the start, and
    the geopotential also that of heights; nothing else is derived.

    Raises:
        ValueError: there is no field of ours, all are analyses, a field is there twice, or a file cannot be read.
    """
    where = str(paths[0] if len(paths) == 1 else paths[0].parent)
    found = [m for path in paths for m in read_headers(path) if is_known(m) and m.name not in STATIC]
    if not found:
        raise ValueError(f"{where}: expected GRIB fields such as {', '.join(UPPER)}, got none of them.")
    if not any(message.lead for message in found):
        raise ValueError(f"{where}: expected a forecast, got analyses alone: all lead times are 0.")
    horizontal, found = common_grid(found, where)
    found = _each_once(found)
    states = [message for message in found if message.name != PRECIPITATION_NAME] or found
    axes = {axis: np.unique([key(message) for message in states]) for axis, key in MESSAGE_KEYS.items()}
    axes["level"] = np.unique([m.header["level:float"] for m in found if m.name in UPPER])
    by_name: dict[str, list[Message]] = {}
    for message in found:
        by_name.setdefault(message.name, []).append(message)
    rain = by_name.pop(PRECIPITATION_NAME, [])
    fields = {name: _arranged(messages, axes | horizontal) for name, messages in by_name.items()}
    fields |= {"tp6h": _six_hourly(rain, axes | horizontal)} if rain else {}
    dims = {dim for field in fields.values() for dim in field.dims}
    raw = xr.Dataset(fields, {dim: values for dim, values in (axes | horizontal).items() if dim in dims})
    return translate(raw, [rule for rule in RULES if rule.make is None or rule.needs == ("gh",)])


MESSAGE_KEYS: dict[str, Callable[[Message], Any]] = {
    "time": lambda message: message.initial,
    "prediction_timedelta": lambda message: message.lead.astype("timedelta64[ns]"),
    "number": lambda message: 0 if message.header["number"] == "undef" else int(message.header["number"]),
    "level": lambda message: message.header["level:float"],
}


def _each_once(messages: Sequence[Message]) -> list[Message]:
    """Drops a field that its file holds again with the same values, as GFS writes some.

    Raises:
        ValueError: two files hold the same field of a forecast, or one file with other values.
    """
    kept: dict[tuple[Any, ...], Message] = {}
    for message in messages:
        initial, lead, member, level = (key(message) for key in MESSAGE_KEYS.values())
        level = level if message.name in UPPER else None
        summed = message.window if message.name == PRECIPITATION_NAME else None
        first = kept.setdefault((message.name, initial, lead, member, level, summed), message)
        if first is message:
            continue
        if first.path != message.path or not np.array_equal(first.values(), message.values(), equal_nan=True):
            at = f"{message.lead / HOUR:g} h from {describe(initial)}, member {member}"
            raise ValueError(
                f"{first.path}: '{message.name}' of {at}{f', {level:g} hPa' if level else ''}, is there twice, also in "
                f"{message.path}. Give each field of a forecast once."
            )
    return list(kept.values())


def _arranged(messages: Sequence[Message], axes: Mapping[str, npt.NDArray[Any]]) -> xr.Variable:
    """Arranges the messages of one name by initial time, lead time, member and level."""
    keys = {dim: key for dim, key in MESSAGE_KEYS.items() if dim != "level" or messages[0].name in UPPER}
    table = np.full([len(axes[dim]) for dim in keys], None, dtype=object)
    for message in messages:
        table[tuple(int(np.searchsorted(axes[dim], key(message))) for dim, key in keys.items())] = message
    shape = tuple(len(axes[dim]) for dim in HORIZONTAL)

    def read(*points: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        return stacked(table[np.ix_(*points)], shape)

    units = {"units": str(messages[0].header["units"])}
    return lazy_maps((*keys, *HORIZONTAL), (*table.shape, *shape), read, units)


def _six_hourly(messages: Sequence[Message], axes: Mapping[str, npt.NDArray[Any]]) -> xr.Variable:
    """Arranges the sums over six hours by initial time, lead time and member: as they are, or from other sums."""
    keys = ("time", "prediction_timedelta", "number")
    table = np.full([len(axes[dim]) for dim in keys], None, dtype=object)
    forecasts: dict[tuple[Any, ...], list[Message]] = {}
    for message in messages:
        forecasts.setdefault((message.initial, MESSAGE_KEYS["number"](message)), []).append(message)
    for (initial, number), sums in forecasts.items():
        for end, parts in six_hour_parts([message.window for message in sums]).items():
            wanted = (initial, (end - initial).astype("timedelta64[ns]"), number)
            if all(value in axes[dim] for dim, value in zip(keys, wanted, strict=True)):
                place = tuple(int(np.searchsorted(axes[dim], v)) for dim, v in zip(keys, wanted, strict=True))
                table[place] = [(sums[index], sign) for index, sign in parts]
    shape = tuple(len(axes[dim]) for dim in HORIZONTAL)

    def read(*points: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        chosen = table[np.ix_(*points)]
        block = np.full((*chosen.shape, *shape), np.nan, dtype=np.float32)
        for place, parts in np.ndenumerate(chosen):
            if parts is not None:
                metres = {index: in_metres(message) for index, (message, _) in enumerate(parts)}
                block[place] = accumulate(metres, tuple((index, sign) for index, (_, sign) in enumerate(parts)))
        return block

    return lazy_maps((*keys, *HORIZONTAL), (*table.shape, *shape), read, {"units": "m"})


def grid_keys(forecast: xr.Dataset) -> dict[str, Any]:
    """Describes the grid in degrees, from north to south and eastward.

    Raises:
        ValueError: latitudes or longitudes are not evenly spaced, which would need another kind of grid, or a region
            lies across the meridian of 0, where cfgrib 0.9 sorts longitudes away from their values.
    """
    latitude, longitude = forecast["latitude"].values, forecast["longitude"].values % 360
    if (np.diff(longitude) < 0).any():
        raise ValueError(
            f"Expected a region on one side of the meridian of 0 for GRIB2, got {forecast['longitude'].values[0]:g} to "
            f"{longitude[-1]:g} deg: cfgrib would label its columns wrongly. Write two regions, or netCDF or Zarr."
        )
    steps = {}
    for name, values in (("latitude", latitude), ("longitude", longitude)):
        spacing = np.diff(values)
        if not spacing.size or abs(spacing - spacing.mean()).max() > TOLERANCE_DEG or spacing.mean() <= 0:
            raise ValueError(
                f"GRIB2 needs at least two evenly spaced values of {name} that increase, got {values[:4]}... "
                "Choose another region, or write netCDF or Zarr."
            )
        steps[name] = float(spacing.mean())
    return {
        "gridType": "regular_ll",
        "Ni": longitude.size,
        "Nj": latitude.size,
        "latitudeOfFirstGridPointInDegrees": float(latitude[-1]),
        "longitudeOfFirstGridPointInDegrees": float(longitude[0]),
        "latitudeOfLastGridPointInDegrees": float(latitude[0]),
        "longitudeOfLastGridPointInDegrees": float(longitude[-1]),
        "iDirectionIncrementInDegrees": steps["longitude"],
        "jDirectionIncrementInDegrees": steps["latitude"],
        "jScansPositively": 0,
    }


def begins_before_start(name: str, forecast: xr.Dataset | xr.DataArray) -> npt.NDArray[np.bool_]:
    """Says at which lead times a variable is a sum from before the initial time on: GRIB counts steps from there."""
    return np.asarray(forecast["prediction_timedelta"].values / HOUR < VARIABLES[name].accumulated_hours)


def _time_keys(name: str, field: xr.DataArray) -> dict[str, int]:
    """Returns initial time, template and step: an accumulation covers the hours before its lead time."""
    initial = field["time"].values.astype("datetime64[s]").item()
    lead = int(field["prediction_timedelta"].values / HOUR)
    accumulated = VARIABLES[name].accumulated_hours
    keys = {
        "dataDate": int(f"{initial:%Y%m%d}"),
        "dataTime": int(f"{initial:%H%M}"),
        "productDefinitionTemplateNumber": 11 if accumulated else 1,
    }
    if accumulated:
        return {**keys, "startStep": lead - accumulated, "endStep": lead}
    return {**keys, "step": lead}


def _messages(field: xr.DataArray) -> Iterator[tuple[dict[str, int], npt.NDArray[np.float64]]]:
    """Yields level and member, and the values from north to south in the units of GRIB, of each message."""
    factor = KILOGRAMS_PER_METRE if find_variable(field.name).accumulated_hours else 1.0
    members = field["number"].values.tolist()
    levels = field["level"].values.tolist() if "level" in field.dims else [None]
    planes = field.values[:, None] if levels == [None] else field.transpose("number", "level", ...).values
    for index, level in enumerate(levels):
        for plane, member in zip(planes[:, index], members, strict=True):
            where = {} if level is None else {"level": level}
            yield {**where, "perturbationNumber": member}, plane[::-1].astype(np.float64).ravel() * factor


def _import_eccodes() -> Any:
    try:
        import eccodes
    except ImportError as error:
        raise ImportError(
            f"GRIB needs ecCodes, which is missing ({error}). Run `pip install 'ladcast[grib]'`."
        ) from error
    return eccodes
