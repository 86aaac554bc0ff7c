"""How other producers spell units, and when two spellings mean the same."""

from __future__ import annotations

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
