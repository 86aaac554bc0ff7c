"""Units and constants: how other producers spell units, and physical constants with their unit and source."""

from __future__ import annotations

GRAVITY = 9.80665
"""Standard gravity in m s-2: the factor between geopotential and geopotential height (WMO)."""
MODEL_EARTH_RADIUS_M = 6_371_229.0
"""The radius of the sphere in the models of ECMWF and NCEP (GRIB shape of the earth 6), for derivatives of fields."""
MEAN_EARTH_RADIUS_KM = 6371.0
"""The mean radius of the earth (IUGG, rounded), by which distances between places are measured."""
KNOT = 0.514444
"""One knot in m s-1, to the six digits that tables of best tracks are converted with (1852 m / 3600 s)."""
ZERO_CELSIUS_K = 273.15
"""The temperature of 0 degrees Celsius."""
EARTH_ROTATION = 7.292e-5
"""The angular velocity of the earth in s-1, of which the Coriolis parameter is twice the part along the vertical."""


_SPELLINGS = {
    "k": "K",
    "kelvin": "K",
    "c": "degC",
    "degc": "degC",
    "celsius": "degC",
    "degrees_celsius": "degC",
    "pa": "Pa",
    "pascal": "Pa",
    "pascals": "Pa",
    "hpa": "hPa",
    "mb": "hPa",
    "mbar": "hPa",
    "millibar": "hPa",
    "millibars": "hPa",
    "pa/s": "Pa s-1",
    "pa s-1": "Pa s-1",
    "hpa/s": "hPa s-1",
    "hpa s-1": "hPa s-1",
    "m/s": "m s-1",
    "m2/s2": "m2 s-2",
    "kg/kg": "kg kg-1",
    "g/kg": "g kg-1",
    "gpm": "m",
    "meter": "m",
    "meters": "m",
    "metre": "m",
    "metres": "m",
    "m of water equivalent": "m",
    "kg/m2": "mm",
    "kg m-2": "mm",
    "millimeter": "mm",
    "knots": "kt",
    "kts": "kt",
    "knot": "kt",
    "(0-1)": "1",
    "0-1": "1",
    "fraction": "1",
    "fractional": "1",
    "proportion": "1",
    "numeric": "1",
    "~": "1",
    "degree": "deg",
    "degrees": "deg",
    "radians": "rad",
    "percent": "%",
}


def spell_units(text: str) -> str:
    """Returns the units as we write them, such as `m2 s-2` for `m**2 s**-2`; unknown text is only tidied."""
    tidy = " ".join(text.replace("**", "").replace("^", "").split())
    compact = tidy.lower().replace(" / ", "/").replace(" - ", "-")
    return _SPELLINGS.get(compact, tidy)


def same_units(first: str, second: str) -> bool:
    """Says whether two texts may mean the same: unknown units (empty, `~`) fit all, `1` is also a ratio of masses."""
    if {first, second} & {"", "~"}:
        return True
    spelled = {spell_units(first), spell_units(second)}
    return len(spelled) == 1 or spelled == {"1", "kg kg-1"}
