"""Rules that say which of our variables the fields of a source become, under which name, and how."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import xarray as xr

from ladcast.constants import GRAVITY
from ladcast.data import derive
from ladcast.data.lazy import elementwise, six_hour_sums
from ladcast.fields import PRECIPITATION, SST, STATIC_VARIABLES, VARIABLES


@dataclass(frozen=True)
class Rule:
    """How `target`, one of our variables, is made of the source's fields `needs`.

    Attributes:
        make: turns these fields, read lazily, into ours; None where ours is the source's as it is.
        how: what is done, for tables and for the attribute `derived`; empty where nothing is.
        approximate: ours is not what the source's own model has.
    """

    target: str
    needs: tuple[str, ...]
    make: Callable[..., xr.DataArray] | None = None
    how: str = ""
    approximate: bool = False


def same(**names: str) -> tuple[Rule, ...]:
    """Returns rules that only rename: `same(temperature="t")`."""
    return tuple(Rule(ours, (theirs,)) for ours, theirs in names.items())


def translate(raw: xr.Dataset, rules: Iterable[Rule], targets: Sequence[str] | None = None) -> xr.Dataset:
    """Returns the variables that the first fitting rule of each target makes of `raw`, lazily, in our names.

    `targets` restricts them; variables that no rule can make are left out: `open_store` says which are missing.
    """
    fields: dict[str, xr.DataArray] = {}
    for rule in rules:
        wanted = targets is None or rule.target in targets
        if wanted and rule.target not in fields and all(name in raw for name in rule.needs):
            fields[rule.target] = _made(rule, [raw[name] for name in rule.needs])
    return xr.Dataset(fields, attrs=raw.attrs)


def _made(rule: Rule, fields: Sequence[xr.DataArray]) -> xr.DataArray:
    if rule.make is None:
        return fields[0]
    made = rule.make(*fields).assign_attrs(derived=rule.how)
    return made.assign_attrs(approximate="yes") if rule.approximate else made


def _with_pressure(phase: derive.Phase, humidity: xr.DataArray, temperature: xr.DataArray) -> xr.DataArray:
    pressure = humidity["level"] * 100.0
    return derive.specific_humidity(humidity, temperature, pressure, phase)


def _omega(wind: xr.DataArray, temperature: xr.DataArray) -> xr.DataArray:
    return derive.vertical_velocity(wind, temperature, wind["level"] * 100.0)


def from_height(target: str, height: str) -> Rule:
    """Returns the rule: geopotential = standard gravity x geopotential height."""
    return Rule(target, (height,), partial(elementwise, derive.geopotential), f"{GRAVITY} m s-2 x {height}")


def from_relative_humidity(phase: derive.Phase) -> Rule:
    """Returns the rule: specific humidity from RH and T, saturated as the centre does."""
    how = f"r, t and p, saturation over {'water' if phase == 'water' else f'the water-ice mix of {phase}'}"
    make = partial(elementwise, partial(_with_pressure, phase))
    return Rule("specific_humidity", ("r", "t"), make, how, approximate=True)


def from_skin(*needs: str) -> Rule:
    """Returns the rule: SST from skin temperature, land share and (where given) ice share."""
    how = f"{needs[0]} over sea ({', '.join(needs[1:])}), at least {derive.FREEZING_SEA_K} K"
    return Rule(SST, needs, partial(elementwise, derive.sea_surface_temperature), how, approximate=True)


from_geometric_wind = Rule(
    "vertical_velocity", ("wz", "t"), partial(elementwise, _omega), "-p g wz / (R t)", approximate=True
)
"""The rule: omega from the geometric vertical wind, hydrostatically."""

from_hourly = Rule(PRECIPITATION, ("total_precipitation",), six_hour_sums, "sum of 6 hourly totals")
"""The rule: six-hour precipitation from hourly totals."""

WEATHERBENCH_NAMES = same(**{name: name for name in (*VARIABLES, *STATIC_VARIABLES)})
"""The names of WeatherBench 2 are ours."""
