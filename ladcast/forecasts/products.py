"""What users make of an ensemble: mean and spread, quantiles, probabilities and series at points.

Every function takes a forecast in the WeatherBench 2 layout, lazy or not, from fields or from latents, and returns a
dataset; with dask arrays (`chunks={}`) nothing is computed before it is asked for.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import xarray as xr

from ladcast.data.lexicon import CONVERSIONS, SPOKEN
from ladcast.fields import VARIABLES
from ladcast.grid import TOLERANCE_DEG, Place, circles_globe
from ladcast.plots.quantities import spread_of
from ladcast.units import spell_units

MEMBERS = "number"
Method = Literal["bilinear", "nearest"]
COMPARISONS: dict[str, Callable[[xr.DataArray, float], xr.DataArray]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?"
EVENT = re.compile(rf"\s*(?P<name>\w+)\s*(?P<comparison>[<>]=?)\s*(?P<value>{NUMBER})\s*(?P<units>[A-Za-z%].*)")
WIND = ("10m_u_component_of_wind", "10m_v_component_of_wind")
UPPER_WIND = ("u_component_of_wind", "v_component_of_wind")


def mean_and_spread(forecast: xr.Dataset) -> xr.Dataset:
    """Returns `<variable>_mean` and `<variable>_spread`, the standard deviation with divisor M - 1.

    Raises:
        ValueError: there is no second member.
    """
    if forecast.sizes[MEMBERS] < 2:
        raise ValueError(f"The spread needs 2 members, got {forecast.sizes[MEMBERS]}. Choose more.")
    wide = forecast.astype(np.float64)  # 32 bits lose digits of the geopotential over many members
    mean = _described(wide.mean(MEMBERS, skipna=False), forecast, "mean")
    spread = _described(wide.reduce(spread_of, MEMBERS), forecast, "standard_deviation")
    return mean.rename({name: f"{name}_mean" for name in mean}).merge(
        spread.rename({name: f"{name}_spread" for name in spread})
    )


def quantiles(forecast: xr.Dataset, levels: Sequence[float]) -> xr.Dataset:
    """Returns the quantiles of the members, interpolated linearly between them, along a last dimension `quantile`.

    Raises:
        ValueError: a level is outside [0, 1].
    """
    if not levels or min(levels) < 0 or max(levels) > 1:
        raise ValueError(f"Expected quantile levels within [0, 1] such as 0.1 0.5 0.9, got {list(levels)}.")
    whole = forecast.chunk({MEMBERS: -1}) if forecast.chunks else forecast
    found = whole.quantile(list(levels), MEMBERS, skipna=False).transpose(..., "quantile")
    return _described(found, forecast, None)  # CF has no cell method for quantiles


@dataclass(frozen=True)
class Event:
    """Says when a field counts: `comparison` with `threshold` in our units; `text` is how it was asked for.

    `name` is a variable without levels, a channel such as `t850`, or a wind speed, `wind10` or such as `wind850`.
    """

    name: str
    comparison: str
    threshold: float
    text: str

    @classmethod
    def parse(cls, text: str) -> Event:
        """Reads an event such as `t2m > 30 degC` or `tp6h >= 10 mm`.

        Raises:
            ValueError: it has another form, or units that do not serve the variable.
        """
        parts = EVENT.fullmatch(text)
        if parts is None:
            raise ValueError(f"Expected an event as NAME > VALUE UNITS such as 't2m > 30 degC', got '{text}'.")
        name, written = parts["name"], spell_units(parts["units"])
        ours = VARIABLES[_split(name)[0][0]].units
        known = {rule.units: rule for rule in CONVERSIONS.get(ours, ())}
        if written != ours and written not in known:
            expected = ", ".join([ours, *known])
            raise ValueError(f"The event '{text}' has units '{written}', expected one of: {expected}.")
        value = float(parts["value"])
        return cls(name, parts["comparison"], value if written == ours else known[written](value), text.strip())

    @property
    def variables(self) -> tuple[str, ...]:
        """Returns the variables it is made of."""
        return _split(self.name)[0]

    @property
    def level(self) -> int | None:
        """Returns its pressure level in hPa, if it has one."""
        return _split(self.name)[1]

    def of(self, forecast: xr.Dataset) -> xr.DataArray:
        """Returns the field that it compares; raises ValueError where the forecast lacks it."""
        if missing := [name for name in self.variables if name not in forecast]:
            has = ", ".join(map(str, forecast))
            raise ValueError(f"The event '{self.text}' needs {', '.join(missing)}; the forecast has {has}.")
        fields = [forecast[name] for name in self.variables]
        if self.level is not None:
            levels = forecast["level"].values.tolist()
            if self.level not in levels:
                raise ValueError(f"The event '{self.text}' needs {self.level} hPa; the forecast has {levels}.")
            fields = [field.sel(level=self.level, drop=True) for field in fields]
        return fields[0] if len(fields) == 1 else xr.DataArray(np.hypot(fields[0], fields[1]))

    def happens(self, forecast: xr.Dataset) -> xr.DataArray:
        """Returns 1 where it happens and 0 where not, NaN where its field is NaN."""
        field = self.of(forecast)
        return COMPARISONS[self.comparison](field, self.threshold).where(field.notnull())


def probabilities(forecast: xr.Dataset, events: Sequence[Event]) -> xr.Dataset:
    """Returns the share of members in which each event happens, NaN where its field is NaN.

    A variable is named after its event: `t2m > 30 degC` becomes `t2m_above_30_degC`.
    """
    return xr.Dataset({_event_name(event): _probability(event, forecast) for event in events}, attrs=forecast.attrs)


def at_points(forecast: xr.Dataset, places: Sequence[Place], method: Method = "bilinear") -> xr.Dataset:
    """Returns series at places along a dimension `point`, the coordinate `place` naming them.

    `nearest` takes the nearest row and column; `bilinear` weights the four points around a place, across 0 deg too.
    Beyond the last row before a pole a place takes the values of that row. Where one of the points is NaN, so is the
    result.

    Raises:
        ValueError: a place lies outside of the forecast's region.
    """
    series = [_at(forecast, place, method) for place in places]
    together = xr.concat(series, xr.DataArray(np.arange(len(places)), dims="point", name="point"))
    return together.assign_coords(
        place=("point", [place.name for place in places]),
        latitude=("point", [place.latitude_deg for place in places], {"units": "degrees_north"}),
        longitude=("point", [place.longitude_deg for place in places], {"units": "degrees_east"}),
    )


def _at(forecast: xr.Dataset, place: Place, method: Method) -> xr.Dataset:
    rows, columns = forecast["latitude"].values, _around(forecast["longitude"].values)
    north = _towards_poles(rows, place.latitude_deg)
    east = columns[0] + (place.longitude_deg - columns[0]) % 360
    if not (rows[0] <= north <= rows[-1] and east <= columns[-1]):
        raise ValueError(
            f"{place.name} at {place.latitude_deg:g} N, {place.longitude_deg:g} E lies outside of the region, "
            f"{rows[0]:g} to {rows[-1]:g} N and {columns[0]:g} to {columns[-1]:g} E. Widen it."
        )
    if method == "nearest":
        row, column = place.nearest(forecast)
        return forecast.isel(latitude=row, longitude=column).drop_vars(["latitude", "longitude"])
    row_pair, row_weights = _neighbours(rows, north)
    column_pair, column_weights = _neighbours(columns, east)
    around = forecast.isel(latitude=row_pair, longitude=column_pair % forecast.sizes["longitude"])
    weights = xr.DataArray(np.outer(row_weights, column_weights), dims=("latitude", "longitude"))
    summed = (around.drop_vars(["latitude", "longitude"]) * weights).sum(("latitude", "longitude"), skipna=False)
    return _described(summed, forecast, None)


def _around(columns: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Adds the first column again behind the last one where the columns go around the globe."""
    return np.append(columns, columns[:1] + 360) if circles_globe(columns) else columns


def _towards_poles(rows: npt.NDArray[np.float64], latitude: float) -> float:
    """Returns the latitude, or that of the last row before a pole where it lies beyond."""
    step = np.diff(rows).max() if len(rows) > 1 else 0.0
    south, north = (abs(row) + step > 90 + TOLERANCE_DEG for row in (rows[0], rows[-1]))
    return float(np.clip(latitude, rows[0] if south else None, rows[-1] if north else None))


def _neighbours(
    points: npt.NDArray[np.float64], wanted: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Returns the points on both sides of a value, which none of them lies beyond, and their weights."""
    if len(points) == 1:
        return np.array([0]), np.array([1.0])
    after = min(int(np.searchsorted(points, wanted, side="right")), len(points) - 1)
    share = (wanted - points[after - 1]) / (points[after] - points[after - 1])
    return np.array([after - 1, after]), np.array([1 - share, share])


def _probability(event: Event, forecast: xr.Dataset) -> xr.DataArray:
    return xr.DataArray(
        event.happens(forecast).mean(MEMBERS, skipna=False).astype(np.float32),
        attrs={"units": "1", "long_name": f"probability of {event.text}", "cell_methods": f"{MEMBERS}: mean"},
    )


def _event_name(event: Event) -> str:
    words = event.text
    for sign, word in ((">", "above"), ("<", "below"), ("=", "or equal"), ("-", "minus")):
        words = words.replace(sign, f" {word} ")
    return re.sub(r"[^\w.]+", "_", words).strip("_")


def _described(result: xr.Dataset, source: xr.Dataset, method: str | None) -> xr.Dataset:
    """Returns the result in float32 with the attributes of its source and the cell method."""
    described = result.astype(np.float32).assign_attrs(source.attrs)
    for name, field in described.data_vars.items():
        methods = [source[name].attrs.get("cell_methods"), method and f"{MEMBERS}: {method}"]
        joined = " ".join(filter(None, methods))
        field.attrs = {**source[name].attrs, **({"cell_methods": joined} if joined else {})}
    return described


def _split(name: str) -> tuple[tuple[str, ...], int | None]:
    """Splits a channel's name into its variables (two of a speed) and level; raises ValueError for an unknown one."""
    whole, word = SPOKEN.get(name, name), name.rstrip("0123456789")
    if name in ("10m_wind_speed", "wind10"):
        return WIND, None
    if whole in VARIABLES and not VARIABLES[whole].on_levels:
        return (whole,), None
    variables = UPPER_WIND if word == "wind" else (SPOKEN.get(word, word),)
    if variables[0] in VARIABLES and VARIABLES[variables[0]].on_levels and word != name:
        return variables, int(name.removeprefix(word))
    shorts = ", ".join(about.short + ("500" if about.on_levels else "") for about in VARIABLES.values())
    raise ValueError(f"Unknown field '{name}'. Expected wind10, or a channel such as wind850 {shorts}.")
