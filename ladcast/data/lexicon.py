"""Names and units as other producers write them, and what they are called here.

Units are recognised, never converted: a conversion that nobody asked for hides a mistake in the source.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from ladcast.fields import LAND_SEA_MASK, PRECIPITATION, STATIC_VARIABLES, SURFACE_GEOPOTENTIAL, VARIABLES
from ladcast.times import whole_seconds
from ladcast.units import GRAVITY, KNOT, ZERO_CELSIUS_K, same_units, spell_units

_COORDINATES = {
    "lat": "latitude",
    "lon": "longitude",
    "isobaricInhPa": "level",
    "pressure_level": "level",
    "plev": "level",
    "pressure": "level",
}

ECCODES_NAMES = {name: about.short for name, about in VARIABLES.items()} | {
    "10m_u_component_of_wind": "10u",
    "10m_v_component_of_wind": "10v",
    "2m_temperature": "2t",
    PRECIPITATION: "tp",
    LAND_SEA_MASK: "lsm",
}
"""How ecCodes calls our variables in GRIB, where it differs from the short names of netCDF files."""

EARTH2STUDIO_NAMES = {"u10": "u10m", "v10": "v10m", "tp6h": "tp06"}
"""Where the lexicon of earth2studio has another name than our short one; all units are the same."""

_VARIABLES = {
    **{about.short: name for name, about in (VARIABLES | STATIC_VARIABLES).items()},
    **{short: name for name, short in ECCODES_NAMES.items()},
    "prmsl": "mean_sea_level_pressure",
    # ERA-40 as `mars2netcdf` wrote it: a name may not begin with a digit there.
    "p10u": "10m_u_component_of_wind",
    "p10v": "10m_v_component_of_wind",
    "p2t": "2m_temperature",
    "tp06": PRECIPITATION,
    "gh": "geopotential",
    "orog": SURFACE_GEOPOTENTIAL,
    # NCEP's names of the ground.
    "orostd": "standard_deviation_of_orography",
    "orothe": "angle_of_sub_gridscale_orography",
    "orogam": "anisotropy_of_sub_gridscale_orography",
    "orosig": "slope_of_sub_gridscale_orography",
}
"""Names in netCDF and Zarr. Two of them say too little: `tp` not over which time, `z` not where without levels."""
del _VARIABLES["tp"], _VARIABLES["z"]
SPOKEN = _VARIABLES | {"tp": PRECIPITATION, "z": "geopotential", "mslp": "mean_sea_level_pressure"}
"""Names of variables as people type them, where the values are known to be ours."""

NEAR_MISSES = {
    "tp": "an accumulation over an unstated time; sum it to 6 hours and name it total_precipitation_6hr",
    "total_precipitation": "usually hourly in ERA5; sum it to 6 hours and name it total_precipitation_6hr",
    "r": "relative humidity; derive specific_humidity from it and the temperature",
    "relative_humidity": "derive specific_humidity from it and the temperature",
}
"""Names that look like a field of ours and are not the same quantity, with what to do about them."""


@dataclass(frozen=True)
class Conversion:
    """What turns values in `units` into ours: ours = value * factor + offset."""

    units: str
    factor: float = 1.0
    offset: float = 0.0

    def __call__(self, value: float) -> float:
        """Converts one value to our units."""
        return value * self.factor + self.offset

    def __str__(self) -> str:
        return f"add {self.offset:g}" if self.offset else f"multiply by {self.factor:.7g}"


CONVERSIONS = {
    "K": (Conversion("degC", offset=ZERO_CELSIUS_K),),
    "Pa": (Conversion("hPa", factor=100.0),),
    "hPa": (Conversion("Pa", factor=0.01),),
    "Pa s-1": (Conversion("hPa s-1", factor=100.0),),
    "m2 s-2": (Conversion("m", factor=GRAVITY),),
    "m": (Conversion("mm", factor=0.001),),
    "kg kg-1": (Conversion("g kg-1", factor=0.001),),
    "m s-1": (Conversion("kt", factor=KNOT),),
    "1": (Conversion("%", factor=0.01),),
    "rad": (Conversion("deg", factor=0.01745329),),
}
"""For each of our units, the other units that sources use."""


def canonical_names(ds: xr.Dataset, where: str = "The dataset") -> xr.Dataset:
    """Renames variables and coordinates to ours; units and values stay as they are.

    `time` becomes the valid time where the source has both, on whole seconds. A `z` without levels is the surface
    geopotential.

    Raises:
        ValueError: two variables of the source stand for the same one of ours, or times are not on whole seconds.
    """
    ds = _use_valid_time(ds)
    ds = ds.rename(_renames(ds, _COORDINATES))
    if "time" in ds.coords and ds["time"].dtype.kind == "M":
        time = ds["time"]
        ds = ds.assign_coords(time=time.copy(data=whole_seconds(np.asarray(time.values), time.encoding, where)))
    z = {"z": "geopotential" if "z" in ds and "level" in ds["z"].coords else SURFACE_GEOPOTENTIAL}
    return ds.rename(_renames(ds, _VARIABLES | z))


def check_units(ds: xr.Dataset, where: str) -> None:
    """Compares the unit attributes of our fields, where present, with our units.

    Raises:
        ValueError: units differ; the message names the conversion where one is known.
    """
    expected = {name: about.units for name, about in (VARIABLES | STATIC_VARIABLES).items()} | {"level": "hPa"}
    for name, ours in expected.items():
        if name not in ds.variables:
            continue
        written = str(ds[name].attrs.get("units", ""))
        if same_units(written, ours):
            continue
        known = [rule for rule in CONVERSIONS.get(ours, ()) if rule.units == spell_units(written)]
        advice = f"Convert it first: {known[0]}." if known else "Convert it, or correct its attribute 'units'."
        raise ValueError(f"{where}: '{name}' is expected in {ours}, got units '{written}'. {advice}")


def _use_valid_time(ds: xr.Dataset) -> xr.Dataset:
    if "valid_time" not in ds.variables or ds["valid_time"].ndim > 1:  # of several forecasts, which have two axes
        return ds
    if "time" in ds.variables and ds["valid_time"].dims == ds["time"].dims:
        return ds.assign_coords(time=ds["time"].copy(data=ds["valid_time"].values)).drop_vars("valid_time")
    # A forecast on its own: `time` is when it starts, and one valid time after the other is its axis.
    scalar_start = "time" in ds.variables and ds["time"].ndim == 0
    return (ds.drop_vars("time") if scalar_start else ds).rename(valid_time="time")


def _renames(ds: xr.Dataset, names: dict[str, str]) -> dict[str, str]:
    present = {theirs: ours for theirs, ours in names.items() if theirs in ds.variables or theirs in ds.dims}
    chosen: dict[str, str] = {}
    for theirs, ours in present.items():
        if ours in ds.variables or ours in chosen.values():
            rivals = {name for name, target in names.items() if target == ours} | {ours}
            found = ", ".join(sorted(rivals & set(map(str, ds.variables))))
            raise ValueError(f"'{ours}' is there more than once: {found}. Keep one of them (`ds.drop_vars`).")
        chosen[theirs] = ours
    return chosen
